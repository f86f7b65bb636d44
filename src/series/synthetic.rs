//! The series that the scraper itself adds to every scrape: `up` and its companions.
//!
//! They are written after every attempt, whatever became of it, with the target's labels, unless the clock was set back
//! behind the attempt before; they pass neither metric relabelling nor limits, and a target cannot write them itself.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use super::Counts;
use crate::model::{Metadata, MetricType};

/// The names of the synthetic series, in the order in which they are written. The last three are written only with
/// `extra_scrape_metrics`.
pub(super) const NAMES: [&str; 8] = [
    "up",
    "scrape_duration_seconds",
    "scrape_samples_scraped",
    "scrape_samples_post_metric_relabeling",
    "scrape_series_added",
    "scrape_timeout_seconds",
    "scrape_sample_limit",
    "scrape_body_size_bytes",
];

/// What they are, in the order of [`NAMES`]: gauges, each with its help and unit.
pub(super) static METADATA: LazyLock<[Arc<Metadata>; 8]> = LazyLock::new(|| {
    let texts = [
        ("Whether the last scrape succeeded", "targets"),
        ("How long the last scrape took", "seconds"),
        ("Samples that the target exposed", "samples"),
        ("Samples left after metric relabeling", "samples"),
        ("Series that the scrape before did not have", "series"),
        ("The configured scrape timeout", "seconds"),
        ("The configured sample_limit, 0 for none", "samples"),
        ("Size of the answer, decompressed; -1 where it went over body_size_limit", "bytes"),
    ];
    std::array::from_fn(|at| {
        let (help, unit) = texts[at];
        Arc::new(Metadata { family: NAMES[at].into(), kind: MetricType::Gauge, help: help.into(), unit: unit.into() })
    })
});

/// How many of [`NAMES`] are always written.
pub(super) const STANDARD: usize = 5;

/// What the synthetic series tell of one attempt besides the counts of its pass.
#[derive(Clone, Copy, Debug)]
pub struct Health {
    /// From the start of the scrape to its end.
    pub duration: Duration,
    /// The configured timeout.
    pub timeout: Duration,
    /// The configured `sample_limit`, 0 for none.
    pub sample_limit: u64,
    /// The decompressed size of the body; -1 where `body_size_limit` was exceeded.
    pub body_bytes: i64,
}

/// The values in the order of [`NAMES`].
pub(super) fn values(up: bool, counts: &Counts, health: &Health) -> [f64; 8] {
    [
        f64::from(u8::from(up)),
        health.duration.as_secs_f64(),
        counts.scraped as f64,
        counts.kept as f64,
        counts.added as f64,
        health.timeout.as_secs_f64(),
        health.sample_limit as f64,
        health.body_bytes as f64,
    ]
}
