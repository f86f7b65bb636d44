//! The native part of a histogram, and exemplars.

use super::message::{BucketSpan, Exemplar, Histogram, Timestamp};
use crate::model::{self, Buckets, Counts, Span, Tally, normalise_nan};
use crate::parse;

impl Histogram {
    /// Whether there is anything native in it. A library that has observed nothing yet adds a span without length to say
    /// so.
    pub(super) fn is_native(&self) -> bool {
        let spans = !self.positive_span.is_empty() || !self.negative_span.is_empty();
        spans || self.zero_threshold > 0.0 || self.zero_count > 0
    }

    /// The native histogram as it was sent: nothing of it has been checked.
    pub(super) fn native(&self, gauge: bool) -> model::Histogram {
        let counts = if self.sample_count_float > 0.0 || self.zero_count_float > 0.0 {
            Counts::Float(Tally {
                count: normalise_nan(self.sample_count_float),
                zero_count: normalise_nan(self.zero_count_float),
                negative: floats(&self.negative_span, &self.negative_count),
                positive: floats(&self.positive_span, &self.positive_count),
            })
        } else {
            Counts::Integer(Tally {
                count: self.sample_count,
                zero_count: self.zero_count,
                negative: Buckets { spans: spans(&self.negative_span), counts: self.negative_delta.clone() },
                positive: Buckets { spans: spans(&self.positive_span), counts: self.positive_delta.clone() },
            })
        };
        model::Histogram {
            schema: self.schema,
            zero_threshold: normalise_nan(self.zero_threshold),
            sum: normalise_nan(self.sample_sum),
            gauge,
            counts,
            custom_values: Vec::new(),
        }
    }
}

impl Histogram {
    /// The exemplars of the native histogram: its own, and where it has none those of the classic buckets. As in Prometheus,
    /// those without a time do not count.
    pub(super) fn dated_exemplars(&self) -> Vec<model::Exemplar> {
        let of_buckets = self.bucket.iter().filter_map(|bucket| bucket.exemplar.as_ref());
        let of_buckets = of_buckets.filter(|_| self.exemplars.is_empty());
        let all = self.exemplars.iter().chain(of_buckets).filter(|exemplar| exemplar.timestamp.is_some());
        all.filter_map(|exemplar| exemplar.entry()?.to_model()).collect()
    }
}

impl Exemplar {
    /// `None` if its labels are too long.
    pub(super) fn entry(&self) -> Option<parse::Exemplar<'_>> {
        let timestamp_ms = self.timestamp.map(Timestamp::milliseconds);
        parse::Exemplar::of_message(&self.label, normalise_nan(self.value), timestamp_ms)
    }
}

fn floats(at: &[BucketSpan], counts: &[f64]) -> Buckets<f64> {
    Buckets { spans: spans(at), counts: counts.iter().map(|count| normalise_nan(*count)).collect() }
}

fn spans(spans: &[BucketSpan]) -> Vec<Span> {
    spans.iter().map(|span| Span { offset: span.offset, length: span.length }).collect()
}
