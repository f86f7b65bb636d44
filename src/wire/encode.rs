//! The protobuf encoding of labels and samples, written out by hand.
//!
//! What is written equals byte for byte what a protobuf library writes, except that a value of 0 and a timestamp of 0
//! are written as well: a library leaves them out, and then the length of an entry would hang on its value.

use super::fields::{Content, Field, Fields};
use crate::model::{Labels, Metadata, MetricType, Sample};

/// `WriteRequest.timeseries`, `TimeSeries.labels` and `Label.name`: field 1, length-delimited.
pub(super) const FIELD_1_BYTES: u8 = 0x0a;
/// `TimeSeries.samples` and `Label.value`: field 2, length-delimited.
const FIELD_2_BYTES: u8 = 0x12;
/// `Sample.value`: field 1, eight bytes.
const FIELD_1_FIXED64: u8 = 0x09;
/// `Sample.timestamp`: field 2, varint.
const FIELD_2_VARINT: u8 = 0x10;
/// `TimeSeries.exemplars`: field 3, length-delimited.
const FIELD_3_BYTES: u8 = 0x1a;
/// `WriteRequest.metadata` is field 3 as well; `MetricMetadata.type`: field 1, varint.
const FIELD_1_VARINT: u8 = 0x08;
/// `MetricMetadata.help`: field 4, length-delimited.
const FIELD_4_BYTES: u8 = 0x22;
/// `MetricMetadata.unit`: field 5, length-delimited.
const FIELD_5_BYTES: u8 = 0x2a;
/// `Exemplar.value`: field 2, eight bytes.
const FIELD_2_FIXED64: u8 = 0x11;
/// `Exemplar.timestamp` and, in 2.0, `Sample.start_timestamp`: field 3, varint.
const FIELD_3_VARINT: u8 = 0x18;

/// The label fields of a series, in the order of `labels`: what [`push_sample`] wants in front of each of its samples.
pub fn encode_labels(labels: &Labels) -> Vec<u8> {
    let lengths: usize = labels.iter().map(|(name, value)| field_len(label_len(name, value))).sum();
    let mut out = Vec::with_capacity(lengths);
    for (name, value) in labels.iter() {
        push_label(&mut out, name, value);
    }
    out
}

/// Appends one label of a series or an exemplar.
pub(super) fn push_label(out: &mut Vec<u8>, name: &str, value: &str) {
    out.push(FIELD_1_BYTES);
    push_varint(out, label_len(name, value) as u64);
    push_text(out, FIELD_1_BYTES, name);
    push_text(out, FIELD_2_BYTES, value);
}

/// Appends one `timeseries` entry to a message: the labels as [`encode_labels`] gave them, and one sample. The bits of
/// the value are kept as they are, staleness markers included.
pub fn push_sample(message: &mut Vec<u8>, encoded_labels: &[u8], sample: Sample) {
    message.push(FIELD_1_BYTES);
    push_varint(message, (encoded_labels.len() + field_len(sample_len(sample, None))) as u64);
    message.extend_from_slice(encoded_labels);
    push_sample_field(message, sample, None);
}

/// Appends `TimeSeries.samples`, which is the same in both versions, but that 2.0 has a place for the time since when it
/// counts.
pub(super) fn push_sample_field(entry: &mut Vec<u8>, sample: Sample, start_ms: Option<i64>) {
    entry.push(FIELD_2_BYTES);
    push_varint(entry, sample_len(sample, start_ms) as u64);
    entry.push(FIELD_1_FIXED64);
    entry.extend_from_slice(&sample.value.to_bits().to_le_bytes());
    entry.push(FIELD_2_VARINT);
    push_varint(entry, unsigned(sample.timestamp_ms));
    if let Some(start_ms) = start_ms {
        entry.push(FIELD_3_VARINT);
        push_varint(entry, unsigned(start_ms));
    }
}

fn sample_len(sample: Sample, start_ms: Option<i64>) -> usize {
    let len = |timestamp_ms: i64| 1 + varint_len(unsigned(timestamp_ms));
    1 + size_of::<u64>() + len(sample.timestamp_ms) + start_ms.map_or(0, len)
}

/// Two's complement: a time before 1970 takes ten bytes, as protobuf's int64 does.
fn unsigned(timestamp_ms: i64) -> u64 {
    timestamp_ms as u64
}

/// An exemplar as [`push_exemplars`] wants it. Labels are sorted; a value and a time of 0 are left out, as a library does it.
pub fn encode_exemplar(labels: &Labels, value: f64, timestamp_ms: i64) -> Vec<u8> {
    let mut out = encode_labels(labels);
    if value.to_bits() != 0 {
        out.push(FIELD_2_FIXED64);
        out.extend_from_slice(&value.to_bits().to_le_bytes());
    }
    if timestamp_ms != 0 {
        out.push(FIELD_3_VARINT);
        push_varint(&mut out, timestamp_ms as u64);
    }
    out
}

/// Gives name and value of each label of an exemplar as [`encode_exemplar`] made it, and what stands behind the labels.
pub(super) fn each_label(exemplar: &[u8], mut each: impl FnMut(&str)) -> &[u8] {
    let mut rest = exemplar;
    for field in Fields::of(exemplar) {
        let Ok(Field { number: 1, content: Content::Bytes(label), whole }) = field else { break };
        let mut texts = [""; 2];
        for text in Fields::of(label) {
            let Ok(Field { number: number @ 1..=2, content: Content::Bytes(text), .. }) = text else { continue };
            texts[number as usize - 1] = std::str::from_utf8(text).unwrap_or_default();
        }
        texts.into_iter().for_each(&mut each);
        rest = &rest[whole.len()..];
    }
    rest
}

/// Appends one `timeseries` entry to a message: the labels of the series as [`encode_labels`] gave them, once however many
/// exemplars of it follow, each as [`encode_exemplar`] gave it.
pub fn push_exemplars<'e>(
    message: &mut Vec<u8>,
    encoded_labels: &[u8],
    encoded_exemplars: impl Iterator<Item = &'e [u8]> + Clone,
) {
    let length: usize = encoded_exemplars.clone().map(|exemplar| field_len(exemplar.len())).sum();
    message.push(FIELD_1_BYTES);
    push_varint(message, (encoded_labels.len() + length) as u64);
    message.extend_from_slice(encoded_labels);
    for exemplar in encoded_exemplars {
        message.push(FIELD_3_BYTES);
        push_varint(message, exemplar.len() as u64);
        message.extend_from_slice(exemplar);
    }
}

/// Appends one `metadata` entry to a message; what is 0 or empty is left out, as a library does it.
pub fn push_metadata(message: &mut Vec<u8>, metadata: &Metadata) {
    let Metadata { family, kind, help, unit } = metadata;
    let kind = metric_type(*kind);
    let kind_len = if kind == 0 { 0 } else { 2 };
    message.push(FIELD_3_BYTES);
    push_varint(message, (kind_len + text_len(family) + text_len(help) + text_len(unit)) as u64);
    if kind != 0 {
        message.extend_from_slice(&[FIELD_1_VARINT, kind]);
    }
    push_text(message, FIELD_2_BYTES, family);
    push_text(message, FIELD_4_BYTES, help);
    push_text(message, FIELD_5_BYTES, unit);
}

/// `MetricMetadata.MetricType` in 1.0, `Metadata.MetricType` in 2.0.
pub(super) fn metric_type(kind: MetricType) -> u8 {
    match kind {
        MetricType::Unknown => 0,
        MetricType::Counter => 1,
        MetricType::Gauge => 2,
        MetricType::Histogram => 3,
        MetricType::GaugeHistogram => 4,
        MetricType::Summary => 5,
        MetricType::Info => 6,
        MetricType::StateSet => 7,
    }
}

/// Appends `value` seven bits at a time, lowest first.
pub(super) fn push_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(super) fn varint_len(value: u64) -> usize {
    (u64::BITS - (value | 1).leading_zeros()).div_ceil(7) as usize
}

/// The length of a length-delimited field whose content has `len` bytes, its one-byte tag included.
pub(super) fn field_len(len: usize) -> usize {
    1 + varint_len(len as u64) + len
}

fn label_len(name: &str, value: &str) -> usize {
    text_len(name) + text_len(value)
}

/// Protobuf leaves an empty text out.
fn text_len(text: &str) -> usize {
    if text.is_empty() { 0 } else { field_len(text.len()) }
}

fn push_text(out: &mut Vec<u8>, tag: u8, text: &str) {
    if !text.is_empty() {
        out.push(tag);
        push_varint(out, text.len() as u64);
        out.extend_from_slice(text.as_bytes());
    }
}
