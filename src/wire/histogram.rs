//! The protobuf encoding of native histograms, written out by hand.
//!
//! As a protobuf library writes it: fields with the value 0 are left out, but for the two counts, of which the message has
//! one kind or the other; `-0` is written, because a value is its bits.

use super::encode::{FIELD_1_BYTES, field_len, push_varint, varint_len};
use crate::model::{Counts, Histogram, Span};

/// `TimeSeries.histograms` of 1.0: field 4, length-delimited.
const FIELD_4_BYTES: u8 = 0x22;
/// `TimeSeries.histograms` of 2.0: field 3, length-delimited.
const FIELD_3_BYTES: u8 = 0x1a;
/// `Histogram.custom_values` of 2.0: field 16, packed. From here on a number takes two bytes.
const FIELD_16_BYTES: [u8; 2] = [0x82, 0x01];
/// `Histogram.start_timestamp` of 2.0: field 17, varint.
const FIELD_17_VARINT: [u8; 2] = [0x88, 0x01];
/// `Histogram.reset_hint` of a histogram whose counts may go down.
const GAUGE: u64 = 3;

/// Appends one `timeseries` entry to a message: the labels as [`encode_labels`](super::encode_labels) gave them, and one
/// histogram. Listed bounds have no place in remote write 1.0: a histogram that has them is not for this message.
pub fn push_histogram(message: &mut Vec<u8>, encoded_labels: &[u8], histogram: &Histogram, timestamp_ms: i64) {
    let body = encode(histogram, timestamp_ms);
    message.push(FIELD_1_BYTES);
    push_varint(message, (encoded_labels.len() + field_len(body.len())) as u64);
    message.extend_from_slice(encoded_labels);
    message.push(FIELD_4_BYTES);
    push_varint(message, body.len() as u64);
    message.extend_from_slice(&body);
}

/// Appends `TimeSeries.histograms` of 2.0, which has places for listed bounds and for the time since when it counts.
pub(super) fn push_v2(entry: &mut Vec<u8>, histogram: &Histogram, timestamp_ms: i64, start_ms: Option<i64>) {
    let mut body = encode(histogram, timestamp_ms);
    if !histogram.custom_values.is_empty() {
        body.extend_from_slice(&FIELD_16_BYTES);
        push_packed(&mut body, &histogram.custom_values);
    }
    if let Some(start_ms) = start_ms {
        body.extend_from_slice(&FIELD_17_VARINT);
        push_varint(&mut body, start_ms as u64);
    }
    entry.push(FIELD_3_BYTES);
    push_varint(entry, body.len() as u64);
    entry.extend_from_slice(&body);
}

/// The fields that both versions have, in the order of their numbers.
fn encode(histogram: &Histogram, timestamp_ms: i64) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 + 3 * histogram.buckets());
    match &histogram.counts {
        Counts::Integer(tally) => push_number(&mut out, 1, tally.count),
        Counts::Float(tally) => push_double(&mut out, 2, tally.count),
    }
    if histogram.sum.to_bits() != 0 {
        push_double(&mut out, 3, histogram.sum);
    }
    if histogram.schema != 0 {
        push_number(&mut out, 4, zigzag(histogram.schema.into()));
    }
    if histogram.zero_threshold.to_bits() != 0 {
        push_double(&mut out, 5, histogram.zero_threshold);
    }
    match &histogram.counts {
        Counts::Integer(tally) => {
            push_number(&mut out, 6, tally.zero_count);
            push_spans(&mut out, 8, &tally.negative.spans);
            push_deltas(&mut out, 9, &tally.negative.counts);
            push_spans(&mut out, 11, &tally.positive.spans);
            push_deltas(&mut out, 12, &tally.positive.counts);
        }
        Counts::Float(tally) => {
            push_double(&mut out, 7, tally.zero_count);
            push_spans(&mut out, 8, &tally.negative.spans);
            push_doubles(&mut out, 10, &tally.negative.counts);
            push_spans(&mut out, 11, &tally.positive.spans);
            push_doubles(&mut out, 13, &tally.positive.counts);
        }
    }
    if histogram.gauge {
        push_number(&mut out, 14, GAUGE);
    }
    if timestamp_ms != 0 {
        push_number(&mut out, 15, timestamp_ms as u64);
    }
    out
}

fn push_number(out: &mut Vec<u8>, field: u8, value: u64) {
    out.push(field << 3);
    push_varint(out, value);
}

fn push_double(out: &mut Vec<u8>, field: u8, value: f64) {
    out.push(field << 3 | 1);
    out.extend_from_slice(&value.to_bits().to_le_bytes());
}

fn push_length(out: &mut Vec<u8>, field: u8, length: usize) {
    out.push(field << 3 | 2);
    push_varint(out, length as u64);
}

/// Each span is a message with its offset as field 1 and its length as field 2.
fn push_spans(out: &mut Vec<u8>, field: u8, spans: &[Span]) {
    for span in spans {
        let (offset, length) = (zigzag(span.offset.into()), u64::from(span.length));
        let len = |value: u64| if value == 0 { 0 } else { 1 + varint_len(value) };
        push_length(out, field, len(offset) + len(length));
        for (field, value) in [(1, offset), (2, length)] {
            if value != 0 {
                push_number(out, field, value);
            }
        }
    }
}

fn push_deltas(out: &mut Vec<u8>, field: u8, deltas: &[i64]) {
    if !deltas.is_empty() {
        push_length(out, field, deltas.iter().map(|delta| varint_len(zigzag(*delta))).sum());
        deltas.iter().for_each(|delta| push_varint(out, zigzag(*delta)));
    }
}

fn push_doubles(out: &mut Vec<u8>, field: u8, values: &[f64]) {
    if !values.is_empty() {
        out.push(field << 3 | 2);
        push_packed(out, values);
    }
}

fn push_packed(out: &mut Vec<u8>, values: &[f64]) {
    push_varint(out, size_of_val(values) as u64);
    values.iter().for_each(|value| out.extend_from_slice(&value.to_bits().to_le_bytes()));
}

/// Small numbers of either sign as small numbers without one.
pub(super) const fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63) as u64
}
