//! What one scrape yielded, kept for printing: as the target exposes it, or as it would be forwarded.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::sync::Arc;

use crate::config::ScrapeConfig;
use crate::label::{Fate, SampleRules};
use crate::model::{Failure, Labels, MetricType, Reason, Sample, clean_to};
use crate::parse::{Entry, Format, Parser, Series, Step, print};
use crate::relabel::Selector;
use crate::scrape::{Gather, MergeReader};

/// Samples and families of one exposition, in its order.
#[derive(Debug, Default)]
pub(super) struct Collector {
    pub(super) items: Vec<Item>,
    /// Series that would not be forwarded, where that was asked for.
    pub(super) dropped: Vec<Dropped>,
    pub(super) samples: usize,
    /// There is more that was not told.
    pub(super) cut: bool,
    forwarding: Option<Forwarding>,
    merge: MergeReader,
    families: BTreeSet<String>,
    current: Option<(String, MetricType)>,
}

/// By which rules what is exposed becomes what is forwarded.
#[derive(Clone, Debug)]
pub(super) struct Forwarding {
    /// The job that has them.
    pub(super) job: Arc<ScrapeConfig>,
    /// The labels of the target.
    pub(super) labels: Labels,
}

/// A series that would not be forwarded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Dropped {
    /// As the target exposes it.
    pub(super) series: Labels,
    /// The rule that drops it: foreign text.
    pub(super) why: String,
}

/// One line of the exposition.
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
    Histogram {
        labels: Labels,
        comment: String,
    },
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
                if let Some(labels) = self.labels_of(&sample.series)? {
                    self.items.push(Item::Sample { labels, value: sample.value, timestamp_ms: sample.timestamp_ms });
                }
            }
            Entry::Histogram(entry) => {
                if let Some(labels) = self.labels_of(&entry.series)? {
                    let mut comment = String::new();
                    print::histogram(&mut comment, &labels, entry.histogram);
                    self.items.push(Item::Histogram { labels, comment });
                }
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
    /// One that keeps what would be forwarded, and what would not.
    pub(super) fn forwarding(forwarding: Option<Forwarding>) -> Self {
        Self { forwarding, ..Self::default() }
    }

    /// Reads an exposition in the Prometheus format; the error is a sentence.
    pub(super) fn read(body: &str) -> Result<Self, String> {
        let (mut parser, mut collector, mut rest) = (Parser::new(Format::PrometheusText), Collector::default(), body);
        loop {
            match parser.next(rest.as_bytes(), true).map_err(|error| error.to_string())? {
                Step::Entry(entry, taken) => {
                    collector.take(&entry).map_err(|failure| failure.to_string())?;
                    rest = &rest[taken..];
                }
                Step::NeedMore | Step::End => return Ok(collector),
            }
        }
    }

    /// Keeps the series that one of the selectors matches, and of families only what is said of those.
    pub(super) fn select(&mut self, selectors: &[Selector]) {
        if selectors.is_empty() {
            return;
        }
        let wanted = |labels: &Labels| selectors.iter().any(|selector| selector.matches(labels));
        self.dropped.retain(|dropped| wanted(&dropped.series));
        self.items.retain(|item| item.labels().is_none_or(wanted));
        let kinds: BTreeMap<_, _> = self
            .items
            .iter()
            .filter_map(|item| match item {
                Item::Type { family, kind } => Some((family.clone(), *kind)),
                _ => None,
            })
            .collect();
        let left: BTreeSet<_> =
            self.items.iter().filter_map(|item| Some(item.labels()?.value("__name__").to_owned())).collect();
        self.items.retain(|item| match item {
            Item::Type { family, .. } | Item::Help { family, .. } => {
                let kind = kinds.get(family).copied().unwrap_or_default();
                // Names of a family begin with its own, so they stand together.
                let mut from = left.range(family.clone()..).take_while(|name| name.starts_with(family.as_str()));
                from.any(|name| belongs(name, family, kind))
            }
            _ => true,
        });
    }

    /// How many series are kept, histograms among them.
    pub(super) fn kept(&self) -> usize {
        self.items.iter().filter(|item| item.labels().is_some()).count()
    }

    /// Counts a series and its family; its labels, unless it would not be forwarded.
    fn labels_of(&mut self, series: &Series<'_>) -> Result<Option<Labels>, Failure> {
        self.samples += 1;
        let labels = series.labels().map_err(|error| Failure::new(Reason::InvalidSample, error.to_string()))?;
        if labels.get("__name__").is_none() {
            return Err(Failure::new(Reason::InvalidSample, format!("a sample without a name: {labels}")));
        }
        self.count_family(labels.value("__name__"));
        let Some(Forwarding { job, labels: target }) = &self.forwarding else { return Ok(Some(labels)) };
        match SampleRules::of(job, target).fate(labels.clone(), series.empty_labels())? {
            Fate::Stored(labels) => Ok(Some(labels)),
            Fate::Dropped(why) => {
                self.dropped.push(Dropped { series: labels, why });
                Ok(None)
            }
        }
    }

    /// How many metric families the exposition has, announced or not.
    pub(super) fn families(&self) -> usize {
        self.families.len()
    }

    /// What Istio's agent says that it left out of its answers, if anything.
    pub(super) fn left_out(&self) -> Option<String> {
        self.merge.counts()?.told()
    }

    /// The same as what a scrape that succeeded lacks.
    pub(super) fn lack(&self) -> Option<Failure> {
        Some(Failure::new(Reason::PartialMerge, self.left_out()?))
    }

    /// The same for somebody who has the scrape before, too: only what came since.
    pub(super) fn lack_since(&self, before: &Self) -> Option<Failure> {
        match (self.merge.counts(), before.merge.counts()) {
            (Some(now), Some(before)) => now.lacked_since(&before),
            _ => self.lack(),
        }
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
                Item::Histogram { comment, .. } => line.push_str(comment),
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
        for Dropped { series, why } in &self.dropped {
            line.clear();
            print::series(&mut line, series);
            // A rule in a file may have more than one line, and this is one comment.
            let why = clean_to(why, usize::MAX);
            let series = if escape { clean_to(&line, usize::MAX) } else { line.as_str().into() };
            writeln!(out, "# not forwarded: {series}, by {why}")?;
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

impl Item {
    /// The labels of a series.
    fn labels(&self) -> Option<&Labels> {
        match self {
            Item::Sample { labels, .. } | Item::Histogram { labels, .. } => Some(labels),
            Item::Type { .. } | Item::Help { .. } => None,
        }
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
