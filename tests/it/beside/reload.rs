//! The same change of the configuration told to both, the real Prometheus by SIGHUP: of every series the same values in the
//! same order, and the same ends.
//!
//! When a change takes hold differs: Prometheus waits up to five seconds for its discovery, and writes the markers of what it
//! no longer scrapes after more than an interval. So it is not compared how often a value was written, nor when.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use meshscrape::model::is_stale;
use tempfile::TempDir;

use super::PLAIN;
use super::judge;
use super::recorder::{Point, Series, Written, by_case};
use super::stage::prometheus;
use super::story::scraped_at;
use crate::support::agent;
use crate::support::process::Process;
use crate::support::receiver::{Answer, Receiver, Recorded, always};
use crate::support::tls_server::{Reply, Server, Talk};

/// A job before and after: lines of its configuration; `None` is no such job.
struct Change {
    case: &'static str,
    before: Option<&'static str>,
    after: Option<&'static str>,
}

const fn from(case: &'static str, before: &'static str, after: &'static str) -> Change {
    Change { case, before: Some(before), after: Some(after) }
}

const CHANGES: &[Change] = &[
    from("same", "", ""),
    Change { case: "gone", before: Some(""), after: None },
    Change { case: "new", before: None, after: Some("") },
    from("interval", "", "scrape_interval: 3s"),
    from("timeout", "", "scrape_timeout: 1900ms"),
    from("sample_limit", "", "sample_limit: 7"),
    from("sample_limit_exceeded", "", "sample_limit: 1"),
    from("credentials", "basic_auth: {username: u, password: p}", "basic_auth: {username: u, password: q}"),
    from("label_limit", "", "label_limit: 7"),
    from("label_limit_exceeded", "", "label_limit: 1"),
    from("body_size_limit_exceeded", "", "body_size_limit: 5B"),
    from("samples_dropped", "", "metric_relabel_configs: [{source_labels: [__name__], regex: b, action: drop}]"),
    from("samples_kept_again", "metric_relabel_configs: [{source_labels: [__name__], regex: b, action: drop}]", ""),
    from(
        "samples_renamed",
        "",
        "metric_relabel_configs: [{source_labels: [__name__], regex: b, target_label: __name__, replacement: c}]",
    ),
    from("rules_that_do_nothing", "", "metric_relabel_configs: [{action: labeldrop, regex: nothing}]"),
    from("honor_labels", "", "honor_labels: true"),
    from("honor_timestamps", "", "honor_timestamps: false"),
    from("track_timestamps", "", "track_timestamps_staleness: true"),
    from("target_labels", "", "relabel_configs: [{target_label: zone, replacement: a}]"),
    from("target_dropped", "", "relabel_configs: [{action: drop}]"),
    from("target_limit", "", "target_limit: 1"),
    from("path", "", "metrics_path: /path/other"),
    from("path_with_fewer_series", "", "metrics_path: /path_with_fewer_series/fewer"),
    from("params", "", "params: {x: [y]}"),
    from("protocols", "", "scrape_protocols: [PrometheusText0.0.4]"),
    from("compression", "", "enable_compression: false"),
];

fn config(server: &Server, receiver: &Receiver, lines_of: impl Fn(&Change) -> Option<&'static str>) -> String {
    let mut text = format!(
        "global: {{scrape_interval: 2s, scrape_timeout: 2s}}
remote_write:
  - url: {}
    queue_config: {{batch_send_deadline: 200ms, min_shards: 1, max_shards: 1}}
scrape_configs:
",
        receiver.url()
    );
    for change in CHANGES {
        let Some(line) = lines_of(change) else { continue };
        let case = change.case;
        text += &format!("  - job_name: {case}\n    scheme: http\n");
        if !line.contains("metrics_path") {
            text += &format!("    metrics_path: /{case}\n");
        }
        text += &format!("    {line}\n    static_configs:\n      - targets: ['{}']\n", server.socket());
        text += &format!("        labels: {{case: {case}, instance: exporter}}\n");
    }
    text
}

/// To Prometheus these are other targets, whose series are called as before. The end of the old one is written at one of its
/// beats, unless the new one has been scraped since: whether there is a marker on the way hangs on two timers.
const OTHER_TARGETS: [&str; 5] = ["interval", "timeout", "path", "path_with_fewer_series", "params"];

/// Of each series only the last sample may be a marker.
fn without_markers_on_the_way(written: &Written) -> Written {
    let goes_on = |samples: &[(i64, Point)]| {
        let last = samples.len().saturating_sub(1);
        let is_marker = |point: &Point| matches!(point, Point::Bits(bits) if is_stale(f64::from_bits(*bits)));
        let kept = samples.iter().enumerate().filter(|(at, (_, point))| *at == last || !is_marker(point));
        kept.map(|(_, sample)| sample.clone()).collect()
    };
    written.iter().map(|(series, samples)| (series.clone(), goes_on(samples))).collect()
}

/// What became of each series: its values, each as long as it stays the same only once. How many series were new is told
/// for the whole of it: between its two steps Prometheus counts once more. Of a target that ended it is not told whether it
/// counted again: that is whether a scrape of Prometheus happened to fall between the two steps.
fn story(written: &Written) -> BTreeMap<Series, Vec<String>> {
    let mut story = BTreeMap::new();
    for (series, samples) in written {
        let name = super::story::name(series);
        let mut values: Vec<String> = Vec::new();
        for (_, point) in samples {
            let value = match point {
                Point::Bits(bits) if is_stale(f64::from_bits(*bits)) => "stale".to_owned(),
                Point::Bits(_) if name == "scrape_duration_seconds" => "some time".to_owned(),
                Point::Bits(bits) => format!("{:?}", f64::from_bits(*bits)),
                other => panic!("no job has {other:?}"),
            };
            if values.last() != Some(&value) {
                values.push(value);
            }
        }
        if name == "scrape_series_added" {
            let ended = values.last().is_some_and(|value| value == "stale");
            let again =
                values.iter().skip_while(|value| *value != "0.0").any(|value| value != "0.0" && value != "stale");
            values.sort();
            values.dedup();
            if !ended {
                values.push(format!("counted again: {again}"));
            }
        }
        story.insert(series.clone(), values);
    }
    story
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_configuration_ends_and_begins_the_same_series() {
    let server = Server::start(Talk::Plain(Arc::new(|asked| {
        let fewer = asked.path().ends_with("/fewer");
        Reply::ok(if fewer { "a 1\n" } else { "a 1\nb{instance=\"own\"} 1\n" })
    })));
    let receivers = [Receiver::start(always(Answer::ok())).await, Receiver::start(always(Answer::ok())).await];
    let dir = TempDir::new().expect("a directory");
    let mut ours = agent::start(dir.path(), &config(&server, &receivers[1], |change| change.before)).await;
    let mut theirs = prometheus(&config(&server, &receivers[0], |change| change.before), PLAIN).await;

    let scrapes =
        |recorded: &[Recorded], case: &str| by_case(recorded).get(case).map_or(0, |all| scraped_at(all).len());
    let patience = Duration::from_secs(60);
    for receiver in &receivers {
        let begun = |recorded: &[Recorded]| {
            CHANGES.iter().all(|change| change.before.is_none() || scrapes(recorded, change.case) >= 2)
        };
        receiver.until_within(patience, "everybody is scraped", begun).await;
    }
    ours.reload(&config(&server, &receivers[1], |change| change.after)).await.expect("a good one");
    reload(&mut theirs, &config(&server, &receivers[0], |change| change.after)).await;
    let mut written = Vec::new();
    for receiver in &receivers {
        let so_far = scrapes(&receiver.recorded(), "same");
        // Enough for Prometheus to find what is new and to give up what is gone.
        let enough = |recorded: &[Recorded]| scrapes(recorded, "same") >= so_far + 8 && scrapes(recorded, "new") >= 3;
        written.push(by_case(&receiver.until_within(patience, "the change is there", enough).await));
    }
    ours.stop().await;

    let mut found = BTreeMap::new();
    for change in CHANGES {
        let theirs = &written[0][change.case];
        let theirs = match OTHER_TARGETS.contains(&change.case) {
            true => story(&without_markers_on_the_way(theirs)),
            false => story(theirs),
        };
        let ours = story(&written[1][change.case]);
        let mut words = String::new();
        let series: BTreeSet<_> = theirs.keys().chain(ours.keys()).collect();
        for series in series.into_iter().filter(|series| theirs.get(*series) != ours.get(*series)) {
            let (theirs, ours) = (theirs.get(series), ours.get(series));
            words += &format!("  {series:?}\n    Prometheus {theirs:?}\n    meshscrape {ours:?}\n");
        }
        if !words.is_empty() {
            found.insert(name(change), words);
        }
    }
    judge(&found, &CHANGES.iter().map(name).collect());
}

/// What it is called among the differences on purpose.
fn name(change: &Change) -> String {
    format!("reload-{}", change.case)
}

async fn reload(theirs: &mut Process, text: &str) {
    std::fs::write(theirs.dir().join("prometheus.yml"), text).expect("its configuration");
    theirs.signal("HUP").await;
}
