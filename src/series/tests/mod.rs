//! Text in, blocks out: what the table makes of a sequence of scrapes, read back through the decoder.

mod adopt;
mod histograms;
mod tenants;
mod version2;

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::config::{Config, ScrapeConfig};
use crate::model::{Block, Failure, Labels, Reason, Sample, Target, is_stale};
use crate::parse::{Entry, Format, Parser, Step};
use crate::wire;

/// A job, its only target and the table of that target.
struct Scene {
    table: Table,
    job: Arc<ScrapeConfig>,
    views: Arc<[View]>,
}

/// What a configuration says of the only target: the job's extra keys and the file's other entries.
struct Said {
    job: Arc<ScrapeConfig>,
    target: Arc<Target>,
    config: Config,
}

fn said(job_keys: &str, rest: &str) -> Said {
    let text = format!(
        "scrape_configs:\n- job_name: j\n  static_configs: [{{targets: ['t:1']}}]\n{job_keys}\n{rest}\n{}",
        if rest.contains("remote_write") { "" } else { "remote_write: [{url: 'http://r.example/w'}]\n" }
    );
    let config: Config = crate::config::parse("test.yaml".as_ref(), &text, &|_| None).config.expect("a good config");
    let job = Arc::clone(&config.scrape_configs[0]);
    let candidates = [crate::model::Candidate {
        labels: [("__address__", "t:1")].into_iter().collect(),
        source: "test".into(),
        pod: None,
    }];
    let target = Arc::clone(&crate::label::targets_of(&job, &candidates, None).active[0]);
    Said { job, target, config }
}

impl Said {
    /// The receivers in the order of the file, numbered from `first`.
    fn views(&self, first: usize, before: &[View]) -> Arc<[View]> {
        let receivers = self.config.remote_write.iter().map(|receiver| &**receiver);
        views_of(receivers.enumerate().map(|(at, receiver)| (first + at, receiver)), before, &Metrics::default()).into()
    }
}

/// Builds the scene from the job's extra keys and the file's `remote_write` entries.
fn scene(job_keys: &str, rest: &str) -> Scene {
    let said = said(job_keys, rest);
    let views = said.views(0, &[]);
    let external = &said.config.global.external_labels;
    let table = Table::new(Arc::clone(&said.job), &said.target, Arc::clone(&views), external);
    Scene { table, job: said.job, views }
}

const HEALTH: Health =
    Health { duration: Duration::from_millis(5), timeout: Duration::from_secs(10), sample_limit: 0, body_bytes: 7 };

impl Scene {
    /// The configuration is another one now; its receivers are numbered from `first`.
    fn reload(&mut self, first: usize, job_keys: &str, rest: &str) {
        let said = said(job_keys, rest);
        self.views = said.views(first, &self.views);
        // As in the agent, what is the same is the same value.
        if *said.job != *self.job {
            self.job = Arc::clone(&said.job);
        }
        self.table.adopt(&self.job, &said.target, &self.views, &said.config.global.external_labels);
    }

    /// One successful scrape of `text` at `at_ms`.
    fn scrape(&mut self, at_ms: i64, text: &str) -> Vec<Block> {
        let mut pass = self.table.begin(at_ms);
        feed(&mut pass, text).expect("a good exposition");
        pass.commit(&HEALTH)
    }

    /// One scrape whose exposition is at fault after `text`.
    fn failed(&mut self, at_ms: i64, text: &str) -> Vec<Block> {
        self.failed_for(Reason::Parse, at_ms, text)
    }

    /// One scrape that fails for `reason` after `text`.
    fn failed_for(&mut self, reason: Reason, at_ms: i64, text: &str) -> Vec<Block> {
        let mut pass = self.table.begin(at_ms);
        feed(&mut pass, text).expect("good as far as it goes");
        pass.fail(&Failure::new(reason, "it is so"), &HEALTH)
    }
}

fn feed(pass: &mut Pass<'_>, text: &str) -> Result<(), crate::model::Failure> {
    let mut parser = Parser::new(Format::PrometheusText);
    let mut rest = text.as_bytes();
    while let Step::Entry(entry, consumed) = parser.next(rest, true).expect("a good exposition") {
        if let Entry::Sample(sample) = entry {
            pass.add(&sample)?;
        }
        rest = &rest[consumed..];
    }
    Ok(())
}

/// `name{labels} value timestamp` of every sample for one receiver, without the synthetic series; markers are `stale`.
fn lines_for(receiver: usize, blocks: &[Block]) -> Vec<String> {
    all_for(receiver, blocks)
        .into_iter()
        .filter(|line| !line.starts_with("up") && !line.starts_with("scrape_"))
        .collect()
}

fn all_for(receiver: usize, blocks: &[Block]) -> Vec<String> {
    let blocks: Vec<&Block> = blocks.iter().filter(|block| block.receiver == receiver).collect();
    let request = wire::decode(&wire::join(&blocks).expect("one format")).expect("valid");
    let mut lines = Vec::new();
    for series in request.timeseries {
        let mut labels: Labels = series.labels.iter().map(|label| (&label.name, &label.value)).collect();
        let name = labels.remove("__name__").expect("named");
        for sample in series.samples {
            let sample = Sample { value: sample.value, timestamp_ms: sample.timestamp };
            let value = if is_stale(sample.value) { "stale".to_owned() } else { sample.value.to_string() };
            lines.push(format!("{name}{labels} {value} {}", sample.timestamp_ms));
        }
    }
    lines
}

fn lines(blocks: &[Block]) -> Vec<String> {
    lines_for(0, blocks)
}

#[test]
fn a_scrape_becomes_samples_with_target_labels() {
    let mut scene = scene("", "");
    let blocks = scene.scrape(1000, "a 1\nb{x=\"y\"} 2\n");
    assert_eq!(
        all_for(0, &blocks),
        [
            r#"a{instance="t:1", job="j"} 1 1000"#,
            r#"b{instance="t:1", job="j", x="y"} 2 1000"#,
            r#"up{instance="t:1", job="j"} 1 1000"#,
            r#"scrape_duration_seconds{instance="t:1", job="j"} 0.005 1000"#,
            r#"scrape_samples_scraped{instance="t:1", job="j"} 2 1000"#,
            r#"scrape_samples_post_metric_relabeling{instance="t:1", job="j"} 2 1000"#,
            r#"scrape_series_added{instance="t:1", job="j"} 2 1000"#,
        ]
    );
    assert_eq!(blocks.len(), 1);
    assert_eq!((blocks[0].samples, blocks[0].min_ms, blocks[0].max_ms), (7, 1000, 1000));
}

#[test]
fn a_vanished_series_gets_one_marker() {
    let mut scene = scene("", "");
    scene.scrape(1000, "a 1\nb 2\n");
    let l = r#"{instance="t:1", job="j"}"#;
    assert_eq!(lines(&scene.scrape(2000, "a 1\n")), [format!("a{l} 1 2000"), format!("b{l} stale 2000")]);
    assert_eq!(lines(&scene.scrape(3000, "a 1\n")), [format!("a{l} 1 3000")]);
    assert_eq!(scene.table.len(), 1, "the vanished series is forgotten");
    assert_eq!(lines(&scene.scrape(4000, "b 5\n")), [format!("b{l} 5 4000"), format!("a{l} stale 4000")]);
}

#[test]
fn a_failed_scrape_ends_everything_once_and_writes_up_0() {
    let mut scene = scene("", "");
    scene.scrape(1000, "a 1\n");
    let blocks = scene.failed(2000, "");
    let l = r#"{instance="t:1", job="j"}"#;
    assert_eq!(lines(&blocks), [format!("a{l} stale 2000")]);
    assert!(all_for(0, &blocks).contains(&format!("up{l} 0 2000")));
    assert_eq!(lines(&scene.failed(3000, "")), [""; 0]);
    let blocks = scene.scrape(4000, "a 1\n");
    assert_eq!(lines(&blocks), [format!("a{l} 1 4000")]);
    let added = format!("scrape_series_added{l} 0 4000");
    assert!(all_for(0, &blocks).contains(&added), "a series that comes back after a failure is not new");
}

#[test]
fn a_scrape_that_fails_half_way_ends_only_what_it_had_not_reached() {
    let mut scene = scene("", "");
    scene.scrape(1000, "a 1\nb 1\n");
    let l = r#"{instance="t:1", job="j"}"#;
    assert_eq!(lines(&scene.failed(2000, "a 2\nnew 1\n")), [format!("b{l} stale 2000")]);
    assert_eq!(lines(&scene.failed(3000, "")), [format!("a{l} stale 3000"), format!("new{l} stale 3000")]);
}

#[test]
fn an_empty_answer_ends_everything() {
    let mut scene = scene("", "");
    scene.scrape(1000, "a 1\n");
    let blocks = scene.scrape(2000, "");
    let l = r#"{instance="t:1", job="j"}"#;
    assert_eq!(lines(&blocks), [format!("a{l} stale 2000")]);
    assert!(all_for(0, &blocks).contains(&format!("up{l} 1 2000")));
}

#[test]
fn a_target_that_is_gone_leaves_markers_for_everything_also_for_up() {
    let mut scene = scene("", "");
    assert_eq!(scene.table.end(500).len(), 0, "never scraped, nothing to end");
    scene.scrape(1000, "a 1\n");
    let blocks = scene.table.end(2000);
    let ended = all_for(0, &blocks);
    assert_eq!(ended.len(), 6);
    assert!(ended.iter().all(|line| line.ends_with(" stale 2000")), "{ended:?}");
}

#[test]
fn explicit_timestamps_get_no_marker_unless_tracked() {
    let mut plain = scene("", "");
    plain.scrape(1_000_000, "a 1 999000\n");
    assert_eq!(lines(&plain.scrape(1_010_000, "")), [""; 0]);
    let mut tracked = scene("  track_timestamps_staleness: true", "");
    tracked.scrape(1_000_000, "a 1 999000\n");
    assert_eq!(lines(&tracked.scrape(1_010_000, "")).len(), 1);
    let mut ignored = scene("  honor_timestamps: false", "");
    assert!(lines(&ignored.scrape(1_000_000, "a 1 999000\n"))[0].ends_with(" 1 1000000"));
    assert_eq!(lines(&ignored.scrape(1_010_000, "")).len(), 1);
}

#[test]
fn repeated_old_and_future_samples_are_dropped_and_counted() {
    let mut scene = scene("", "");
    let mut pass = scene.table.begin(1_000_000);
    feed(&mut pass, "a 1\na 2\nb 1 5\nb 2 6\nb 3 6\nb 4 4\nc 1 99999999999\n").expect("good");
    let counts = pass.counts();
    assert_eq!((counts.scraped, counts.kept), (7, 7));
    assert_eq!((counts.duplicates, counts.out_of_order, counts.out_of_bounds), (1, 2, 1));
    let got = lines(&pass.commit(&HEALTH));
    let l = r#"{instance="t:1", job="j"}"#;
    assert_eq!(got, [format!("a{l} 1 1000000"), format!("b{l} 1 5"), format!("b{l} 2 6")]);
    let mut pass = scene.table.begin(1_010_000);
    feed(&mut pass, "b 9 6\n").expect("good");
    assert_eq!(pass.counts().out_of_order, 1, "not newer than what was committed");
}

#[test]
fn two_spellings_of_one_series_are_one_series() {
    let mut scene = scene("", "");
    let blocks = scene.scrape(1000, "a{x=\"1\",y=\"2\"} 1\na{y=\"2\",x=\"1\"} 2\n");
    assert_eq!(lines(&blocks), [r#"a{instance="t:1", job="j", x="1", y="2"} 1 1000"#]);
}

#[test]
fn a_target_cannot_write_up() {
    let mut scene = scene("", "");
    let mut pass = scene.table.begin(1000);
    feed(&mut pass, "up 1\nscrape_series_added 5\n").expect("good");
    assert_eq!(pass.counts().forged, 2);
    let blocks = pass.fail(&Failure::new(Reason::Parse, "it is so"), &HEALTH);
    let ups: Vec<_> = all_for(0, &blocks).into_iter().filter(|line| line.starts_with("up{")).collect();
    assert_eq!(ups, [r#"up{instance="t:1", job="j"} 0 1000"#]);
}

#[test]
fn sample_limit_counts_all_lines_and_stores_none() {
    let mut scene = scene("  sample_limit: 2", "");
    let mut pass = scene.table.begin(1000);
    feed(&mut pass, "a 1\nb 1\n").expect("good");
    pass.check_limit().expect("exactly the limit is fine");
    pass.commit(&HEALTH);
    let mut pass = scene.table.begin(2000);
    feed(&mut pass, "a 1\nb 1\nc 1\nd 1\n").expect("good");
    let failure = pass.check_limit().expect_err("over the limit");
    assert_eq!(failure.reason, Reason::SampleLimit);
    let counts = pass.counts();
    assert_eq!((counts.scraped, counts.kept, counts.added), (4, 4, 0));
    assert_eq!(lines(&pass.fail(&failure, &HEALTH)), [""; 0], "a and b were reached, c and d never stored");
}

#[test]
fn metric_relabelling_drops_and_renames() {
    let rules = "  metric_relabel_configs:
  - {source_labels: [__name__], regex: 'drop_.*', action: drop}
  - {source_labels: [__name__], regex: 'old', replacement: new, target_label: __name__}";
    let mut scene = scene(rules, "");
    let mut pass = scene.table.begin(1000);
    feed(&mut pass, "drop_me 1\nold 2\n").expect("good");
    assert_eq!((pass.counts().scraped, pass.counts().kept), (2, 1));
    assert_eq!(lines(&pass.commit(&HEALTH)), [r#"new{instance="t:1", job="j"} 2 1000"#]);
}

#[test]
fn receivers_see_their_own_view() {
    let rest = "global: {external_labels: {cluster: c, job: never}}
remote_write:
- {url: 'http://one.example/w', name: one}
- url: 'http://two.example/w'
  name: two
  write_relabel_configs: [{source_labels: [__name__], regex: 'a', action: keep}]
- {url: 'http://three.example/w', name: three}";
    let mut scene = scene("", rest);
    let blocks = scene.scrape(1000, "a 1\nb 2\n");
    assert_eq!(blocks.len(), 3);
    assert_eq!(lines_for(0, &blocks), lines_for(2, &blocks));
    assert_eq!(
        lines_for(0, &blocks),
        [r#"a{cluster="c", instance="t:1", job="j"} 1 1000"#, r#"b{cluster="c", instance="t:1", job="j"} 2 1000"#]
    );
    assert_eq!(all_for(1, &blocks), [r#"a{cluster="c", instance="t:1", job="j"} 1 1000"#]);
}

#[test]
fn large_scrapes_are_cut_into_blocks_in_order() {
    let rest = "remote_write: [{url: 'http://r.example/w', queue_config: {max_samples_per_send: 3}}]";
    let mut scene = scene("", rest);
    let blocks = scene.scrape(1000, "a 1\nb 2\nc 3\nd 4\n");
    assert_eq!(blocks.iter().map(|block| block.samples).collect::<Vec<_>>(), [3, 3, 3]);
    assert_eq!(lines(&blocks).len(), 4);
    assert_eq!(scene.job.job_name.as_ref(), "j");
}

#[test]
fn a_changed_type_is_another_line() {
    let mut scene = scene("", "");
    let l = r#"instance="t:1", job="j""#;
    let first = scene.scrape(1000, "# TYPE h histogram\nh_bucket{le=\"1\"} 1\n");
    assert_eq!(lines(&first), [format!(r#"h_bucket{{{l}, le="1.0"}} 1 1000"#)]);
    let second = scene.scrape(2000, "h_bucket{le=\"1\"} 1\n");
    assert_eq!(
        lines(&second),
        [format!(r#"h_bucket{{{l}, le="1"}} 1 2000"#), format!(r#"h_bucket{{{l}, le="1.0"}} stale 2000"#)]
    );
}

#[test]
fn one_scrape_cannot_fill_the_memory() {
    let mut scene = scene("", "");
    let mut pass = scene.table.begin(1000);
    let padding = "x".repeat(60_000);
    let failure = (0..2000).find_map(|n| feed(&mut pass, &format!("a{{id=\"{n}{padding}\"}} 1\n")).err());
    assert_eq!(failure.expect("the ceiling stands").reason, Reason::TooManyNewSeries);
    pass.fail(&Failure::new(Reason::TooManyNewSeries, "it is so"), &HEALTH);
    assert!(scene.table.is_empty(), "{} series are remembered of a scrape that failed", scene.table.len());
}

#[test]
fn an_answer_that_broke_off_ends_everything_and_counts_nothing() {
    let mut scene = scene("", "");
    scene.scrape(1000, "a 1\nb 1\n");
    let blocks = scene.failed_for(Reason::Timeout, 2000, "a 2\n");
    let l = r#"{instance="t:1", job="j"}"#;
    assert_eq!(lines(&blocks), [format!("a{l} stale 2000"), format!("b{l} stale 2000")]);
    assert!(all_for(0, &blocks).contains(&format!("scrape_samples_scraped{l} 0 2000")));
    assert_eq!(lines(&scene.failed_for(Reason::Timeout, 3000, "a 2\n")), [""; 0], "once");
    assert_eq!(lines(&scene.scrape(4000, "a 3\n")), [format!("a{l} 3 4000")]);
}

#[test]
fn a_pass_that_is_dropped_has_changed_nothing() {
    let mut scene = scene("", "");
    scene.scrape(1000, "a 1\nb 1\n");
    let mut pass = scene.table.begin(2000);
    feed(&mut pass, "a 2\nnew 1\n").expect("good");
    drop(pass);
    let ended = all_for(0, &scene.table.end(3000));
    assert_eq!(ended.len(), 7, "a, b and the five of its own: {ended:?}");
    assert!(!ended.iter().any(|line| line.starts_with("new")), "never stored, nothing to end");
}

#[test]
fn external_labels_do_not_help_to_forge() {
    let rest = "global: {external_labels: {cluster: c}}";
    let spiffe = "  tls_config: {certs_dir: /certs, spiffe: {trust_domain: td}}";
    for (keys, body) in [(spiffe, "up 1\n"), ("", "up 1\n"), ("", "up{cluster=\"c\"} 1\n")] {
        let mut scene = scene(keys, rest);
        let mut pass = scene.table.begin(1000);
        feed(&mut pass, body).expect("good");
        assert_eq!(pass.counts().forged, 1, "{body} in a job with {keys:?}");
        let all = all_for(0, &pass.commit(&HEALTH));
        assert_eq!(all.iter().filter(|line| line.starts_with("up{")).count(), 1, "{all:?}");
    }
}

#[test]
fn two_series_that_are_written_alike_are_one() {
    let mut scene = scene("", "global: {external_labels: {cluster: c}}");
    let blocks = scene.scrape(1000, "a 1\na{cluster=\"c\"} 2\n");
    assert_eq!(lines(&blocks), [r#"a{cluster="c", instance="t:1", job="j"} 1 1000"#]);
}

#[test]
fn failing_scrapes_do_not_fill_the_memory_however_large_their_series() {
    let mut scene = scene("", "");
    let small: String = (0..1000).map(|n| format!("good{{id=\"{n}\"}} 1\n")).collect();
    scene.scrape(1000, &small);
    let padding = "x".repeat(60_000);
    for round in 0..20 {
        let text: String = (0..100).map(|n| format!("a{{id=\"{round}-{n}{padding}\"}} 1\n")).collect();
        scene.failed(2000 + round, &text);
    }
    assert!(scene.table.len() < 1100, "{} series are remembered", scene.table.len());
    assert_eq!(scene.scrape(9000, &small).len(), 1);
    let added =
        all_for(0, &scene.scrape(10_000, &small)).into_iter().find(|line| line.starts_with("scrape_series_added"));
    assert!(added.is_some_and(|line| line.contains(" 0 ")), "the good series were never forgotten");
}

#[test]
fn a_clock_that_was_ahead_does_not_silence_a_series() {
    let mut scene = scene("", "");
    scene.scrape(2_000_000_000_000, "a 1\n");
    let back = scene.scrape(1_700_000_000_000, "a 2\n");
    assert_eq!(lines(&back), [r#"a{instance="t:1", job="j"} 2 1700000000000"#]);
    assert_eq!(lines(&scene.scrape(1_700_000_010_000, "")).len(), 1, "its end is marked");
}

#[test]
fn a_clock_that_was_set_back_a_little_sends_nothing_older_than_was_sent() {
    let mut scene = scene("", "");
    scene.scrape(2_000_000, "a 1\n");
    for blocks in [scene.scrape(1_990_000, "a 2\n"), scene.failed(2_000_000, "")] {
        assert_eq!(all_for(0, &blocks), [""; 0], "receivers refuse whole requests over such samples");
    }
    assert_eq!(all_for(0, &scene.scrape(2_010_000, "a 3\n")).len(), 6);
}

#[test]
fn nothing_follows_a_marker_that_is_older() {
    let mut scene = scene("  track_timestamps_staleness: true", "");
    scene.scrape(1_000_000, "a 1 999000\n");
    assert_eq!(lines(&scene.failed_for(Reason::Timeout, 1_010_000, "")).len(), 1, "the marker");
    assert_eq!(lines(&scene.scrape(1_020_000, "a 2 1009000\n")), [""; 0]);
    assert_eq!(lines(&scene.scrape(1_030_000, "a 3 1029000\n")).len(), 1);
}

#[test]
fn samples_are_bounded_without_a_limit_too() {
    let mut scene = scene("", "");
    let mut pass = scene.table.begin(1_700_000_000_000);
    let mut text = String::new();
    for n in 0..2_000_001 {
        use std::fmt::Write;
        let _ = writeln!(text, "a 1 {n}");
    }
    feed(&mut pass, &text).expect("good");
    let failure = pass.check_limit().expect_err("over the ceiling");
    assert_eq!(failure.reason, Reason::SampleLimit);
    pass.fail(&failure, &HEALTH);
}
