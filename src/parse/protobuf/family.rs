//! One family as entries: help, unit, type, then metric by metric its series.

use std::borrow::Cow;

use prost::Message as _;

use super::error::{Problem, ProtobufError};
use super::fields::{Content, Field, Fields};
use super::message::{Histogram, Metric, Number, Summary, Timestamp};
use super::series::{Composed, Part, write_key};
use super::{MAX_METRIC_BYTES, MAX_SERIES_BYTES, NativeHistograms};
use crate::model::{self, MetricType, normalise_nan};
use crate::parse::error::Excerpt;
use crate::parse::series::Series;
use crate::parse::{Entry, Exemplar, HistogramEntry, MAX_LABELS, SampleEntry};

const NAME: u64 = 1;
const HELP: u64 = 2;
const TYPE: u64 = 3;
const METRIC: u64 = 4;
const UNIT: u64 = 5;

/// A metric family that is whole. Its metrics are decoded one at a time, when their turn comes.
#[derive(Debug)]
pub struct Family<'a> {
    name: &'a str,
    help: &'a str,
    unit: &'a str,
    kind: MetricType,
    /// Where the message stands in the body.
    byte: u64,
    /// What comes next of the head.
    head: Head,
    /// The fields behind the metric at hand.
    rest: Fields<'a>,
    metric: Metric,
    native: NativeHistograms,
    /// The native histogram of the metric at hand.
    histogram: Option<model::Histogram>,
    /// The exemplars of that.
    exemplars: Vec<model::Exemplar>,
    /// Whether it has not been told.
    histogram_due: bool,
    /// The series of the metric at hand that have not been told, last one first.
    untold: Vec<Untold>,
    /// The key of the series at hand.
    key: &'a mut Vec<u8>,
    /// What the names and labels of the body's series have come to, in bytes.
    series_bytes: &'a mut u64,
}

/// A series of a metric.
#[derive(Clone, Copy, Debug)]
struct Untold {
    part: Part,
    value: f64,
    example: Example,
}

/// Where the exemplar of a series stands in its metric, if it has one.
#[derive(Clone, Copy, Debug)]
enum Example {
    None,
    OfCounter,
    /// Of the bucket with this number.
    OfBucket(usize),
}

#[derive(Clone, Copy, Debug)]
enum Head {
    Help,
    Unit,
    Type,
    Told,
}

impl<'a> Family<'a> {
    /// Reads the head of a family that stands at `byte` of the body.
    pub(super) fn read(
        message: &'a [u8],
        byte: u64,
        native: NativeHistograms,
        key: &'a mut Vec<u8>,
        series_bytes: &'a mut u64,
    ) -> Result<Self, ProtobufError> {
        let (mut name, mut help, mut unit): (&[u8], &[u8], &[u8]) = (b"", b"", b"");
        let (mut number, mut metrics) = (0, false);
        let mut fields = Fields::of(message);
        let at = |(at, problem): (usize, Problem)| ProtobufError { byte: byte + at as u64, problem };
        while let Some(field) = fields.next().map_err(at)? {
            match (field.number, field.content) {
                (NAME, Content::Bytes(bytes)) => name = bytes,
                (HELP, Content::Bytes(bytes)) => help = bytes,
                (UNIT, Content::Bytes(bytes)) => unit = bytes,
                (TYPE, Content::Varint(value)) => number = value,
                (METRIC, Content::Bytes(bytes)) => {
                    let length = bytes.len();
                    if length > MAX_METRIC_BYTES {
                        return Err(at((field.at, Problem::MetricTooLong { length })));
                    }
                    metrics = true;
                }
                (number @ (NAME | HELP | TYPE | METRIC | UNIT), content) => {
                    let wire_type = match content {
                        Content::Varint(_) => 0,
                        Content::Bytes(_) => 2,
                        Content::Fixed(wire_type) => wire_type,
                    };
                    return Err(at((field.at, Problem::WireType { number, wire_type })));
                }
                _ => {}
            }
        }
        let wrong = |problem| ProtobufError { byte, problem };
        let text = |bytes: &'a [u8], what| std::str::from_utf8(bytes).map_err(|_| wrong(Problem::Utf8(what)));
        let mut family = Self {
            name: "",
            help: "",
            unit: "",
            kind: MetricType::Unknown,
            byte,
            head: Head::Told,
            rest: Fields::of(if metrics { message } else { b"" }),
            metric: Metric::default(),
            native,
            histogram: None,
            exemplars: Vec::new(),
            histogram_due: false,
            untold: Vec::new(),
            key,
            series_bytes,
        };
        // As in Prometheus, a family without metrics says nothing, be its name as it may.
        if metrics {
            family.name = text(name, "name")?;
            family.help = text(help, "help text")?;
            family.unit = text(unit, "unit")?;
            family.kind = kind_of(number).ok_or_else(|| wrong(Problem::Type { family: family.excerpt(), number }))?;
            family.head = Head::Help;
            family.check().map_err(wrong)?;
        }
        Ok(family)
    }

    /// The next entry; `None` at the end of the family.
    ///
    /// # Errors
    /// A metric that cannot be read; those before it have been told.
    pub fn next_entry(&mut self) -> Result<Option<Entry<'_>>, ProtobufError> {
        let family = Cow::Borrowed(self.name);
        match self.head {
            Head::Help => {
                self.head = if self.unit.is_empty() { Head::Type } else { Head::Unit };
                return Ok(Some(Entry::Help { family, text: Cow::Borrowed(self.help) }));
            }
            Head::Unit => {
                self.head = Head::Type;
                return Ok(Some(Entry::Unit { family, unit: self.unit }));
            }
            Head::Type => {
                self.head = Head::Told;
                return Ok(Some(Entry::Type { family, kind: self.kind }));
            }
            Head::Told => {}
        }
        while self.untold.is_empty() && !self.histogram_due {
            if !self.next_metric()? {
                return Ok(None);
            }
        }
        if std::mem::take(&mut self.histogram_due) {
            write_key(self.key, self.name, &self.metric.label, Part::Whole);
            let (timestamp_ms, start_ms) = (self.timestamp(), self.start(Part::Whole));
            let series = self.series_at_hand(Part::Whole);
            let exemplars = &*self.exemplars;
            let entry =
                |histogram| Entry::Histogram(HistogramEntry { series, histogram, timestamp_ms, start_ms, exemplars });
            return Ok(self.histogram.as_ref().map(entry));
        }
        let Some(Untold { part, value, example }) = self.untold.pop() else { return Ok(None) };
        write_key(self.key, self.name, &self.metric.label, part);
        Ok(Some(Entry::Sample(SampleEntry {
            series: self.series_at_hand(part),
            value: normalise_nan(value),
            timestamp_ms: self.timestamp(),
            start_ms: self.start(part),
            exemplar: self.exemplar(example),
        })))
    }

    /// Decodes the next metric; false if there is none.
    fn next_metric(&mut self) -> Result<bool, ProtobufError> {
        loop {
            // All fields have been walked over before.
            let Ok(Some(field)) = self.rest.next() else { return Ok(false) };
            if let Field { number: METRIC, content: Content::Bytes(bytes), at } = field {
                self.decode(bytes).map_err(|problem| ProtobufError { byte: self.byte + at as u64, problem })?;
                return Ok(true);
            }
        }
    }

    fn decode(&mut self, bytes: &[u8]) -> Result<(), Problem> {
        self.metric.clear();
        let decoded = self.metric.merge(bytes);
        decoded.map_err(|error| Problem::Metric { family: self.excerpt(), detail: error.to_string() })?;
        if self.metric.label.len() > MAX_LABELS {
            return Err(Problem::TooManyLabels { family: self.excerpt() });
        }
        if self.metric.label.iter().any(|label| label.name.is_empty()) {
            return Err(Problem::LabelName { family: self.excerpt() });
        }
        self.metric.label.sort_by(|one, other| one.name.cmp(&other.name));
        let metric = &self.metric;
        let single = |number: Option<Number>| Untold::plain(Part::Whole, number.unwrap_or_default().value);
        match self.kind {
            MetricType::Counter => {
                let value = metric.counter.as_ref().map_or(0.0, |counter| counter.value);
                self.untold.push(Untold { part: Part::Whole, value, example: Example::OfCounter });
            }
            MetricType::Gauge => self.untold.push(single(metric.gauge)),
            MetricType::Summary => summary(metric.summary.as_ref(), &mut self.untold),
            MetricType::Histogram | MetricType::GaugeHistogram => {
                let message = metric.histogram.as_ref().filter(|histogram| self.native.read && histogram.is_native());
                self.histogram = message.map(|message| message.native(self.kind == MetricType::GaugeHistogram));
                self.exemplars = message.map(Histogram::dated_exemplars).unwrap_or_default();
                self.histogram_due = self.histogram.is_some();
                let both = self.native.classic_too && message.is_some_and(|message| !message.bucket.is_empty());
                if message.is_none() || both {
                    histogram(metric.histogram.as_ref(), &mut self.untold);
                }
            }
            _ => self.untold.push(single(metric.untyped)),
        }
        self.untold.reverse();
        self.charge()
    }

    /// Counts what the series of the metric at hand come to, before any of them is told.
    fn charge(&mut self) -> Result<(), Problem> {
        let labels: usize = self.metric.label.iter().map(|pair| pair.name.len() + pair.value.len()).sum();
        let series = self.untold.len() + usize::from(self.histogram_due);
        *self.series_bytes += (self.name.len() + labels) as u64 * series as u64;
        match *self.series_bytes > MAX_SERIES_BYTES {
            true => Err(Problem::TooManySeriesBytes { family: self.excerpt() }),
            false => Ok(()),
        }
    }

    /// The series whose key has been written.
    fn series_at_hand(&self, part: Part) -> Series<'_> {
        Series::of_message(Composed {
            key: self.key,
            family: self.name,
            kind: self.kind,
            labels: &self.metric.label,
            part,
        })
    }

    fn exemplar(&self, example: Example) -> Option<Exemplar<'_>> {
        let metric = &self.metric;
        let message = match example {
            Example::None => None,
            Example::OfCounter => metric.counter.as_ref().and_then(|counter| counter.exemplar.as_ref()),
            Example::OfBucket(at) => {
                let bucket = metric.histogram.as_ref().and_then(|histogram| histogram.bucket.get(at));
                bucket.and_then(|bucket| bucket.exemplar.as_ref())
            }
        };
        message.and_then(|message| message.entry())
    }

    /// The format cannot tell the time 0 from none.
    fn timestamp(&self) -> Option<i64> {
        Some(self.metric.timestamp_ms).filter(|ms| *ms != 0)
    }

    /// Since when this part of the metric counts. A quantile and a gauge do not count.
    fn start(&self, part: Part) -> Option<i64> {
        let metric = &self.metric;
        let start = match (self.kind, part) {
            (_, Part::Quantile(_)) => None,
            (MetricType::Counter, _) => metric.counter.as_ref()?.start,
            (MetricType::Summary, _) => metric.summary.as_ref()?.start,
            (MetricType::Histogram, _) => metric.histogram.as_ref()?.start,
            _ => None,
        };
        start.map(Timestamp::milliseconds)
    }

    fn check(&self) -> Result<(), Problem> {
        if self.name.is_empty() {
            return Err(Problem::NoName);
        }
        let stem = match self.kind {
            MetricType::Counter => self.name.strip_suffix("_total").unwrap_or(self.name),
            _ => self.name,
        };
        let is_suffix = stem.strip_suffix(self.unit).is_some_and(|before| before.ends_with('_'));
        if !self.unit.is_empty() && !is_suffix {
            return Err(Problem::Unit { family: self.excerpt(), unit: Excerpt::whole(self.unit.as_bytes()) });
        }
        Ok(())
    }

    fn excerpt(&self) -> Excerpt {
        Excerpt::whole(self.name.as_bytes())
    }
}

fn kind_of(number: u64) -> Option<MetricType> {
    Some(match number {
        0 => MetricType::Counter,
        1 => MetricType::Gauge,
        2 => MetricType::Summary,
        3 => MetricType::Unknown,
        4 => MetricType::Histogram,
        5 => MetricType::GaugeHistogram,
        _ => return None,
    })
}

impl Untold {
    fn plain(part: Part, value: f64) -> Self {
        Self { part, value, example: Example::None }
    }
}

fn summary(summary: Option<&Summary>, untold: &mut Vec<Untold>) {
    let count = summary.map_or(0, |summary| summary.sample_count);
    untold.push(Untold::plain(Part::Count, count as f64));
    untold.push(Untold::plain(Part::Sum, summary.map_or(0.0, |summary| summary.sample_sum)));
    let quantiles = summary.map(|summary| summary.quantile.as_slice()).unwrap_or_default();
    untold.extend(quantiles.iter().map(|one| Untold::plain(Part::Quantile(one.quantile), one.value)));
}

/// The classic series of a histogram. What stands behind the bucket of `+Inf` is not told; where there is none it is made
/// of the count.
fn histogram(histogram: Option<&Histogram>, untold: &mut Vec<Untold>) {
    let empty = Histogram::default();
    let histogram = histogram.unwrap_or(&empty);
    let either = |float: f64, integer: u64| if float == 0.0 { integer as f64 } else { float };
    let count = either(histogram.sample_count_float, histogram.sample_count);
    untold.push(Untold::plain(Part::Count, count));
    untold.push(Untold::plain(Part::Sum, histogram.sample_sum));
    for (at, bucket) in histogram.bucket.iter().enumerate() {
        let count = either(bucket.cumulative_count_float, bucket.cumulative_count);
        untold.push(Untold { part: Part::Bucket(bucket.upper_bound), value: count, example: Example::OfBucket(at) });
        if bucket.upper_bound == f64::INFINITY {
            return;
        }
    }
    untold.push(Untold::plain(Part::Bucket(f64::INFINITY), count));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::protobuf::{FamilyParser, FamilyStep};

    fn field(number: u8, content: &[u8]) -> Vec<u8> {
        let mut length = Vec::new();
        prost::encoding::encode_varint(content.len() as u64, &mut length);
        [&[number << 3 | 2], &*length, content].concat()
    }

    /// A histogram with a label of this length and so many empty buckets.
    fn body(label: usize, buckets: usize) -> Vec<u8> {
        let label = [field(1, b"x"), field(2, &vec![b'v'; label])].concat();
        let metric = [field(1, &label), field(7, &field(3, b"").repeat(buckets))].concat();
        let family = [field(1, b"h"), vec![3 << 3, 4], field(4, &metric)].concat();
        let mut body = Vec::new();
        prost::encoding::encode_varint(family.len() as u64, &mut body);
        [body, family].concat()
    }

    #[test]
    fn a_small_body_is_not_the_work_of_a_huge_one() {
        let mut parser = FamilyParser::new(NativeHistograms::default());
        let told = |parser: &mut FamilyParser, body: &[u8]| -> Result<usize, ProtobufError> {
            let FamilyStep::Family(mut family, _) = parser.next(body, true)? else { panic!("a family") };
            let mut told = 0;
            while family.next_entry()?.is_some() {
                told += 1;
            }
            Ok(told)
        };
        // Help and type, count, sum, the buckets and that of +Inf.
        assert_eq!(told(&mut parser, &body(100_000, 1_000)), Ok(1_005));
        assert_eq!(told(&mut parser, &body(100_000, 1_000)), Ok(1_005));
        let error = told(&mut parser, &body(100_000, 1_000)).expect_err("too much for one body");
        assert!(error.to_string().contains("the names and labels of the series come to more than"), "{error}");
        let error = told(&mut FamilyParser::new(NativeHistograms::default()), &body(500_000, 200_000));
        assert!(matches!(error.expect_err("too much").problem, Problem::TooManySeriesBytes { .. }));
    }
}
