//! What a scraper wrote, as the protobuf definitions of remote write 1.0 have it, read by prost alone: none of the
//! product's own types decide what came.

use std::collections::BTreeMap;

use meshscrape::model::{self, CUSTOM_SCHEMA, Counts};
use prost::Message;

use crate::support::receiver::Recorded;

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

/// All that was taken, by the value of the label `case`.
pub(super) fn by_case(recorded: &[Recorded]) -> BTreeMap<String, Written> {
    let mut cases: BTreeMap<String, Written> = BTreeMap::new();
    for one in recorded.iter().filter(|one| one.was_taken()) {
        let bytes = snap::raw::Decoder::new().decompress_vec(&one.body).expect("snappy");
        for series in WriteRequest::decode(bytes.as_slice()).expect("a WriteRequest").timeseries {
            let labels: Series = series.labels.into_iter().map(|label| (label.name, label.value)).collect();
            assert!(labels.is_sorted_by(|a, b| a.0 < b.0), "labels are sorted and unique: {labels:?}");
            let case = labels.iter().find(|(name, _)| name == "case").unwrap_or_else(|| panic!("{labels:?}"));
            let series_of_case = cases.entry(case.1.clone()).or_default();
            // In which order exemplars come among samples says nothing.
            for exemplar in series.exemplars {
                let of_exemplars = labels.iter().cloned().chain([(EXEMPLARS.to_owned(), String::new())]).collect();
                let own = exemplar.labels.into_iter().map(|label| (label.name, label.value)).collect();
                let point = Point::Exemplar(own, exemplar.value.to_bits());
                series_of_case.entry(of_exemplars).or_default().push((exemplar.timestamp, point));
            }
            if series.samples.is_empty() && series.histograms.is_empty() {
                continue;
            }
            let written = series_of_case.entry(labels).or_default();
            written.extend(series.samples.iter().map(|sample| (sample.timestamp, Point::Bits(sample.value.to_bits()))));
            // Prometheus 3.5 sends those with listed bounds without their bounds; 3.14 does not send them, and counts them.
            let histograms = series.histograms.into_iter().filter(|histogram| histogram.schema != CUSTOM_SCHEMA);
            written.extend(histograms.map(|histogram| {
                let timestamp = histogram.timestamp;
                (timestamp, Point::Histogram(Box::new(Histogram { timestamp: 0, ..histogram })))
            }));
        }
    }
    cases
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
    for one in recorded.iter().filter(|one| one.was_taken()) {
        let bytes = snap::raw::Decoder::new().decompress_vec(&one.body).expect("snappy");
        let request = Request2::decode(bytes.as_slice()).expect("a Request");
        for series in request.timeseries.into_iter().filter(|series| !series.histograms.is_empty()) {
            let text = |at: u32| request.symbols[at as usize].clone();
            let labels = series.labels_refs.chunks(2).map(|pair| (text(pair[0]), text(pair[1]))).collect();
            found.entry(labels).or_insert(Histogram { timestamp: 0, ..series.histograms[0].clone() });
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
