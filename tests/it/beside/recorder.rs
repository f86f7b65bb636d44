//! What a scraper wrote, as the protobuf definitions of remote write 1.0 have it, read by prost alone: none of the
//! product's own types decide what came.

use std::collections::BTreeMap;

use prost::Message;

use crate::support::receiver::Recorded;

/// `prometheus.WriteRequest`
#[derive(Clone, PartialEq, Message)]
pub(super) struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    pub(super) timeseries: Vec<TimeSeries>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct TimeSeries {
    #[prost(message, repeated, tag = "1")]
    pub(super) labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    pub(super) samples: Vec<Sample>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Label {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) value: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Sample {
    #[prost(double, tag = "1")]
    pub(super) value: f64,
    #[prost(int64, tag = "2")]
    pub(super) timestamp: i64,
}

/// A label set, as pairs in the order in which they were sent.
pub(super) type Series = Vec<(String, String)>;

/// Samples of each series in the order in which they came: time and the bits of the value.
pub(super) type Written = BTreeMap<Series, Vec<(i64, u64)>>;

/// All that was taken, by the value of the label `case`.
pub(super) fn by_case(recorded: &[Recorded]) -> BTreeMap<String, Written> {
    let mut cases: BTreeMap<String, Written> = BTreeMap::new();
    for one in recorded.iter().filter(|one| one.was_taken()) {
        let bytes = snap::raw::Decoder::new().decompress_vec(&one.body).expect("snappy");
        for series in WriteRequest::decode(bytes.as_slice()).expect("a WriteRequest").timeseries {
            let labels: Series = series.labels.into_iter().map(|label| (label.name, label.value)).collect();
            assert!(labels.is_sorted_by(|a, b| a.0 < b.0), "labels are sorted and unique: {labels:?}");
            let case = labels.iter().find(|(name, _)| name == "case").unwrap_or_else(|| panic!("{labels:?}"));
            let written = cases.entry(case.1.clone()).or_default().entry(labels).or_default();
            written.extend(series.samples.iter().map(|sample| (sample.timestamp, sample.value.to_bits())));
        }
    }
    cases
}
