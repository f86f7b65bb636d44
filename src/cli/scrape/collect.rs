//! What one scrape yielded, kept for printing.

use std::collections::BTreeSet;
use std::io::{self, BufWriter, IsTerminal, Write};

use crate::model::{Failure, Labels, MetricType, Reason, Sample, clean_to};
use crate::parse::{Entry, Format, Series, print};
use crate::scrape::{Gather, MergeReader};

/// Samples and families of one exposition, in its order.
#[derive(Debug, Default)]
pub(super) struct Collector {
    pub(super) items: Vec<Item>,
    pub(super) samples: usize,
    merge: MergeReader,
    families: BTreeSet<String>,
    current: Option<(String, MetricType)>,
}

/// One line of the exposition, as it would be forwarded.
#[derive(Debug)]
pub(super) enum Item {
    Type {
        family: String,
        kind: MetricType,
    },
    Help {
        family: String,
        text: String,
    },
    Sample {
        labels: Labels,
        value: f64,
        timestamp_ms: Option<i64>,
    },
    /// A native histogram, which no text format can hold, as a comment.
    Histogram(String),
}

impl Gather for Collector {
    fn take(&mut self, entry: &Entry<'_>) -> Result<(), Failure> {
        self.merge.take(entry);
        match entry {
            Entry::Type { family, kind } => {
                self.current = Some((family.to_string(), *kind));
                self.families.insert(family.to_string());
                self.items.push(Item::Type { family: family.to_string(), kind: *kind });
            }
            Entry::Help { family, text } => {
                self.families.insert(family.to_string());
                self.items.push(Item::Help { family: family.to_string(), text: text.to_string() });
            }
            Entry::Sample(sample) => {
                let labels = self.labels_of(&sample.series)?;
                self.items.push(Item::Sample { labels, value: sample.value, timestamp_ms: sample.timestamp_ms });
            }
            Entry::Histogram(entry) => {
                let labels = self.labels_of(&entry.series)?;
                let mut line = String::new();
                print::histogram(&mut line, &labels, entry.histogram);
                self.items.push(Item::Histogram(line));
            }
            _ => {}
        }
        Ok(())
    }

    /// Nobody else scrapes in this process, so there is nobody to share memory with.
    fn held_bytes(&self) -> u64 {
        0
    }
}

impl Collector {
    /// Counts a series and its family.
    fn labels_of(&mut self, series: &Series<'_>) -> Result<Labels, Failure> {
        self.samples += 1;
        let labels = series.labels().map_err(|error| Failure::new(Reason::InvalidSample, error.to_string()))?;
        if labels.get("__name__").is_none() {
            return Err(Failure::new(Reason::InvalidSample, format!("a sample without a name: {labels}")));
        }
        self.count_family(labels.value("__name__"));
        Ok(labels)
    }

    /// How many metric families the exposition has, announced or not.
    pub(super) fn families(&self) -> usize {
        self.families.len()
    }

    /// What Istio's agent says that it left out of its answers, if anything.
    pub(super) fn left_out(&self) -> Option<String> {
        self.merge.counts()?.told()
    }

    fn count_family(&mut self, metric: &str) {
        let announced = self.current.as_ref().is_some_and(|(family, kind)| belongs(metric, family, *kind));
        if !announced && !self.families.contains(metric) {
            self.families.insert(metric.to_owned());
        }
    }

    /// Prints the exposition; of a scrape that failed nothing would be forwarded, so nothing is printed.
    pub(super) fn print_prom(&self, good: bool) -> io::Result<()> {
        if !good {
            return Ok(());
        }
        let stdout = io::stdout();
        // On a terminal the target's text must not become commands; a file or a pipe gets it to the byte.
        let escape = stdout.is_terminal();
        let mut out = BufWriter::new(stdout.lock());
        let mut line = String::new();
        for item in &self.items {
            line.clear();
            match item {
                Item::Type { family, kind } => print::type_line(&mut line, Format::PrometheusText, family, *kind),
                Item::Help { family, text } => print::help_line(&mut line, Format::PrometheusText, family, text),
                Item::Histogram(comment) => line.push_str(comment),
                Item::Sample { labels, value, timestamp_ms } => {
                    print::sample(&mut line, Format::PrometheusText, labels, *value, *timestamp_ms)
                        .map_err(io::Error::other)?;
                }
            }
            if escape {
                writeln!(out, "{}", clean_to(line.trim_end_matches('\n'), usize::MAX))?;
            } else {
                out.write_all(line.as_bytes())?;
            }
        }
        out.flush()
    }

    /// All samples; those without an own time have none.
    pub(super) fn samples(&self) -> impl Iterator<Item = (&Labels, Sample, bool)> {
        self.items.iter().filter_map(|item| match item {
            Item::Sample { labels, value, timestamp_ms } => {
                let sample = Sample { value: *value, timestamp_ms: timestamp_ms.unwrap_or_default() };
                Some((labels, sample, timestamp_ms.is_some()))
            }
            _ => None,
        })
    }
}

/// Whether a sample's name is that of the announced family, with one of its type's suffixes or none.
fn belongs(metric: &str, family: &str, kind: MetricType) -> bool {
    let suffixes: &[&str] = match kind {
        MetricType::Counter => &["_total", "_created"],
        MetricType::Histogram => &["_bucket", "_sum", "_count", "_created"],
        MetricType::GaugeHistogram => &["_bucket", "_gsum", "_gcount"],
        MetricType::Summary => &["_sum", "_count", "_created"],
        MetricType::Info => &["_info"],
        _ => &[],
    };
    metric.strip_prefix(family).is_some_and(|rest| rest.is_empty() || suffixes.contains(&rest))
}
