//! Samples and exemplars as they stand in the line, and their labels when somebody asks for them.

use std::borrow::Cow;

use memchr::memchr;

use crate::model::{Labels, MetricType};

use super::braces::{Braces, Item, Manners};
use super::error::{DuplicateLabel, Excerpt};
use super::{number, scan};

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

/// A series as exposed. Only the parser makes one, so the text is known to be well-formed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Series<'a> {
    text: &'a str,
    kind: MetricType,
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

impl<'a> Series<'a> {
    /// `text` must have passed the parser.
    pub(super) fn new(text: &'a str, kind: MetricType) -> Self {
        Self { text, kind }
    }

    /// Name and braces exactly as they stand in the line: with the type, the key under which what was made of this
    /// series before is found again.
    pub fn as_str(&self) -> &'a str {
        self.text
    }

    /// The type that the last TYPE line named, whichever family that was for; `le` of histograms and `quantile` of
    /// summaries depend on it.
    pub fn kind(&self) -> MetricType {
        self.kind
    }

    /// The labels with the name as `__name__`, escapes decoded, `le` and `quantile` in canonical form. Labels with an
    /// empty value are absent, as everywhere; [`Series::empty_labels`] tells them.
    pub fn labels(&self) -> Result<Labels, DuplicateLabel> {
        collect(self.canonical_pairs(), self.text)
    }

    /// The labels; of a name that stands there twice, the first value.
    pub fn first_labels(&self) -> Labels {
        let mut labels = Labels::new();
        for (name, value) in self.canonical_pairs() {
            if !labels.contains(&name) {
                labels.set(&name, &value);
            }
        }
        labels
    }

    /// With `le` and `quantile` in canonical form.
    fn canonical_pairs(&self) -> impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)> + use<'a> {
        let bound = match self.kind {
            MetricType::Histogram => "le",
            MetricType::Summary => "quantile",
            _ => "",
        };
        let canonical = move |(name, value): (Cow<'a, str>, Cow<'a, str>)| {
            let value = if name == bound { number::canonical_bound(&value).map_or(value, Cow::Owned) } else { value };
            (name, value)
        };
        self.pairs().map(canonical)
    }

    /// The names of labels that stand there with an empty value. Where `honor_labels` is set, such a label keeps the
    /// target's label of that name away.
    pub fn empty_labels(&self) -> impl Iterator<Item = Cow<'a, str>> {
        self.pairs().filter(|(_, value)| value.is_empty()).map(|(name, _)| name)
    }

    fn pairs(&self) -> impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)> + use<'a> {
        let bytes = self.text.as_bytes();
        let from = scan::skip_blanks(bytes, 0);
        let end = scan::metric_name(bytes, from);
        // Prometheus takes blanks before a bare name into the name; so series of the same target agree with its.
        let bare = (end > from).then(|| (Cow::Borrowed("__name__"), Cow::Borrowed(&self.text[..end])));
        bare.into_iter().chain(items(self.text, scan::skip_blanks(bytes, end), Manners::Lenient))
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

/// The labels of the braces that begin at `at`, if any do. For a series the lenient manners read what the strict ones
/// accept.
fn items(text: &str, at: usize, manners: Manners) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    let mut braces = Braces::new(text.as_bytes(), at + 1, manners);
    let mut done = text.len() <= at;
    std::iter::from_fn(move || {
        let item = if done { None } else { braces.next().ok().flatten() };
        done = item.is_none();
        Some(match item? {
            Item::Name(value) => (Cow::Borrowed("__name__"), decode(value)),
            Item::Label { name, value } => (decode(name), decode(value)),
        })
    })
}

/// A part of a checked text, cut at quotes, which are no part of a character: it is UTF-8 as the whole is.
fn decode(raw: &[u8]) -> Cow<'_, str> {
    unescape(std::str::from_utf8(raw).unwrap_or_default())
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

/// Sorts first, so that a line with many labels costs no more than its length.
///
/// A label that once has an empty value is absent, whatever else is said of it: so Prometheus reads a label that is given
/// twice, except for the metric's name.
fn collect<'a>(
    pairs: impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)>,
    series: &str,
) -> Result<Labels, DuplicateLabel> {
    let mut pairs: Vec<_> = pairs.collect();
    pairs.sort_by(|(one, _), (other, _)| one.cmp(other));
    let mut labels = Labels::new();
    for same in pairs.chunk_by(|(one, _), (other, _)| one == other) {
        let (name, value) = &same[0];
        if name != "__name__" && same.iter().any(|(_, value)| value.is_empty()) {
            continue;
        }
        if same.len() > 1 {
            let name = Excerpt::whole(name.as_bytes());
            return Err(DuplicateLabel { name, series: Excerpt::whole(series.as_bytes()) });
        }
        labels.set(name, value);
    }
    Ok(labels)
}
