//! What the table makes of a sequence of scrapes between which the configuration changes.

use std::collections::BTreeSet;

use super::histograms::{histogram, histograms_for, scrape_histogram};
use super::*;

/// The values of `scrape_series_added`.
fn added(blocks: &[Block]) -> Vec<String> {
    let all = all_for(0, blocks).into_iter().filter(|line| line.starts_with("scrape_series_added"));
    all.map(|line| line.split(' ').nth_back(1).expect("a value").to_owned()).collect()
}

#[test]
fn under_another_configuration_no_series_ends_that_goes_on() {
    for (keys, counts_anew) in [
        ("  scrape_interval: 5s", "2"),
        ("  scrape_timeout: 5s", "2"),
        ("  sample_limit: 7", "0"),
        ("  scheme: http\n  authorization: {credentials: x}", "0"),
        ("  follow_redirects: false", "0"),
        ("  label_limit: 7", "2"),
        ("  relabel_configs: [{action: labeldrop, regex: __meta_.*}]", "2"),
        ("  metric_relabel_configs: [{action: drop, source_labels: [x], regex: z}]", "2"),
        ("  honor_timestamps: false", "2"),
        ("  native_histogram_bucket_limit: 7", "2"),
        ("  convert_classic_histograms_to_nhcb: true", "2"),
    ] {
        let mut scene = scene("", "");
        scene.scrape(1000, "a 1\nb 1\nc 1\n");
        scene.reload(0, keys, "");
        let blocks = scene.scrape(2000, "a 2\nb 2\n");
        let expected = [
            r#"a{instance="t:1", job="j"} 2 2000"#,
            r#"b{instance="t:1", job="j"} 2 2000"#,
            r#"c{instance="t:1", job="j"} stale 2000"#,
        ];
        assert_eq!(lines(&blocks), expected, "{keys}");
        assert_eq!(added(&blocks), [counts_anew], "{keys}");
    }
}

#[test]
fn series_that_other_rules_drop_or_rename_end() {
    let mut scene = scene("", "");
    scene.scrape(1000, "a 1\nb 1\n");
    let rules = "  metric_relabel_configs:
  - {source_labels: [__name__], regex: a, action: drop}
  - {source_labels: [__name__], regex: b, target_label: new, replacement: label}";
    scene.reload(0, rules, "");
    let renamed = r#"b{instance="t:1", job="j", new="label"}"#;
    let expected = [
        format!("{renamed} 2 2000"),
        r#"a{instance="t:1", job="j"} stale 2000"#.to_owned(),
        r#"b{instance="t:1", job="j"} stale 2000"#.to_owned(),
    ];
    assert_eq!(lines(&scene.scrape(2000, "a 2\nb 2\n")), expected);
    assert_eq!(lines(&scene.scrape(3000, "a 3\nb 3\n")), [format!("{renamed} 3 3000")]);
}

#[test]
fn under_other_external_labels_everything_ends_and_begins() {
    let mut scene = scene("  extra_scrape_metrics: true", "global: {external_labels: {dc: one}}");
    let first = all_for(0, &scene.scrape(1000, "a 1\n"));
    scene.reload(0, "  extra_scrape_metrics: true", "global: {external_labels: {dc: two}}");
    let second = all_for(0, &scene.scrape(2000, "a 2\n"));
    let of = |dc: &str, stale: bool, lines: &[String]| {
        let found = lines.iter().filter(|line| line.contains(dc) && line.contains("stale") == stale);
        found.map(|line| line.split('{').next().expect("a name").to_owned()).collect::<BTreeSet<_>>()
    };
    assert_eq!(first.len(), 9);
    assert_eq!(of(r#"dc="two""#, false, &second).len(), 9, "{second:#?}");
    assert_eq!(of(r#"dc="one""#, true, &second).len(), 9, "{second:#?}");
    assert_eq!(second.len(), 18);
    // Back again before the next scrape: what has ended begins anew, and nothing is written twice.
    scene.reload(0, "  extra_scrape_metrics: true", "global: {external_labels: {dc: three}}");
    scene.reload(0, "", "global: {external_labels: {dc: two}}");
    let third = all_for(0, &scene.scrape(3000, "a 3\n"));
    let no_longer = ["scrape_timeout_seconds", "scrape_sample_limit", "scrape_body_size_bytes"];
    assert_eq!(of(r#"dc="two""#, true, &third), no_longer.map(str::to_owned).into());
    assert_eq!(third.len(), 9, "{third:#?}");
}

#[test]
fn a_receiver_that_is_added_gets_every_series_and_no_marker_of_older_ones() {
    let write =
        |rules: &str| format!("- {{url: 'http://r.example/{}', write_relabel_configs: [{rules}]}}\n", rules.len());
    let (plain, own) = (write(""), write("{target_label: own, replacement: way}"));
    let mut scene = scene("", &format!("remote_write:\n{plain}"));
    scene.scrape(1000, "a 1\nb 1\n");
    // The new one stands first in the file; the numbers are what counts.
    scene.reload(1, "", &format!("remote_write:\n{own}{plain}"));
    let blocks = scene.scrape(2000, "a 2\n");
    assert_eq!(lines_for(1, &blocks), [r#"a{instance="t:1", job="j", own="way"} 2 2000"#]);
    let expected = [r#"a{instance="t:1", job="j"} 2 2000"#, r#"b{instance="t:1", job="j"} stale 2000"#];
    assert_eq!(lines_for(2, &blocks), expected);
    assert_eq!(all_for(1, &blocks).len(), 6, "up and its companions, too");
    assert!(lines_for(0, &blocks).is_empty(), "nobody has this number any more");
    // And gone again, with the one that was there before.
    scene.reload(1, "", &format!("remote_write:\n{own}"));
    let expected =
        [r#"c{instance="t:1", job="j", own="way"} 3 3000"#, r#"a{instance="t:1", job="j", own="way"} stale 3000"#];
    assert_eq!(lines_for(1, &scene.scrape(3000, "c 3\n")), expected);
}

#[test]
fn a_receiver_that_begins_to_want_histograms_gets_them_and_goes_on_with_the_rest() {
    let write =
        |wanted: bool| format!("remote_write: [{{url: 'http://r.example/w', send_native_histograms: {wanted}}}]");
    let mut scene = scene("", &write(false));
    let text = "h 1\n";
    assert_eq!(histograms_for(0, &scrape_histogram(&mut scene, 1000, text, &histogram(Vec::new()))), 0);
    scene.reload(0, "", &write(true));
    let blocks = scrape_histogram(&mut scene, 2000, text, &histogram(Vec::new()));
    assert_eq!((histograms_for(0, &blocks), added(&blocks)), (1, vec!["0".to_owned()]));
    scene.reload(0, "", &write(false));
    let blocks = scrape_histogram(&mut scene, 3000, text, &histogram(Vec::new()));
    assert_eq!((histograms_for(0, &blocks), added(&blocks)), (0, vec!["0".to_owned()]));
}

#[test]
fn what_a_lower_limit_leaves_out_ends() {
    let mut scene = scene("", "");
    scene.scrape(1000, "a 1\nb 1\nc 1\n");
    scene.reload(0, "  sample_limit: 2", "");
    let blocks = scene.failed_for(Reason::SampleLimit, 2000, "a 2\nb 2\nc 2\n");
    assert_eq!(lines(&blocks), [r#"c{instance="t:1", job="j"} stale 2000"#]);
    assert_eq!(lines(&scene.failed_for(Reason::SampleLimit, 3000, "a 3\nb 3\nc 3\n")), [""; 0]);
}

#[test]
fn a_failing_scrape_under_another_configuration_ends_what_was_exposed() {
    let mut scene = scene("", "");
    scene.scrape(1000, "a 1\n");
    scene.reload(0, "  metric_relabel_configs: [{target_label: x, replacement: y}]", "");
    let blocks = scene.failed_for(Reason::ConnectRefused, 2000, "");
    assert_eq!(lines(&blocks), [r#"a{instance="t:1", job="j"} stale 2000"#]);
    assert_eq!(lines(&scene.scrape(3000, "a 3\n")), [r#"a{instance="t:1", job="j", x="y"} 3 3000"#]);
    assert_eq!(lines(&scene.table.end(4000)), [r#"a{instance="t:1", job="j", x="y"} stale 4000"#]);
}

#[test]
fn what_is_sent_keeps_its_name_though_the_target_is_reached_in_another_way() {
    let mut scene = scene("", "");
    let before = scene.scrape(1000, "a 1\n")[0].target;
    scene.reload(0, "  metrics_path: /other", "");
    assert_eq!(scene.scrape(2000, "a 2\n")[0].target, before, "its series are the same");
    scene.reload(0, "  relabel_configs: [{target_label: zone, replacement: z}]", "");
    assert_ne!(scene.scrape(3000, "a 3\n")[0].target, before, "its series are others");
}
