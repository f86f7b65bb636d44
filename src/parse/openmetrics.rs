//! One line of OpenMetrics, versions 1.0.0 and 0.0.1.
//!
//! ```text
//! line       = descriptor / sample / "# EOF"
//! descriptor = "# " ( "TYPE" / "HELP" / "UNIT" ) " " name " " text
//! sample     = ( name [ labels ] / labels-with-name ) " " value [ " " seconds ] [ " # " labels " " value [ " " seconds ] ]
//! ```
//!
//! One space stands where the grammar has one, and none elsewhere. As lenient as Prometheus, and not as strict as the
//! standard: suffixes, order and grouping are not checked, and an exemplar may stand on any sample.

use memchr::memchr;

use crate::model::MetricType;

use super::braces::{Braces, Item, Manners};
use super::error::{Excerpt, Problem, Trouble};
use super::sample::{Exemplar, SampleEntry, unescape};
use super::{Entry, MAX_LABELS, line, number, scan};

const EXEMPLAR: &[u8] = b" # {";

/// Parses `text`, which is a line without its line feed.
#[inline]
pub(super) fn entry(text: &[u8], kind: MetricType) -> Result<Entry<'_>, Trouble> {
    match text.first() {
        None => Err(Trouble::at(0, Problem::BlankLine)),
        Some(b'#') => descriptor(text),
        Some(byte) if *byte == b'{' || scan::starts_metric_name(*byte) => sample(text, kind),
        Some(_) => Err(Trouble::at(0, Problem::Start(Excerpt::of(text, 0)))),
    }
}

#[inline]
fn sample(text: &[u8], kind: MetricType) -> Result<Entry<'_>, Trouble> {
    let (series, end) = line::series(text, 0, Manners::Strict, kind)?;
    let (value, end) = value(text, end, "the series and one space")?;
    let (timestamp_ms, end) = timestamp(text, end)?;
    let exemplar = match &text[end..] {
        [] => None,
        rest if rest.starts_with(EXEMPLAR) => exemplar(text, end + EXEMPLAR.len())?,
        _ if timestamp_ms.is_some() => {
            return Err(Trouble::at(end, Problem::AfterTimestamp(Excerpt::of(text, end))));
        }
        _ => return Err(Trouble::at(end, Problem::AfterValue(Excerpt::of(text, end)))),
    };
    Ok(Entry::Sample(SampleEntry { series, value, timestamp_ms, start_ms: None, exemplar }))
}

/// Reads an exemplar whose labels begin at `at`, to the end of the line.
fn exemplar(text: &[u8], at: usize) -> Result<Option<Exemplar<'_>>, Trouble> {
    let mut braces = Braces::new(text, at, Manners::Exemplar);
    let mut labels = 0;
    loop {
        let from = braces.at();
        match braces.next()? {
            None => break,
            Some(Item::Name(_)) => return Err(Trouble::at(from, Problem::LabelName(Excerpt::of(text, from)))),
            Some(Item::Label { .. }) if labels == MAX_LABELS => return Err(Trouble::at(from, Problem::TooManyLabels)),
            Some(Item::Label { .. }) => labels += 1,
        }
    }
    let labels = line::utf8(text, at - 1, braces.at())?;
    let (value, end) = value(text, braces.at(), "the labels of the exemplar and one space")?;
    let (timestamp_ms, end) = timestamp(text, end)?;
    if end < text.len() {
        return Err(Trouble::at(end, Problem::AfterTimestamp(Excerpt::of(text, end))));
    }
    Ok(Exemplar::new(labels, value, timestamp_ms))
}

/// Reads a space and a number, and returns what is behind them.
#[inline]
fn value(text: &[u8], at: usize, after: &'static str) -> Result<(f64, usize), Trouble> {
    match token(text, at) {
        Some(end) => Ok((line::number(text, at + 1, end)?, end)),
        None => Err(Trouble::at(at, Problem::NoValue(after))),
    }
}

/// Reads a space and a time, if they are there.
fn timestamp(text: &[u8], at: usize) -> Result<(Option<i64>, usize), Trouble> {
    if text[at..].starts_with(EXEMPLAR) {
        return Ok((None, at));
    }
    let Some(end) = token(text, at) else { return Ok((None, at)) };
    let seconds = line::number(text, at + 1, end)?;
    match number::seconds_to_ms(seconds) {
        Some(ms) => Ok((Some(ms), end)),
        None => Err(Trouble::at(at + 1, Problem::NotATime(Excerpt::whole(&text[at + 1..end])))),
    }
}

/// The end of the token behind the one space at `at`; `None` if there is no such space or no token.
#[inline]
fn token(text: &[u8], at: usize) -> Option<usize> {
    let rest = text.get(at..)?.strip_prefix(b" ")?;
    let length = memchr(b' ', rest).unwrap_or(rest.len());
    (length > 0).then_some(at + 1 + length)
}

fn descriptor(text: &[u8]) -> Result<Entry<'_>, Trouble> {
    let (keyword, rest) = text.split_at(text.len().min("# TYPE ".len()));
    match keyword {
        b"# TYPE " => type_line(text),
        b"# HELP " => {
            let (family, from) = family(text, "HELP")?;
            Ok(Entry::Help { family, text: unescape(line::utf8(text, from, text.len())?) })
        }
        b"# UNIT " => unit_line(text),
        b"# EOF" if rest.is_empty() => Ok(Entry::Eof),
        _ if text.starts_with(b"# EOF") => Err(Trouble::at("# EOF".len(), Problem::AfterEof)),
        _ => Err(Trouble::at(0, Problem::Comment)),
    }
}

fn type_line(text: &[u8]) -> Result<Entry<'_>, Trouble> {
    let (family, from) = family(text, "TYPE")?;
    let kind = match &text[from..] {
        b"counter" => MetricType::Counter,
        b"gauge" => MetricType::Gauge,
        b"histogram" => MetricType::Histogram,
        b"gaugehistogram" => MetricType::GaugeHistogram,
        b"summary" => MetricType::Summary,
        b"info" => MetricType::Info,
        b"stateset" => MetricType::StateSet,
        b"unknown" => MetricType::Unknown,
        word => {
            let found = Excerpt::whole(word);
            let expected = "counter, gauge, histogram, gaugehistogram, summary, info, stateset, unknown";
            return Err(Trouble::at(from, Problem::TypeWord { found, format: "OpenMetrics", expected }));
        }
    };
    Ok(Entry::Type { family, kind })
}

fn unit_line(text: &[u8]) -> Result<Entry<'_>, Trouble> {
    let (family, from) = family(text, "UNIT")?;
    let unit = line::utf8(text, from, text.len())?;
    let is_suffix = family.strip_suffix(unit).is_some_and(|stem| stem.ends_with('_'));
    if !unit.is_empty() && !is_suffix {
        return Err(Trouble::at(from, Problem::Unit(Excerpt::whole(unit.as_bytes()))));
    }
    Ok(Entry::Unit { family, unit })
}

/// The name of a descriptor's family, and where its text begins: behind the one space that must follow.
fn family<'a>(text: &'a [u8], keyword: &'static str) -> Result<(std::borrow::Cow<'a, str>, usize), Trouble> {
    let (family, end) = line::family(text, "# TYPE ".len(), keyword)?;
    match text.get(end) {
        Some(b' ') => Ok((family, end + 1)),
        _ => Err(Trouble::at(end, Problem::NoText(Excerpt::of(text, end)))),
    }
}
