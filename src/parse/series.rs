//! A series as exposed: the key under which it is found again, and its labels when somebody asks for them.
//!
//! A million samples a minute are looked up by their keys, and nearly all of them are known; so a key costs next to
//! nothing, and labels are made only of a key that is new.

use std::borrow::Cow;

use crate::model::{Labels, MetricType};

use super::braces::{Braces, Item, Manners};
use super::error::{DuplicateLabel, Excerpt};
use super::protobuf::Composed;
use super::sample::unescape;
use super::{number, scan};

/// A series as exposed. Only a parser makes one, so it is known to be well-formed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Series<'a>(Source<'a>);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Source<'a> {
    /// Name and braces as they stand in a line, and the type that the last TYPE line named.
    Text { text: &'a str, kind: MetricType },
    /// A part of a metric in a protobuf message.
    Message(Composed<'a>),
    /// What a converter made.
    Made { key: &'a [u8], labels: &'a Labels },
}

/// What finds a series again in the next exposition: equal keys have equal labels. It is good for no more than that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SeriesKey<'a> {
    bytes: &'a [u8],
    /// How the bytes are read. The announced type is a part of it where it matters: under `histogram` and `summary` the
    /// same text means other labels.
    reading: Reading,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Reading {
    /// Also a message's: as in Prometheus, a series without labels has one key in all formats, and with labels there are
    /// bytes in the key of a message that no text has.
    Plain,
    HistogramText,
    SummaryText,
}

impl<'a> SeriesKey<'a> {
    /// As they stand in the body, where they stand there.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }
}

impl<'a> Series<'a> {
    /// `text` must have passed the parser.
    pub(super) fn of_text(text: &'a str, kind: MetricType) -> Self {
        Self(Source::Text { text, kind })
    }

    pub(super) fn of_message(composed: Composed<'a>) -> Self {
        Self(Source::Message(composed))
    }

    /// `key` must tell the labels apart from all others.
    pub(super) fn of_labels(key: &'a [u8], labels: &'a Labels) -> Self {
        Self(Source::Made { key, labels })
    }

    /// What finds it again.
    pub fn key(&self) -> SeriesKey<'a> {
        match self.0 {
            Source::Text { text, kind } => {
                let reading = match kind {
                    MetricType::Histogram => Reading::HistogramText,
                    MetricType::Summary => Reading::SummaryText,
                    _ => Reading::Plain,
                };
                SeriesKey { bytes: text.as_bytes(), reading }
            }
            Source::Message(Composed { key, .. }) | Source::Made { key, .. } => {
                SeriesKey { bytes: key, reading: Reading::Plain }
            }
        }
    }

    /// The type that was announced last: in a text format by the last TYPE line, whichever family that was for; `le` of
    /// histograms and `quantile` of summaries depend on it.
    pub fn kind(&self) -> MetricType {
        match self.0 {
            Source::Text { kind, .. } => kind,
            Source::Message(composed) => composed.kind,
            Source::Made { .. } => MetricType::Histogram,
        }
    }

    /// The name of the metric; empty if it has none.
    pub fn name(&self) -> Cow<'a, str> {
        self.all().find(|(name, _)| name == "__name__").map(|(_, name)| name).unwrap_or_default()
    }

    /// The labels with the name as `__name__`, escapes decoded, `le` and `quantile` in canonical form. Labels with an
    /// empty value are absent, as everywhere; [`Series::empty_labels`] tells them.
    pub fn labels(&self) -> Result<Labels, DuplicateLabel> {
        match self.0 {
            Source::Text { text, .. } => collect(self.all(), text),
            Source::Message(composed) => collect(self.all(), composed.family),
            Source::Made { labels, .. } => Ok(labels.clone()),
        }
    }

    /// The labels; of a name that stands there twice, the first value.
    pub fn first_labels(&self) -> Labels {
        let mut labels = Labels::new();
        for (name, value) in self.all() {
            if !labels.contains(&name) {
                labels.set(&name, &value);
            }
        }
        labels
    }

    /// The names of labels that stand there with an empty value. Where `honor_labels` is set, such a label keeps the
    /// target's label of that name away.
    pub fn empty_labels(&self) -> impl Iterator<Item = Cow<'a, str>> + use<'a> {
        self.all().filter(|(_, value)| value.is_empty()).map(|(name, _)| name)
    }

    /// As they stand there, but `le` and `quantile` in canonical form.
    fn all(&self) -> impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)> + use<'a> {
        let (text, message, made) = match self.0 {
            Source::Text { text, kind } => (Some((text, kind)), None, None),
            Source::Message(composed) => (None, Some(composed), None),
            Source::Made { labels, .. } => (None, None, Some(labels)),
        };
        let of_text = text.into_iter().flat_map(|(text, kind)| {
            let bound = match kind {
                MetricType::Histogram => "le",
                MetricType::Summary => "quantile",
                _ => "",
            };
            pairs(text).map(move |(name, value)| {
                let canonical = (name == bound).then(|| number::canonical_bound(&value)).flatten();
                (name, canonical.map_or(value, Cow::Owned))
            })
        });
        let made = made.into_iter().flat_map(Labels::iter);
        of_text
            .chain(message.into_iter().flat_map(|composed| composed.labels()))
            .chain(made.map(|(name, value)| (Cow::Borrowed(name), Cow::Borrowed(value))))
    }
}

/// The name and the labels of a series in a line.
fn pairs(text: &str) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    let bytes = text.as_bytes();
    let from = scan::skip_blanks(bytes, 0);
    let end = scan::metric_name(bytes, from);
    // Prometheus takes blanks before a bare name into the name; so series of the same target agree with its.
    let bare = (end > from).then(|| (Cow::Borrowed("__name__"), Cow::Borrowed(&text[..end])));
    bare.into_iter().chain(items(text, scan::skip_blanks(bytes, end), Manners::Lenient))
}

/// The labels of the braces that begin at `at`, if any do. For a series the lenient manners read what the strict ones
/// accept.
pub(super) fn items(text: &str, at: usize, manners: Manners) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    let mut braces = Braces::new(text.as_bytes(), at + 1, manners);
    let mut done = text.len() <= at;
    std::iter::from_fn(move || {
        let item = if done { None } else { braces.next().ok().flatten() };
        done = item.is_none();
        Some(match item? {
            Item::Name(value) => (Cow::Borrowed("__name__"), decode(value)),
            // As in Prometheus, those of an exemplar are taken as they stand.
            Item::Label { name, value } if manners == Manners::Exemplar => (as_it_stands(name), as_it_stands(value)),
            Item::Label { name, value } => (decode(name), decode(value)),
        })
    })
}

fn decode(raw: &[u8]) -> Cow<'_, str> {
    unescape(text_of(raw))
}

fn as_it_stands(raw: &[u8]) -> Cow<'_, str> {
    Cow::Borrowed(text_of(raw))
}

/// A part of a checked text, cut at quotes, which are no part of a character: it is UTF-8 as the whole is.
fn text_of(raw: &[u8]) -> &str {
    std::str::from_utf8(raw).unwrap_or_default()
}

/// Sorts first, so that a line with many labels costs no more than its length.
///
/// A label that once has an empty value is absent, whatever else is said of it: so Prometheus reads a label that is given
/// twice, except for the metric's name.
pub(super) fn collect<'a>(
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
