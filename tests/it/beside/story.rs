//! What a scraper made of a case, in comparable form: samples of each series, their times as what they are times of.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::recorder::{EXEMPLARS, Point, Series, Written};

const STALE: u64 = 0x7ff0_0000_0000_0002;

/// The samples of each series in the order in which they came.
pub(super) type Story = BTreeMap<Series, Vec<(When, Value)>>;

/// The stories of one case.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pair {
    pub(super) theirs: Story,
    pub(super) ours: Story,
}

/// What a time is the time of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum When {
    /// A scrape, from 1.
    Scrape(usize),
    /// The exporter wrote it so.
    Told(String),
    /// Nothing known, in milliseconds.
    At(i64),
}

#[derive(Clone, PartialEq, Eq)]
pub(super) enum Value {
    Bits(u64),
    /// Every field of it.
    Histogram(String),
    /// Its labels, and the bits of its value.
    Exemplar(Series, u64),
    Stale,
    /// How long something took, which is never the same.
    SomeTime,
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stale => f.write_str("stale"),
            Self::SomeTime => f.write_str("some time"),
            Self::Bits(bits) if f64::from_bits(*bits).is_nan() => write!(f, "NaN {bits:x}"),
            Self::Bits(bits) => write!(f, "{:?}", f64::from_bits(*bits)),
            Self::Exemplar(labels, bits) => write!(f, "exemplar {labels:?} {:?} {bits:x}", f64::from_bits(*bits)),
            Self::Histogram(histogram) => f.write_str(histogram),
        }
    }
}

/// The metric's name.
pub(super) fn name(series: &Series) -> &str {
    series.iter().find(|(name, _)| name == "__name__").map(|(_, value)| value.as_str()).unwrap_or_default()
}

/// The times of its scrapes.
pub(super) fn scraped_at(written: &Written) -> Vec<i64> {
    let times = written.iter().filter(|(series, _)| name(series) == "up").flat_map(|(_, samples)| samples);
    times
        .filter(|(_, point)| !matches!(point, Point::Bits(STALE)))
        .map(|(at, _)| *at)
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect()
}

/// What was written of the first `scrapes` scrapes. `told` are times that the exporter wrote into answers, with the number of
/// the answer; no other sample counts that is older than the run, for Prometheus sends no such thing.
pub(super) fn story(written: &Written, told: &[(i64, String, usize)], scrapes: usize, began_ms: i64) -> Story {
    let scraped = scraped_at(written);
    let mut story = Story::new();
    for (series, samples) in written {
        let of_exemplars = series.iter().any(|(name, _)| name == EXEMPLARS);
        let when = |at: &i64| match (told.iter().find(|(time, ..)| time == at), scraped.binary_search(at)) {
            (Some((_, words, answer)), _) => (*answer <= scrapes).then(|| When::Told(words.clone())),
            (None, Ok(scrape)) => (scrape < scrapes).then_some(When::Scrape(scrape + 1)),
            (None, Err(_)) => (*at >= began_ms || of_exemplars).then_some(When::At(*at)),
        };
        let value = |point: &Point| match point {
            Point::Bits(STALE) => Value::Stale,
            Point::Bits(_) if name(series) == "scrape_duration_seconds" => Value::SomeTime,
            Point::Bits(bits) => Value::Bits(*bits),
            Point::Histogram(histogram) => Value::Histogram(histogram.to_string()),
            Point::Exemplar(labels, bits) => Value::Exemplar(labels.clone(), *bits),
        };
        let samples: Vec<_> = samples.iter().filter_map(|(at, point)| Some((when(at)?, value(point)))).collect();
        if !samples.is_empty() {
            story.insert(series.clone(), samples);
        }
    }
    story
}

impl Pair {
    /// Series by series, what only one of the two wrote; `None` if they are the same.
    pub(super) fn difference(&self) -> Option<String> {
        let all: BTreeSet<_> = self.theirs.keys().chain(self.ours.keys()).collect();
        let differs = all.into_iter().filter(|series| self.theirs.get(*series) != self.ours.get(*series));
        let words = differs.map(|series| {
            let shown: Vec<_> = series.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
            let [theirs, ours] = [self.theirs.get(series), self.ours.get(series)];
            format!("  {{{}}}\n    Prometheus {theirs:?}\n    meshscrape {ours:?}\n", shown.join(", "))
        });
        let words: String = words.collect();
        (!words.is_empty()).then_some(words)
    }
}
