//! Our parser beside the crate `prometheus-parse`, which nobody here wrote.
//!
//! That crate is right on plain bodies only, so plain bodies are what is compared: text format, ASCII names without
//! colon, no empty braces (it drops such lines), label values without `\`, `"`, `}`, `,` and `=` (it keeps escapes, splits
//! at the others, or drops the line), no label twice, a timestamp on every sample (it gives others the time of the
//! day), values in the syntax that Rust and Go share, no exemplars, no TYPE line that turns a sample into a
//! bucket. What it makes of everything else is known to be wrong.

use meshscrape::model::normalise_nan;
use meshscrape::parse::Format;
use prometheus_parse::{Scrape, Value};
use proptest::prelude::*;

use super::{Outcome, envoy_capture, read};

/// Name, sorted labels, bits of the value, and where it counts the timestamp.
type Plain = (String, Vec<(String, String)>, u64, Option<i64>);

proptest! {
    #[test]
    fn plain_bodies_are_read_alike(lines in prop::collection::vec(plain_line(), 0..40)) {
        let body = lines.concat();
        prop_assert_eq!(ours(&read(Format::PrometheusText, body.as_bytes())), theirs(&body, true));
    }
}

#[test]
fn a_real_envoys_stats_are_read_alike() {
    let outcome = read(Format::PrometheusText, envoy_capture().as_bytes());
    let types = outcome.entries.len() - outcome.samples().count();
    assert_eq!((outcome.samples().count(), types), (1432, 572), "the capture has 2004 lines");
    // Envoy writes empty braces, which the other parser takes for garbage.
    let theirs = theirs(&envoy_capture().replace("{}", ""), false);
    assert_eq!(ours_with_buckets(&outcome), theirs);
}

fn ours(outcome: &Outcome) -> Vec<Plain> {
    assert_eq!((&outcome.error, outcome.complete), (&None, true));
    let mut samples: Vec<Plain> = outcome
        .samples()
        .map(|sample| {
            let mut labels = sample.labels.clone().expect("no label twice");
            let name = labels.remove("__name__").expect("every series has a name");
            let pairs = labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
            (name.to_string(), pairs, sample.bits, sample.timestamp_ms)
        })
        .collect();
    samples.sort();
    samples
}

/// In the form that they keep of a histogram: bounds are numbers, and there are no times to compare.
fn ours_with_buckets(outcome: &Outcome) -> Vec<Plain> {
    let mut samples = ours(outcome);
    for (_, labels, _, time) in &mut samples {
        *time = None;
        for (_, bound) in labels.iter_mut().filter(|(name, _)| name == "le") {
            *bound = bound.parse::<f64>().expect("a bound").to_string();
        }
    }
    samples.sort();
    samples
}

fn theirs(body: &str, with_times: bool) -> Vec<Plain> {
    let scrape = Scrape::parse(body.lines().map(|line| Ok(line.to_owned()))).expect("lines from memory");
    let mut samples = Vec::new();
    for sample in &scrape.samples {
        let time = with_times.then(|| sample.timestamp.timestamp_millis());
        let labels = |extra: Option<(&str, f64)>| {
            let own = sample.labels.iter().filter(|(_, value)| !value.is_empty());
            let mut pairs: Vec<_> = own.map(|(name, value)| (name.clone(), value.clone())).collect();
            pairs.extend(extra.map(|(name, bound)| (name.to_owned(), bound.to_string())));
            pairs.sort();
            pairs
        };
        match &sample.value {
            Value::Counter(value) | Value::Gauge(value) | Value::Untyped(value) => {
                samples.push((sample.metric.clone(), labels(None), normalise_nan(*value).to_bits(), time));
            }
            Value::Histogram(buckets) => samples.extend(buckets.iter().map(|bucket| {
                let labels = labels(Some(("le", bucket.less_than)));
                (format!("{}_bucket", sample.metric), labels, bucket.count.to_bits(), time)
            })),
            Value::Summary(_) => panic!("no summary is in these bodies"),
        }
    }
    samples.sort();
    samples
}

fn plain_line() -> impl Strategy<Value = String> {
    let label = ("[a-zA-Z_][a-zA-Z0-9_]{0,6}", "[^\\\\\"},=\\n\\r\\p{C}]{0,12}");
    let labels = prop::collection::btree_map(label.0, label.1, 0..5);
    let sample = ("[a-zA-Z_][a-zA-Z0-9_]{0,12}", labels, plain_value(), 0..4_102_444_800_000_i64, "[ \t]{1,2}");
    let sample = sample.prop_map(|(name, labels, value, ms, blank)| {
        let labels: Vec<_> = labels.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
        let braces = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        format!("{name}{braces}{blank}{value}{blank}{ms}\n")
    });
    let comment = prop_oneof![
        Just("\n".to_owned()),
        Just("# a comment\n".to_owned()),
        Just("# HELP lake How deep it is.\n".to_owned()),
        Just("# TYPE lake gauge\n".to_owned()),
    ];
    prop_oneof![9 => sample, 1 => comment]
}

fn plain_value() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<i64>().prop_map(|value| value.to_string()),
        any::<f64>().prop_filter("the sign of a NaN", |value| !value.is_nan()).prop_map(|value| format!("{value:e}")),
        any::<f64>().prop_filter("the sign of a NaN", |value| !value.is_nan()).prop_map(|value| value.to_string()),
        Just("NaN".to_owned()),
        Just("+Inf".to_owned()),
        Just("-inf".to_owned()),
    ]
}
