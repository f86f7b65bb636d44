//! The series of a metric in a message: one for a counter, many for a histogram.

use std::borrow::Cow;

use super::message::LabelPair;
use crate::model::MetricType;
use crate::parse::number;

/// Parts of a key. It is no part of a text in UTF-8, so that names and values need no lengths.
const SEPARATOR: u8 = 0xff;

/// Which series of a metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Part {
    /// The only one, named as the family is.
    Whole,
    /// `_count`
    Count,
    /// `_sum`
    Sum,
    /// `_bucket` with this `le`.
    Bucket(f64),
    /// Named as the family is, with this `quantile`.
    Quantile(f64),
}

impl Part {
    fn suffix(self) -> &'static str {
        match self {
            Part::Whole | Part::Quantile(_) => "",
            Part::Count => "_count",
            Part::Sum => "_sum",
            Part::Bucket(_) => "_bucket",
        }
    }

    /// The label that the part has of its own.
    fn bound(self) -> Option<(&'static str, f64)> {
        match self {
            Part::Bucket(bound) => Some(("le", bound)),
            Part::Quantile(bound) => Some(("quantile", bound)),
            Part::Whole | Part::Count | Part::Sum => None,
        }
    }
}

/// A series that is composed of a family, the labels of a metric and a part.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::parse) struct Composed<'a> {
    /// Made by [`write_key`].
    pub(in crate::parse) key: &'a [u8],
    pub(in crate::parse) family: &'a str,
    pub(in crate::parse) kind: MetricType,
    pub(super) labels: &'a [LabelPair],
    pub(super) part: Part,
}

impl<'a> Composed<'a> {
    /// Name and labels in no order.
    pub(in crate::parse) fn labels(self) -> impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)> {
        let name = match self.part.suffix() {
            "" => Cow::Borrowed(self.family),
            suffix => Cow::Owned(format!("{}{suffix}", self.family)),
        };
        let bound = self.part.bound();
        let bound = bound.map(|(name, bound)| (Cow::Borrowed(name), Cow::Owned(number::bound(bound))));
        let labels =
            self.labels.iter().map(|pair| (Cow::Borrowed(pair.name.as_str()), Cow::Borrowed(pair.value.as_str())));
        std::iter::once((Cow::Borrowed("__name__"), name)).chain(labels).chain(bound)
    }
}

/// Makes the key of a series. Labels are sorted, so that a metric has one key in whatever order they come; no name of a
/// label is empty, so two separators are the end of them.
pub(super) fn write_key(key: &mut Vec<u8>, family: &str, labels: &[LabelPair], part: Part) {
    key.clear();
    key.extend_from_slice(family.as_bytes());
    key.extend_from_slice(part.suffix().as_bytes());
    for pair in labels {
        key.push(SEPARATOR);
        key.extend_from_slice(pair.name.as_bytes());
        key.push(SEPARATOR);
        key.extend_from_slice(pair.value.as_bytes());
    }
    if let Some((name, bound)) = part.bound() {
        key.extend_from_slice(&[SEPARATOR, SEPARATOR]);
        key.extend_from_slice(name.as_bytes());
        key.extend_from_slice(&bound.to_bits().to_le_bytes());
    }
}
