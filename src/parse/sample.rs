//! Samples and exemplars as they stand in the body, and the escapes of their texts.

use std::borrow::Cow;

use memchr::memchr;

use crate::model::{self, Histogram, Labels};

use super::braces::Manners;
use super::error::DuplicateLabel;
use super::protobuf::LabelPair;
use super::series::{Series, collect, items};

/// How many characters the names and values of an exemplar's labels may have together; longer exemplars are dropped.
pub const MAX_EXEMPLAR_CHARACTERS: usize = 128;

/// A value of a series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SampleEntry<'a> {
    /// Which series.
    pub series: Series<'a>,
    /// The value; a NaN is the ordinary one.
    pub value: f64,
    /// The time that the target gave, in milliseconds since the Unix epoch.
    pub timestamp_ms: Option<i64>,
    /// Since when it counts, in milliseconds since the Unix epoch; in protobuf only.
    pub start_ms: Option<i64>,
    /// An example of what it counts; in OpenMetrics and protobuf only.
    pub exemplar: Option<Exemplar<'a>>,
}

/// A native histogram of a series, as it was sent: nothing but its texts has been checked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HistogramEntry<'a> {
    /// Which series.
    pub series: Series<'a>,
    /// The histogram; a NaN in it is the ordinary one.
    pub histogram: &'a Histogram,
    /// The time that the target gave, in milliseconds since the Unix epoch.
    pub timestamp_ms: Option<i64>,
    /// Since when it counts, in milliseconds since the Unix epoch.
    pub start_ms: Option<i64>,
    /// Those that have a time of their own; only these tell in the next scrape whether they are new.
    pub exemplars: &'a [model::Exemplar],
}

/// An example of what was counted, such as a trace.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Exemplar<'a> {
    labels: ExemplarLabels<'a>,
    /// The value; a NaN is the ordinary one.
    pub value: f64,
    /// Its own time, in milliseconds since the Unix epoch; without one it has its sample's.
    pub timestamp_ms: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum ExemplarLabels<'a> {
    /// The braces with what is between them.
    Text(&'a str),
    Message(&'a [LabelPair]),
}

impl SampleEntry<'_> {
    /// The labels of its series: [`Series::labels`].
    pub fn labels(&self) -> Result<Labels, DuplicateLabel> {
        self.series.labels()
    }
}

impl<'a> Exemplar<'a> {
    /// `text` must be braces that have passed the parser. `None` if the labels are too long.
    pub(super) fn new(text: &'a str, value: f64, timestamp_ms: Option<i64>) -> Option<Self> {
        let fits = text.len() <= MAX_EXEMPLAR_CHARACTERS || fits(items(text, 0, Manners::Exemplar));
        fits.then_some(Self { labels: ExemplarLabels::Text(text), value, timestamp_ms })
    }

    /// `None` if the labels are too long.
    pub(super) fn of_message(labels: &'a [LabelPair], value: f64, timestamp_ms: Option<i64>) -> Option<Self> {
        fits(message_items(labels)).then_some(Self { labels: ExemplarLabels::Message(labels), value, timestamp_ms })
    }

    /// The labels; in a text as they stand there, escapes included, as Prometheus takes them. A label given twice makes the
    /// exemplar worthless, but not the scrape.
    pub fn labels(&self) -> Result<Labels, DuplicateLabel> {
        match self.labels {
            ExemplarLabels::Text(text) => collect(items(text, 0, Manners::Exemplar), text),
            ExemplarLabels::Message(labels) => collect(message_items(labels), "the exemplar"),
        }
    }

    /// The exemplar apart from the body; `None` if it is worthless: a label is given twice, or has no name.
    pub fn to_model(&self) -> Option<model::Exemplar> {
        let labels = self.labels().ok().filter(|labels| !labels.contains(""))?;
        Some(model::Exemplar { labels, value: self.value, timestamp_ms: self.timestamp_ms })
    }
}

fn message_items(labels: &[LabelPair]) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    labels.iter().map(|label| (Cow::Borrowed(&*label.name), Cow::Borrowed(&*label.value)))
}

/// Labels with an empty value are absent and do not count.
fn fits<'a>(labels: impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)>) -> bool {
    let there = labels.filter(|(_, value)| !value.is_empty());
    there.map(|(name, value)| name.chars().count() + value.chars().count()).sum::<usize>() <= MAX_EXEMPLAR_CHARACTERS
}

/// Decodes `\\`, `\"` and `\n`; any other backslash stays as it is.
pub(super) fn unescape(raw: &str) -> Cow<'_, str> {
    decode_escapes(raw, |escaped| match escaped {
        b'\\' => Some('\\'),
        b'"' => Some('"'),
        b'n' => Some('\n'),
        _ => None,
    })
}

/// Decodes the escapes of a help text in the Prometheus format, which knows no `\"`.
pub(super) fn unescape_help(raw: &str) -> Cow<'_, str> {
    decode_escapes(raw, |escaped| match escaped {
        b'\\' => Some('\\'),
        b'n' => Some('\n'),
        _ => None,
    })
}

fn decode_escapes(raw: &str, meaning: impl Fn(u8) -> Option<char>) -> Cow<'_, str> {
    let Some(mut backslash) = memchr(b'\\', raw.as_bytes()) else { return Cow::Borrowed(raw) };
    let mut out = String::with_capacity(raw.len());
    let mut from = 0;
    loop {
        let decoded = raw.as_bytes().get(backslash + 1).copied().and_then(&meaning);
        out.push_str(&raw[from..backslash]);
        out.push(decoded.unwrap_or('\\'));
        from = backslash + 1 + usize::from(decoded.is_some());
        match memchr(b'\\', &raw.as_bytes()[from..]) {
            Some(offset) => backslash = from + offset,
            None => {
                out.push_str(&raw[from..]);
                return Cow::Owned(out);
            }
        }
    }
}
