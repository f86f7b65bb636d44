//! What a scraper wrote, as the protobuf definitions of remote write have it, read by prost alone: none of the
//! product's own types decide what came.

use std::collections::{BTreeMap, BTreeSet};

use meshscrape::model::{self, CUSTOM_SCHEMA, Counts};
use prost::Message;

use crate::support::receiver::{OF_2, Recorded};

/// `prometheus.WriteRequest`
#[derive(Clone, PartialEq, Message)]
struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    timeseries: Vec<TimeSeries>,
    #[prost(message, repeated, tag = "3")]
    metadata: Vec<MetricMetadata>,
}

/// What a metric family is said to be; `kind` is a `MetricMetadata.MetricType`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Message)]
pub(super) struct MetricMetadata {
    #[prost(int32, tag = "1")]
    pub(super) kind: i32,
    #[prost(string, tag = "2")]
    pub(super) family: String,
    #[prost(string, tag = "4")]
    pub(super) help: String,
    #[prost(string, tag = "5")]
    pub(super) unit: String,
}

#[derive(Clone, PartialEq, Message)]
struct TimeSeries {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
    #[prost(message, repeated, tag = "3")]
    exemplars: Vec<Exemplar>,
    #[prost(message, repeated, tag = "4")]
    histograms: Vec<Histogram>,
}

#[derive(Clone, PartialEq, Message)]
struct Label {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct Sample {
    #[prost(double, tag = "1")]
    value: f64,
    #[prost(int64, tag = "2")]
    timestamp: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Exemplar {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(double, tag = "2")]
    value: f64,
    #[prost(int64, tag = "3")]
    timestamp: i64,
}

/// A native histogram in either version of remote write, its time apart.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Histogram {
    #[prost(uint64, optional, tag = "1")]
    count_int: Option<u64>,
    #[prost(double, optional, tag = "2")]
    count_float: Option<f64>,
    #[prost(double, tag = "3")]
    sum: f64,
    #[prost(sint32, tag = "4")]
    schema: i32,
    #[prost(double, tag = "5")]
    zero_threshold: f64,
    #[prost(uint64, optional, tag = "6")]
    zero_count_int: Option<u64>,
    #[prost(double, optional, tag = "7")]
    zero_count_float: Option<f64>,
    #[prost(message, repeated, tag = "8")]
    negative_spans: Vec<Span>,
    #[prost(sint64, repeated, tag = "9")]
    negative_deltas: Vec<i64>,
    #[prost(double, repeated, tag = "10")]
    negative_counts: Vec<f64>,
    #[prost(message, repeated, tag = "11")]
    positive_spans: Vec<Span>,
    #[prost(sint64, repeated, tag = "12")]
    positive_deltas: Vec<i64>,
    #[prost(double, repeated, tag = "13")]
    positive_counts: Vec<f64>,
    #[prost(int32, tag = "14")]
    reset_hint: i32,
    #[prost(int64, tag = "15")]
    timestamp: i64,
    /// In version 2.0 only.
    #[prost(double, repeated, tag = "16")]
    custom_values: Vec<f64>,
}

/// `io.prometheus.write.v2.Request`
#[derive(Clone, PartialEq, Message)]
struct Request2 {
    #[prost(string, repeated, tag = "4")]
    symbols: Vec<String>,
    #[prost(message, repeated, tag = "5")]
    timeseries: Vec<TimeSeries2>,
}

#[derive(Clone, PartialEq, Message)]
struct TimeSeries2 {
    #[prost(uint32, repeated, tag = "1")]
    labels_refs: Vec<u32>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
    #[prost(message, repeated, tag = "3")]
    histograms: Vec<Histogram>,
    #[prost(message, repeated, tag = "4")]
    exemplars: Vec<Exemplar2>,
    #[prost(message, optional, tag = "5")]
    metadata: Option<Metadata2>,
}

#[derive(Clone, PartialEq, Message)]
struct Exemplar2 {
    #[prost(uint32, repeated, tag = "1")]
    labels_refs: Vec<u32>,
    #[prost(double, tag = "2")]
    value: f64,
    #[prost(int64, tag = "3")]
    timestamp: i64,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
struct Metadata2 {
    #[prost(int32, tag = "1")]
    kind: i32,
    #[prost(uint32, tag = "3")]
    help_ref: u32,
    #[prost(uint32, tag = "4")]
    unit_ref: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
struct Span {
    #[prost(sint32, tag = "1")]
    offset: i32,
    #[prost(uint32, tag = "2")]
    length: u32,
}

/// What marks the exemplars of a series, which stand apart from its samples.
pub(super) const EXEMPLARS: &str = " exemplars ";

/// A label set, as pairs in the order in which they were sent.
pub(super) type Series = Vec<(String, String)>;

/// What a series had at a time.
#[derive(Clone, Debug)]
pub(super) enum Point {
    /// The bits of a sample.
    Bits(u64),
    /// Without its time.
    Histogram(Box<Histogram>),
    /// The labels of an exemplar, and the bits of its value.
    Exemplar(Series, u64),
}

/// Every field, numbers to the bit of a NaN.
impl std::fmt::Display for Histogram {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "histogram of sum {:x} {self:?}", self.sum.to_bits())
    }
}

/// Values of each series in the order in which they came, with their times.
pub(super) type Written = BTreeMap<Series, Vec<(i64, Point)>>;

/// An entry of a request of either version.
struct Entry {
    labels: Series,
    samples: Vec<Sample>,
    histograms: Vec<Histogram>,
    exemplars: Vec<(Series, Exemplar)>,
    /// Type, help and unit; of 2.0 only.
    description: Option<Description>,
}

/// Type, help and unit.
pub(super) type Description = (i32, String, String);

/// The entries of a request, which must keep the rules of its version.
fn entries(one: &Recorded) -> Vec<Entry> {
    let bytes = snap::raw::Decoder::new().decompress_vec(&one.body).expect("snappy");
    let entries: Vec<Entry> = if one.header("content-type") == Some(OF_2) {
        let request = Request2::decode(bytes.as_slice()).expect("a Request");
        let unique: BTreeSet<_> = request.symbols.iter().collect();
        assert_eq!(unique.len(), request.symbols.len(), "no symbol stands there twice");
        assert_eq!(request.symbols.first().map(String::as_str), Some(""), "the first symbol is empty");
        request.timeseries.iter().map(|series| series.entry(&request.symbols)).collect()
    } else {
        let request = WriteRequest::decode(bytes.as_slice()).expect("a WriteRequest");
        request.timeseries.into_iter().map(TimeSeries::entry).collect()
    };
    for Entry { labels, .. } in &entries {
        assert!(labels.is_sorted_by(|a, b| a.0 < b.0), "labels are sorted and unique: {labels:?}");
    }
    entries
}

impl TimeSeries {
    fn entry(self) -> Entry {
        let pairs = |labels: Vec<Label>| labels.into_iter().map(|label| (label.name, label.value)).collect();
        let exemplars = self.exemplars.into_iter().map(|mut exemplar| {
            let labels = std::mem::take(&mut exemplar.labels);
            (pairs(labels), exemplar)
        });
        Entry {
            exemplars: exemplars.collect(),
            labels: pairs(self.labels),
            samples: self.samples,
            // Prometheus 3.5 sends those with listed bounds without their bounds; 3.14 does not send them, and counts them.
            histograms: self.histograms.into_iter().filter(|histogram| histogram.schema != CUSTOM_SCHEMA).collect(),
            description: None,
        }
    }
}

impl TimeSeries2 {
    fn entry(&self, symbols: &[String]) -> Entry {
        let text = |at: u32| symbols[at as usize].clone();
        let pairs = |refs: &[u32]| refs.chunks(2).map(|pair| (text(pair[0]), text(pair[1]))).collect();
        let count = self.samples.len() + self.histograms.len() + self.exemplars.len();
        assert_eq!(count, 1, "an entry holds one sample, histogram or exemplar: {self:?}");
        let exemplar = |one: &Exemplar2| {
            let (value, timestamp) = (one.value, one.timestamp);
            (pairs(&one.labels_refs), Exemplar { labels: Vec::new(), value, timestamp })
        };
        let describe = |one: Metadata2| (one.kind, text(one.help_ref), text(one.unit_ref));
        Entry {
            labels: pairs(&self.labels_refs),
            samples: self.samples.clone(),
            histograms: self.histograms.clone(),
            exemplars: self.exemplars.iter().map(exemplar).collect(),
            description: self.metadata.map(describe).filter(|description| *description != Description::default()),
        }
    }
}

fn case_of(labels: &Series) -> &str {
    let case = labels.iter().find(|(name, _)| name == "case");
    case.map(|(_, value)| value.as_str()).unwrap_or_else(|| panic!("{labels:?}"))
}

/// All that was taken, by the value of the label `case`.
pub(super) fn by_case(recorded: &[Recorded]) -> BTreeMap<String, Written> {
    let mut cases: BTreeMap<String, Written> = BTreeMap::new();
    for entry in recorded.iter().filter(|one| one.was_taken()).flat_map(entries) {
        let Entry { labels, samples, histograms, exemplars, .. } = entry;
        let series_of_case = cases.entry(case_of(&labels).to_owned()).or_default();
        // In which order exemplars come among samples says nothing.
        for (own, exemplar) in exemplars {
            let of_exemplars = labels.iter().cloned().chain([(EXEMPLARS.to_owned(), String::new())]).collect();
            let point = Point::Exemplar(own, exemplar.value.to_bits());
            series_of_case.entry(of_exemplars).or_default().push((exemplar.timestamp, point));
        }
        if samples.is_empty() && histograms.is_empty() {
            continue;
        }
        let written = series_of_case.entry(labels).or_default();
        written.extend(samples.iter().map(|sample| (sample.timestamp, Point::Bits(sample.value.to_bits()))));
        written.extend(histograms.into_iter().map(|histogram| {
            let timestamp = histogram.timestamp;
            (timestamp, Point::Histogram(Box::new(Histogram { timestamp: 0, ..histogram })))
        }));
    }
    cases
}

/// What is said of each series; `None` if nothing is.
pub(super) type Descriptions = BTreeMap<Series, Option<Description>>;

/// How each series was described last, by requests of 2.0.
pub(super) fn descriptions(recorded: &[Recorded]) -> Descriptions {
    let mut found = Descriptions::new();
    for entry in recorded.iter().filter(|one| one.was_taken()).flat_map(entries) {
        let known = found.entry(entry.labels).or_default();
        if entry.description.is_some() {
            *known = entry.description;
        }
    }
    found
}

/// What was said of metric families: the requests that were taken, each with what it holds.
pub(super) fn metadata(recorded: &[Recorded]) -> Vec<Vec<MetricMetadata>> {
    let taken = recorded.iter().filter(|one| one.was_taken());
    let requests = taken.map(|one| {
        let bytes = snap::raw::Decoder::new().decompress_vec(&one.body).expect("snappy");
        let WriteRequest { timeseries, metadata } = WriteRequest::decode(bytes.as_slice()).expect("a WriteRequest");
        assert!(timeseries.is_empty() || metadata.is_empty(), "metadata comes in requests of its own");
        metadata
    });
    requests.filter(|metadata| !metadata.is_empty()).collect()
}

/// The first histogram of each series, with the names and values of its labels, in requests of version 2.0.
pub(super) fn histograms2(recorded: &[Recorded]) -> BTreeMap<Series, Histogram> {
    let mut found = BTreeMap::new();
    for entry in recorded.iter().filter(|one| one.was_taken()).flat_map(entries) {
        for histogram in entry.histograms {
            found.entry(entry.labels.clone()).or_insert(Histogram { timestamp: 0, ..histogram });
        }
    }
    found
}

/// Ours in the same form.
impl From<&model::Histogram> for Histogram {
    fn from(ours: &model::Histogram) -> Self {
        let spans = |spans: &[model::Span]| -> Vec<Span> {
            spans.iter().map(|span| Span { offset: span.offset, length: span.length }).collect()
        };
        let head = Self {
            sum: ours.sum,
            schema: ours.schema,
            zero_threshold: ours.zero_threshold,
            custom_values: ours.custom_values.clone(),
            ..Self::default()
        };
        match &ours.counts {
            Counts::Integer(tally) => Self {
                count_int: Some(tally.count),
                zero_count_int: Some(tally.zero_count),
                positive_spans: spans(&tally.positive.spans),
                positive_deltas: tally.positive.counts.clone(),
                ..head
            },
            Counts::Float(tally) => Self {
                count_float: Some(tally.count),
                zero_count_float: Some(tally.zero_count),
                positive_spans: spans(&tally.positive.spans),
                positive_counts: tally.positive.counts.clone(),
                ..head
            },
        }
    }
}
