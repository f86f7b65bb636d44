//! Real receivers take one request that was joined of the blocks of several targets, and give back every bit of it.
//!
//! Each block was compressed by itself, one of them in several pieces; the second scrape of a target follows the first
//! in the same request.

use meshscrape::model::{is_stale, normal_nan, stale_nan};

use super::*;
use crate::support::prometheus::Prometheus;
use crate::support::stored::{Point, Stored, sorted};
use crate::support::victoria::Victoria;

/// Each is in series of its own, and none has more than the 15 decimal digits that VictoriaMetrics keeps.
const ODD: [f64; 8] = [0.0, -0.0, 0.5, -123_456_789.25, 1e300, 5e-300, f64::INFINITY, f64::NEG_INFINITY];

/// A target's series, and their values at each of two scrapes.
type Series = Vec<(Labels, [f64; 2])>;

/// One with odd values, one with many series, and one that ends.
fn targets() -> Vec<Series> {
    let series = |target: &str, n: usize, values| {
        let number = n.to_string();
        let text = "Zürich \"☃\"\\\n ".repeat(1 + n % 7);
        let pairs = [("__name__", "odd"), ("target", target), ("n", &number), ("text", text.trim_end())];
        (pairs.into_iter().collect::<Labels>(), values)
    };
    let odd = ODD.into_iter().chain([normal_nan()]).enumerate();
    let ended = odd.clone().map(|(n, value)| series("ended", n, [value, stale_nan()])).collect();
    let odd = odd.map(|(n, value)| series("odd", n, [value, value])).collect();
    let long = (0..2_000).map(|n| series("long", n, [n as f64, n as f64 + 0.5])).collect();
    vec![odd, long, ended]
}

/// One scrape of all `targets`, a block for each.
fn blocks(targets: &[Series], scrape: usize, timestamp_ms: i64, format: WriteFormat) -> Vec<Block> {
    let block = |(target, series): (usize, &Series)| {
        let mut message = Vec::new();
        for (labels, values) in series {
            push_sample(&mut message, &encode_labels(labels), Sample { value: values[scrape], timestamp_ms });
        }
        let block = Block {
            target: TargetId(target as u64),
            receiver: 0,
            tenant: None,
            histograms: 0,
            exemplars: 0,
            format: WriteFormat::V1,
            samples: series.len() as u32,
            min_ms: timestamp_ms,
            max_ms: timestamp_ms,
            raw_len: message.len() as u32,
            elements: compress(&message).expect("a small message").into(),
        };
        match format {
            WriteFormat::V1 => block,
            WriteFormat::V2 => in_format_2(block, &message_of_2(series, scrape, timestamp_ms)),
        }
    };
    targets.iter().enumerate().map(block).collect()
}

fn message_of_2(series: &Series, scrape: usize, timestamp_ms: i64) -> Vec<u8> {
    let mut dictionary = Dictionary::default();
    let encoded: Vec<_> = series.iter().map(|(labels, _)| dictionary.encode(labels)).collect();
    let metadata = family("odd");
    let mut draft = Draft::new(&dictionary);
    for ((_, values), labels) in series.iter().zip(&encoded) {
        let what = What { labels, metadata: Some(&metadata) };
        draft.push_sample(what, Sample { value: values[scrape], timestamp_ms }, None);
    }
    draft.finish()
}

/// Delivers both scrapes of all targets in one request; gives all samples and their last time.
async fn deliver(url: &str, format: WriteFormat) -> (Vec<Stored>, i64) {
    let (targets, first_ms) = (targets(), Clock::system().now_ms() - 2_000);
    let at = [first_ms, first_ms + 1_000];
    let blocks: Vec<_> = (0..2).flat_map(|scrape| blocks(&targets, scrape, at[scrape], format)).collect();
    assert!(blocks.iter().any(|block| block.raw_len > 65_536), "snappy works on pieces of 64 KiB");

    let mut remote = remote("main", url);
    remote.message = format;
    remote.queue.batch_send_deadline = Duration::from_secs(3600);
    remote.queue.max_samples_per_send = blocks.iter().map(|block| block.samples as usize).sum();
    let samples = remote.queue.max_samples_per_send as u64;
    let pipe = Pipe::to(vec![remote]);
    for block in blocks {
        pipe.push(block).await;
    }
    until(&pipe.monitors[0], |seen| seen.delivered_samples == samples).await;
    assert_eq!(pipe.metric("prometheus_remote_storage_sent_batch_duration_seconds_count"), 1.0, "one request");
    assert_eq!(pipe.end().await, [Undelivered::default()]);

    let stored = targets.into_iter().flatten().map(|(labels, values)| Stored {
        labels: labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        samples: [0, 1].map(|scrape| Point { at_ms: at[scrape], value: values[scrape] }).into(),
    });
    (sorted(stored.collect()), at[1])
}

#[tokio::test]
async fn prometheus_takes_joined_blocks_and_gives_back_every_bit() {
    given_back_by_prometheus(WriteFormat::V1).await;
}

#[tokio::test]
async fn prometheus_takes_joined_blocks_of_2_and_gives_back_every_bit() {
    given_back_by_prometheus(WriteFormat::V2).await;
}

async fn given_back_by_prometheus(format: WriteFormat) {
    let prometheus = Prometheus::start().await;
    let (sent, last_ms) = deliver(&prometheus.write_url(), format).await;

    // Its remote_read leaves the sign of 0 out, and nothing else.
    let unsigned = |value| if value == 0.0 { 0.0 } else { value };
    let stored = prometheus.raw(&[("__name__", "odd")], 0, last_ms).await;
    assert_same(&stored, &with_values(&sent, |value| Some(unsigned(value))));
    // Its query language shows that sign; it hides staleness markers and has one word for all other NaN.
    let seen = with_values(&sent, |value| (!is_stale(value)).then_some(if value.is_nan() { f64::NAN } else { value }));
    assert_same(&prometheus.instant("odd[1m]", last_ms).await, &seen);
}

#[tokio::test]
async fn victoria_metrics_takes_joined_blocks_and_gives_them_back() {
    let victoria = Victoria::start().await;
    let (sent, _) = deliver(&victoria.write_url(), WriteFormat::V1).await;

    // It has no -0, and of all NaN it keeps staleness markers only: one that is there had the right bits.
    let kept = |value: f64| match () {
        () if is_stale(value) => Some(f64::NAN),
        () if value.is_nan() => None,
        () if value == 0.0 => Some(0.0),
        () => Some(value),
    };
    assert_same(&victoria.raw("odd").await, &with_values(&sent, kept));
}

/// It answers 204 and has stored nothing.
#[tokio::test]
async fn victoria_metrics_is_found_out_not_to_know_2() {
    let victoria = Victoria::start().await;
    let pipe = Pipe::to(vec![RemoteWrite { message: WriteFormat::V2, ..remote("main", &victoria.write_url()) }]);
    let monitor = pipe.monitors[0].clone();
    pipe.push(block2_of(1, 1, 5)).await;
    let seen = until(&monitor, |seen| seen.rejected_samples + seen.delivered_samples > 0).await;
    assert_eq!((seen.rejected_samples, seen.delivered_samples), (5, 0));
    let refusal = seen.last_refusal.expect("there was one");
    assert!(refusal.words.contains("write protobuf_message: prometheus.WriteRequest"), "{}", refusal.words);
    assert_eq!(victoria.raw("probe").await, []);
    pipe.end().await;
}

/// What is left of `series` where a receiver has its own way with values.
fn with_values(series: &[Stored], kept: impl Fn(f64) -> Option<f64>) -> Vec<Stored> {
    let stored = series.iter().map(|one| {
        let points = one.samples.iter();
        let samples = points.filter_map(|point| Some(Point { value: kept(point.value)?, ..*point })).collect();
        Stored { labels: one.labels.clone(), samples }
    });
    stored.filter(|one| !one.samples.is_empty()).collect()
}

/// Names the first series that differs; all of them would be thousands of lines.
fn assert_same(stored: &[Stored], expected: &[Stored]) {
    for (stored, expected) in stored.iter().zip(expected) {
        assert_eq!(stored, expected);
    }
    assert_eq!(stored.len(), expected.len());
}
