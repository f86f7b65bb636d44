//! The native part of a histogram.

use super::message::{BucketSpan, Histogram};
use crate::model::{self, Buckets, Counts, Span, Tally, normalise_nan};

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

fn floats(at: &[BucketSpan], counts: &[f64]) -> Buckets<f64> {
    Buckets { spans: spans(at), counts: counts.iter().map(|count| normalise_nan(*count)).collect() }
}

fn spans(spans: &[BucketSpan]) -> Vec<Span> {
    spans.iter().map(|span| Span { offset: span.offset, length: span.length }).collect()
}
