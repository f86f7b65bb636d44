//! The messages of remote write 2.0 as far as we send them, for a protobuf library.
//!
//! Written from the field tables of the specification.

use crate::wire::proto::{BucketSpan, Count, Label, ZeroCount};
use crate::wire::{WireError, proto};

/// `io.prometheus.write.v2.Request`: the body of a request.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Request {
    /// The texts that everything else refers to by their places; the first is empty.
    #[prost(string, repeated, tag = "4")]
    pub symbols: Vec<String>,
    /// Series with what they have.
    #[prost(message, repeated, tag = "5")]
    pub timeseries: Vec<TimeSeries>,
}

/// `io.prometheus.write.v2.TimeSeries`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TimeSeries {
    /// Its labels, sorted by name, the metric's name among them as `__name__`: each as the places of name and value.
    #[prost(uint32, repeated, tag = "1")]
    pub labels_refs: Vec<u32>,
    /// Its samples, oldest first.
    #[prost(message, repeated, tag = "2")]
    pub samples: Vec<Sample>,
    /// Its native histograms, oldest first; a series has these or samples.
    #[prost(message, repeated, tag = "3")]
    pub histograms: Vec<Histogram>,
    /// Examples of what it counts; in an entry of their own behind that of their sample.
    #[prost(message, repeated, tag = "4")]
    pub exemplars: Vec<Exemplar>,
    /// What it is.
    #[prost(message, optional, tag = "5")]
    pub metadata: Option<Metadata>,
}

/// `io.prometheus.write.v2.Sample`.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Sample {
    /// The value; the bits of a NaN count.
    #[prost(double, tag = "1")]
    pub value: f64,
    /// Milliseconds since the Unix epoch.
    #[prost(int64, tag = "2")]
    pub timestamp: i64,
    /// When counting began, in milliseconds since the Unix epoch; 0 where that is not told.
    #[prost(int64, tag = "3")]
    pub start_timestamp: i64,
}

/// `io.prometheus.write.v2.Exemplar`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Exemplar {
    /// What identifies it, as in a series.
    #[prost(uint32, repeated, tag = "1")]
    pub labels_refs: Vec<u32>,
    /// Its value.
    #[prost(double, tag = "2")]
    pub value: f64,
    /// Milliseconds since the Unix epoch.
    #[prost(int64, tag = "3")]
    pub timestamp: i64,
}

/// `io.prometheus.write.v2.Metadata`.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Metadata {
    /// `Metadata.MetricType`, with the numbers of 1.0.
    #[prost(int32, tag = "1")]
    pub r#type: i32,
    /// What it is, by the place of the text.
    #[prost(uint32, tag = "3")]
    pub help_ref: u32,
    /// Its unit, by the place of the text.
    #[prost(uint32, tag = "4")]
    pub unit_ref: u32,
}

/// `io.prometheus.write.v2.Histogram`: that of 1.0 with two more fields.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Histogram {
    /// All observations.
    #[prost(oneof = "Count", tags = "1, 2")]
    pub count: Option<Count>,
    /// The sum of all observations; the bits of a NaN count, those of a staleness marker among them.
    #[prost(double, tag = "3")]
    pub sum: f64,
    /// `n` of the growth 2^(2^-n) from bound to bound; -53 where bounds are listed.
    #[prost(sint32, tag = "4")]
    pub schema: i32,
    /// The width of the bucket around zero.
    #[prost(double, tag = "5")]
    pub zero_threshold: f64,
    /// Observations in the bucket around zero.
    #[prost(oneof = "ZeroCount", tags = "6, 7")]
    pub zero_count: Option<ZeroCount>,
    /// Which buckets there are below zero.
    #[prost(message, repeated, tag = "8")]
    pub negative_spans: Vec<BucketSpan>,
    /// Of whole numbers: each as its difference from the one before.
    #[prost(sint64, repeated, tag = "9")]
    pub negative_deltas: Vec<i64>,
    /// Of other numbers: each as it is.
    #[prost(double, repeated, tag = "10")]
    pub negative_counts: Vec<f64>,
    /// Which buckets there are above zero.
    #[prost(message, repeated, tag = "11")]
    pub positive_spans: Vec<BucketSpan>,
    /// Of whole numbers: each as its difference from the one before.
    #[prost(sint64, repeated, tag = "12")]
    pub positive_deltas: Vec<i64>,
    /// Of other numbers: each as it is.
    #[prost(double, repeated, tag = "13")]
    pub positive_counts: Vec<f64>,
    /// 3 where counts may go down, 0 where nothing is known.
    #[prost(int32, tag = "14")]
    pub reset_hint: i32,
    /// Milliseconds since the Unix epoch.
    #[prost(int64, tag = "15")]
    pub timestamp: i64,
    /// The upper bounds of all buckets but the last, where bounds are listed.
    #[prost(double, repeated, tag = "16")]
    pub custom_values: Vec<f64>,
    /// When counting began, in milliseconds since the Unix epoch; 0 where that is not told.
    #[prost(int64, tag = "17")]
    pub start_timestamp: i64,
}

impl Request {
    /// The labels that references stand for.
    ///
    /// # Errors
    /// A reference leads nowhere, or a name has no value.
    pub fn labels(&self, refs: &[u32]) -> Result<Vec<Label>, WireError> {
        let text = |at: u32| self.symbols.get(at as usize).cloned().ok_or(super::UNKNOWN);
        let label = |pair: &[u32]| match *pair {
            [name, value] => Ok(Label { name: text(name)?, value: text(value)? }),
            _ => Err(WireError::Damaged("a label has a name and no value")),
        };
        refs.chunks(2).map(label).collect()
    }

    /// The labels and samples as a request of 1.0 has them: what both versions have in common, for who reads both.
    ///
    /// # Errors
    /// As [`Request::labels`].
    pub fn samples(&self) -> Result<proto::WriteRequest, WireError> {
        let series = |entry: &TimeSeries| {
            let sample = |sample: &Sample| proto::Sample { value: sample.value, timestamp: sample.timestamp };
            Ok(proto::TimeSeries {
                labels: self.labels(&entry.labels_refs)?,
                samples: entry.samples.iter().map(sample).collect(),
                ..Default::default()
            })
        };
        let timeseries = self.timeseries.iter().map(series).collect::<Result<_, WireError>>()?;
        Ok(proto::WriteRequest { timeseries, ..Default::default() })
    }
}
