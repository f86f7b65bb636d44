//! Classic histograms as native ones with listed bounds.
//!
//! The series of a classic histogram follow each other: buckets, count and sum with the same labels. A [`Converter`]
//! stands behind a parser, gathers them, and gives one native histogram, named as the family is, in their place; whatever
//! is not such a series ends what was gathered and passes. As in Prometheus, series that make no histogram, because their
//! counts contradict each other, give nothing; and what was exposed as a native histogram is not made one again. What one
//! histogram may cost is bounded: of more than [`MAX_BOUNDS`] nothing is made either.

use std::cmp::Ordering;
use std::collections::{BTreeMap, btree_map};
use std::mem;

use super::{Entry, Exposition, Format, HistogramEntry, SampleEntry, Series, number};
use crate::model::{Buckets, CUSTOM_SCHEMA, Counts, Exemplar, Histogram, Labels, MetricType, Span, Tally};

/// The most bounds of a histogram that is converted: they are kept in order while lines come in any order.
const MAX_BOUNDS: usize = 10_000;

/// Parts of a key, no part of a text in UTF-8.
const SEPARATOR: u8 = 0xff;

/// Stands between a parser and who takes its entries.
#[derive(Debug, Default)]
pub struct Converter {
    /// Whether the classic series pass, too.
    classic_too: bool,
    open_metrics: bool,
    /// Whether times of creation are told no more.
    created_end: bool,
    /// The family and the type that were announced last.
    family: String,
    kind: MetricType,
    gathered: Option<Gathered>,
    /// Name and labels of the native histogram that came last.
    native: Option<Labels>,
    key: Vec<u8>,
}

/// The series of one histogram so far.
#[derive(Debug)]
struct Gathered {
    /// Named as the family is, without `le`.
    labels: Labels,
    timestamp_ms: Option<i64>,
    start_ms: Option<i64>,
    /// Those with a time of their own.
    exemplars: Vec<Exemplar>,
    classic: Classic,
}

/// What a series of a classic histogram says.
#[derive(Clone, Copy, Debug)]
enum Part {
    Bucket(f64),
    Count,
    Sum,
}

impl Converter {
    /// A converter at the beginning of a body.
    pub fn new(exposition: Exposition, classic_too: bool) -> Self {
        let open_metrics = exposition == Exposition::Text(Format::OpenMetrics);
        Self { classic_too, open_metrics, ..Self::default() }
    }

    /// Takes an entry and hands on what comes of it.
    pub fn take<E>(&mut self, entry: &Entry<'_>, each: &mut dyn FnMut(&Entry<'_>) -> Result<(), E>) -> Result<(), E> {
        match entry {
            Entry::Sample(sample) if self.created_end && self.is_created(sample) => return Ok(()),
            Entry::Sample(sample) if self.kind == MetricType::Histogram => {
                // A label given twice is for others to judge.
                if let Ok(mut labels) = sample.labels()
                    && let Some(part) = self.part_of(&mut labels)
                {
                    return self.gather(sample, labels, part, each);
                }
            }
            Entry::Histogram(histogram) => self.native = histogram.series.labels().ok(),
            Entry::Type { family, kind } => {
                self.family.clear();
                self.family.push_str(family);
                self.kind = *kind;
            }
            _ => {}
        }
        self.end(each)?;
        each(entry)
    }

    /// Hands on what was gathered: the body, or the histogram, is over.
    pub fn end<E>(&mut self, each: &mut dyn FnMut(&Entry<'_>) -> Result<(), E>) -> Result<(), E> {
        let Some(mut gathered) = self.gathered.take() else { return Ok(()) };
        let Some(histogram) = mem::take(&mut gathered.classic).convert() else { return Ok(()) };
        self.key.clear();
        for (name, value) in gathered.labels.iter() {
            self.key.push(SEPARATOR);
            self.key.extend_from_slice(name.as_bytes());
            self.key.push(SEPARATOR);
            self.key.extend_from_slice(value.as_bytes());
        }
        let series = Series::of_labels(&self.key, &gathered.labels);
        let Gathered { timestamp_ms, start_ms, exemplars, .. } = &gathered;
        let (timestamp_ms, start_ms) = (*timestamp_ms, *start_ms);
        each(&Entry::Histogram(HistogramEntry { series, histogram: &histogram, timestamp_ms, start_ms, exemplars }))
    }

    fn gather<E>(
        &mut self,
        sample: &SampleEntry<'_>,
        labels: Labels,
        part: Part,
        each: &mut dyn FnMut(&Entry<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.native.as_ref() == Some(&labels) {
            self.end(each)?;
            return each(&Entry::Sample(*sample));
        }
        if self.gathered.as_ref().is_some_and(|gathered| gathered.labels != labels) {
            self.end(each)?;
        }
        self.created_end = self.open_metrics;
        let classic = Classic::default();
        let new = Gathered { labels, timestamp_ms: None, start_ms: None, exemplars: Vec::new(), classic };
        let gathered = self.gathered.get_or_insert(new);
        gathered.timestamp_ms = sample.timestamp_ms;
        gathered.start_ms = sample.start_ms;
        gathered.classic.take(part, sample.value);
        let dated = sample.exemplar.filter(|exemplar| exemplar.timestamp_ms.is_some());
        if gathered.exemplars.len() < MAX_BOUNDS {
            gathered.exemplars.extend(dated.and_then(|exemplar| exemplar.to_model()));
        }
        // As in Prometheus, the exemplars are the histogram's.
        if self.classic_too { each(&Entry::Sample(SampleEntry { exemplar: None, ..*sample })) } else { Ok(()) }
    }

    /// Whether it is the time of creation of something. As in Prometheus, such lines of OpenMetrics are no series any more
    /// behind the first classic histogram.
    fn is_created(&self, sample: &SampleEntry<'_>) -> bool {
        let has_one = matches!(self.kind, MetricType::Counter | MetricType::Histogram | MetricType::Summary);
        has_one && sample.labels().is_ok_and(|labels| labels.value("__name__").ends_with("_created"))
    }

    /// What the series with these labels says, if it belongs to the announced histogram; then `labels` become those of the
    /// histogram.
    fn part_of(&self, labels: &mut Labels) -> Option<Part> {
        let part = match labels.get("__name__")?.strip_prefix(self.family.as_str())? {
            "_bucket" => Part::Bucket(bound_of(labels.get("le")?)?),
            "_count" => Part::Count,
            "_sum" => Part::Sum,
            _ => return None,
        };
        labels.remove("le");
        labels.set("__name__", &self.family);
        Some(part)
    }
}

/// A bound that can be one: as for values, what is too large for a number is none, and no infinity.
fn bound_of(text: &str) -> Option<f64> {
    number::parse_value(text.as_bytes()).ok().filter(|bound| !bound.is_nan())
}

/// A bound that is in order with others; it is no NaN.
#[derive(Clone, Copy, Debug)]
struct Bound(f64);

impl Ord for Bound {
    fn cmp(&self, other: &Self) -> Ordering {
        // Unlike `total_cmp`, which would tell the two zeros apart.
        self.0.partial_cmp(&other.0).unwrap_or(Ordering::Equal)
    }
}

impl PartialOrd for Bound {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Bound {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Bound {}

/// The numbers of a classic histogram.
#[derive(Debug, Default)]
struct Classic {
    /// The count up to each bound.
    buckets: BTreeMap<Bound, f64>,
    count: Option<f64>,
    sum: f64,
    /// Two numbers contradict each other, or there are too many.
    wrong: bool,
}

impl Classic {
    fn take(&mut self, part: Part, value: f64) {
        match part {
            Part::Sum => self.sum = value,
            _ if value < 0.0 => self.wrong = true,
            Part::Count => self.count = Some(value),
            Part::Bucket(bound) => self.take_bucket(bound, value),
        }
    }

    fn take_bucket(&mut self, bound: f64, count: f64) {
        let full = self.buckets.len() == MAX_BOUNDS;
        match self.buckets.entry(Bound(bound)) {
            // The first of two buckets with one bound counts.
            btree_map::Entry::Occupied(_) => {}
            btree_map::Entry::Vacant(_) if full => self.wrong = true,
            btree_map::Entry::Vacant(free) => {
                free.insert(count);
            }
        }
    }

    /// The native histogram, empty buckets included.
    fn convert(mut self) -> Option<Histogram> {
        let last = self.buckets.last_key_value().map(|(_, count)| *count);
        // As in Prometheus 3.14, a sum alone is no histogram; 3.5 makes one of nothing.
        let count = self.count.or(last)?;
        let first = self.buckets.first_key_value().map(|(bound, _)| bound.0);
        if self.wrong || first == Some(f64::NEG_INFINITY) {
            return None;
        }
        let all = *self.buckets.entry(Bound(f64::INFINITY)).or_insert(count);
        // What is no number contradicts nobody.
        let falls = self.buckets.values().zip(self.buckets.values().skip(1)).any(|(one, next)| next < one);
        if all != count || falls {
            return None;
        }
        // From 2^63 on a count has no integer; the conversion would give the largest one.
        let is_whole = |count: f64| count < 2f64.powi(63) && count == (count.round() as i64) as f64;
        let whole = is_whole(count) && self.buckets.values().all(|count| is_whole(*count));
        let spans = vec![Span { offset: 0, length: u32::try_from(self.buckets.len()).ok()? }];
        let cumulative = self.buckets.values().copied();
        let counts = if whole {
            let (mut before, mut in_bucket) = (0, 0);
            let deltas = cumulative.map(|count| {
                let own = count as i64 - mem::replace(&mut before, count as i64);
                own - mem::replace(&mut in_bucket, own)
            });
            let positive = Buckets { spans, counts: deltas.collect() };
            Counts::Integer(Tally { count: count as u64, positive, ..Tally::default() })
        } else {
            let mut before = 0.0;
            let counts = cumulative.map(|count| count - mem::replace(&mut before, count));
            let positive = Buckets { spans, counts: counts.collect() };
            Counts::Float(Tally { count, positive, ..Tally::default() })
        };
        Some(Histogram {
            schema: CUSTOM_SCHEMA,
            zero_threshold: 0.0,
            sum: self.sum,
            gauge: false,
            counts,
            custom_values: self.buckets.keys().map(|bound| bound.0).filter(|bound| *bound != f64::INFINITY).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::{Parser, Step};

    /// What comes of a body: series with their values, histograms with count, sum, bounds and time.
    fn converted(format: Format, classic_too: bool, body: &str) -> Vec<String> {
        let mut converter = Converter::new(Exposition::Text(format), classic_too);
        let mut told = Vec::new();
        let mut each = |entry: &Entry<'_>| -> Result<(), ()> {
            match entry {
                Entry::Sample(sample) => told.push(format!("{} {}", sample.labels().expect("unique"), sample.value)),
                Entry::Histogram(HistogramEntry { series, histogram, timestamp_ms, .. }) => {
                    let labels = series.labels().expect("unique");
                    let count = match &histogram.counts {
                        Counts::Integer(tally) => tally.count.to_string(),
                        Counts::Float(tally) => format!("{:?}", tally.count),
                    };
                    let (sum, bounds) = (histogram.sum, &histogram.custom_values);
                    told.push(format!("{labels} {count} of {sum} by {bounds:?} at {timestamp_ms:?}"));
                }
                _ => {}
            }
            Ok(())
        };
        let (mut parser, mut rest) = (Parser::new(format), body.as_bytes());
        while let Step::Entry(entry, taken) = parser.next(rest, true).expect("a good body") {
            converter.take(&entry, &mut each).expect("nobody refuses");
            rest = &rest[taken..];
        }
        converter.end(&mut each).expect("nobody refuses");
        told
    }

    const BODY: &str = "# TYPE h histogram
h_bucket{le=\"1\"} 1 5
h_bucket{le=\"+Inf\"} 2 6
h_sum 3.5 7
h_count 2 8
h_count{x=\"1\"} 0.5
# TYPE g gauge
g 1
";

    #[test]
    fn series_of_one_histogram_become_one() {
        assert_eq!(
            converted(Format::PrometheusText, false, BODY),
            [
                r#"{__name__="h"} 2 of 3.5 by [1.0] at Some(8)"#,
                r#"{__name__="h", x="1"} 0.5 of 0 by [] at None"#,
                r#"{__name__="g"} 1"#,
            ]
        );
    }

    #[test]
    fn the_classic_series_can_be_kept() {
        let told = converted(Format::PrometheusText, true, BODY);
        assert_eq!(told.len(), 8);
        assert_eq!(told[3..5], [r#"{__name__="h_count"} 2"#, r#"{__name__="h"} 2 of 3.5 by [1.0] at Some(8)"#]);
    }

    #[test]
    fn what_contradicts_itself_gives_nothing() {
        for lines in [
            "h_bucket{le=\"1\"} 3\nh_bucket{le=\"2\"} 2\n",
            "h_bucket{le=\"2\"} 2\nh_bucket{le=\"1\"} 3\n",
            "h_bucket{le=\"+Inf\"} 2\nh_count 3\n",
            "h_bucket{le=\"1\"} -1\n",
            "h_count -1\n",
            "h_sum 1\n",
            "h_bucket{le=\"-Inf\"} 1\n",
        ] {
            let body = format!("# TYPE h histogram\n{lines}");
            assert_eq!(converted(Format::PrometheusText, false, &body), [""; 0], "{lines}");
        }
    }

    #[test]
    fn bounds_are_bounded() {
        let lines = |count: usize| -> String {
            (0..count).rev().map(|bound| format!("h_bucket{{le=\"{bound}\"}} {bound}\n")).collect()
        };
        let body = |count| format!("# TYPE h histogram\n{}", lines(count));
        assert_eq!(converted(Format::PrometheusText, false, &body(MAX_BOUNDS)).len(), 1);
        assert_eq!(converted(Format::PrometheusText, false, &body(MAX_BOUNDS + 1)), [""; 0]);
    }

    #[test]
    fn what_is_no_part_of_the_histogram_passes() {
        let body = "# TYPE h histogram\nh 1\nh_bucket 2\nh_bucket{le=\"x\"} 3\nother_count 4\n";
        assert_eq!(converted(Format::PrometheusText, false, body).len(), 4);
    }

    #[test]
    fn times_of_creation_end_with_the_first_histogram_of_openmetrics() {
        let body = "# TYPE h histogram\nh_created 1\nh_count 2\nh_created 3\n";
        assert_eq!(converted(Format::PrometheusText, false, body).len(), 3);
        assert_eq!(
            converted(Format::OpenMetrics, false, &format!("{body}# EOF\n")),
            [r#"{__name__="h_created"} 1"#, r#"{__name__="h"} 2 of 0 by [] at None"#]
        );
    }
}
