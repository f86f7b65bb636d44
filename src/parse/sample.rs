//! Samples and exemplars as they stand in the body, and the escapes of their texts.

use std::borrow::Cow;

use memchr::memchr;

use crate::model::{Histogram, Labels};

use super::braces::Manners;
use super::error::DuplicateLabel;
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
    /// OpenMetrics only.
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
}

/// An example of what was counted, such as a trace.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Exemplar<'a> {
    /// The braces with what is between them.
    text: &'a str,
    /// The value; a NaN is the ordinary one.
    pub value: f64,
    /// Its own time, in milliseconds since the Unix epoch; without one it has its sample's.
    pub timestamp_ms: Option<i64>,
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
        let characters =
            items(text, 0, Manners::Exemplar).map(|(name, value)| name.chars().count() + value.chars().count());
        let fits = text.len() <= MAX_EXEMPLAR_CHARACTERS || characters.sum::<usize>() <= MAX_EXEMPLAR_CHARACTERS;
        fits.then_some(Self { text, value, timestamp_ms })
    }

    /// The labels. A label given twice makes the exemplar worthless, but not the scrape.
    pub fn labels(&self) -> Result<Labels, DuplicateLabel> {
        collect(items(self.text, 0, Manners::Exemplar), self.text)
    }
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
