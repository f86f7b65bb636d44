//! More than is taken.

use std::fmt::Write as _;

use meshscrape::model::Reason;

use super::stage::{Row, Stage, gzipped, typed};
use crate::support::protobuf;
use crate::support::tls_server::{Reply, always};

const PROTOBUF: &str = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";

/// A native histogram of three buckets that no resolution makes fewer.
const HISTOGRAM: &[u8] =
    b"name: \"h\" type: HISTOGRAM metric { histogram { sample_count: 3 sample_sum: 18.5 schema: -4 \
                           positive_span { offset: -5 length: 3 } positive_delta: [1, 0, 0] } }\n";

pub(super) fn rows(stage: &mut Stage) -> Vec<Row> {
    let plain = || Reply::ok("beans{kind=\"arabica\"} 1\ncups 2\n");
    let mut row = |reason, key, wrong, right, asks| {
        let job = stage.application(reason, always(plain()));
        Row::rewritten(reason, job.clone().with(key, wrong), asks, job.with(key, right))
    };
    let mut rows = vec![
        row(Reason::BodyTooLarge, "body_size_limit", "10B", "1KB", "raise body_size_limit"),
        row(Reason::SampleLimit, "sample_limit", "1", "2", "raise sample_limit"),
        row(Reason::LabelLimit, "label_limit", "3", "30", "raise label_limit"),
    ];
    let histogram = typed(PROTOBUF, &protobuf::stream(HISTOGRAM));
    let histogram = stage.application(Reason::BucketLimit, always(histogram)).with("scrape_native_histograms", "true");
    rows.push(Row::rewritten(
        Reason::BucketLimit,
        histogram.clone().with("native_histogram_bucket_limit", "2"),
        "raise native_histogram_bucket_limit",
        histogram.with("native_histogram_bucket_limit", "3"),
    ));
    let endless = stage
        .application(Reason::TooManyNewSeries, always(endless()))
        // It is much to read.
        .with("scrape_interval", "15s")
        .with("scrape_timeout", "15s");
    rows.push(Row::rewritten(
        Reason::TooManyNewSeries,
        endless.clone(),
        "drop it by a labeldrop rule of metric_relabel_configs",
        endless.with("metric_relabel_configs", "[{action: labeldrop, regex: session}]"),
    ));
    let twice = stage.job(stage.well).and(stage.well).labelled("side", "other");
    rows.push(Row::rewritten(
        Reason::TargetLimit,
        twice.clone().with("target_limit", "1"),
        "raise target_limit",
        twice.with("target_limit", "2"),
    ));
    rows
}

/// Series with a label that has another value in each, and long ones.
fn endless() -> Reply {
    let padding = "x".repeat(250_000);
    let mut body = String::new();
    for number in 0..280 {
        let _ = writeln!(body, "endless{{session=\"{number}-{padding}\"}} 1");
    }
    gzipped(body.as_bytes())
}
