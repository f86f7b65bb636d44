//! One line of the Prometheus text format, versions 0.0.4 and 1.0.0.
//!
//! ```text
//! line    = blank / "#" anything / help / type / sample
//! help    = "#" 1*blank "HELP" 1*blank name [ any-byte text ]
//! type    = "#" 1*blank "TYPE" 1*blank name any-byte word
//! sample  = ( name [ "{" labels "}" ] / "{" labels-with-name "}" ) value [ timestamp in ms ]
//! ```
//!
//! Blanks, which are spaces and tabs, may stand between any two tokens. A carriage return is not one of them.

use std::borrow::Cow;

use crate::model::MetricType;

use super::braces::Manners;
use super::error::{Excerpt, Problem, Trouble};
use super::sample::{SampleEntry, unescape_help};
use super::{Entry, line, scan};

/// Parses `text`, which is a line without its line feed.
#[inline]
pub(super) fn entry(text: &[u8], kind: MetricType) -> Result<Entry<'_>, Trouble> {
    let at = scan::skip_blanks(text, 0);
    match text.get(at) {
        None => Ok(Entry::Comment),
        Some(b'#') => comment(text, at + 1),
        Some(byte) if *byte == b'{' || scan::starts_metric_name(*byte) => sample(text, at, kind),
        Some(_) => Err(Trouble::at(at, Problem::Start(Excerpt::of(text, at)))),
    }
}

#[inline]
fn sample(text: &[u8], at: usize, kind: MetricType) -> Result<Entry<'_>, Trouble> {
    let (series, end) = line::series(text, at, Manners::Lenient, kind)?;
    let from = scan::skip_blanks(text, end);
    let end = token_end(text, from);
    if from == end {
        return Err(Trouble::at(from, Problem::NoValue("the series")));
    }
    let value = line::number(text, from, end)?;
    let from = scan::skip_blanks(text, end);
    let timestamp_ms = if from == text.len() { None } else { Some(timestamp(text, from)?) };
    Ok(Entry::Sample(SampleEntry { series, value, timestamp_ms, start_ms: None, exemplar: None }))
}

/// Reads digits up to the end of the line.
fn timestamp(text: &[u8], from: usize) -> Result<i64, Trouble> {
    let digits = text[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let end = from + digits;
    if digits == 0 {
        return Err(Trouble::at(from, Problem::AfterValue(Excerpt::of(text, from))));
    }
    let behind = scan::skip_blanks(text, end);
    if behind < text.len() {
        return Err(Trouble::at(end, Problem::AfterTimestamp(Excerpt::of(text, end))));
    }
    let digits = line::utf8(text, from, end)?;
    digits.parse().map_err(|_| Trouble::at(from, Problem::OutOfRange(Excerpt::whole(digits.as_bytes()))))
}

/// Everything behind `#`. Only HELP and TYPE say anything, and only in this exact spelling.
fn comment(text: &[u8], at: usize) -> Result<Entry<'_>, Trouble> {
    let from = scan::skip_blanks(text, at);
    if from == at {
        return Ok(Entry::Comment);
    }
    let keyword = |word: &str| {
        let behind = text[from..].strip_prefix(word.as_bytes())?;
        matches!(behind.first(), Some(b' ' | b'\t')).then(|| scan::skip_blanks(text, from + word.len()))
    };
    if let Some(name) = keyword("TYPE") {
        return type_line(text, name);
    }
    if let Some(name) = keyword("HELP") {
        return help_line(text, name);
    }
    Ok(Entry::Comment)
}

fn type_line(text: &[u8], at: usize) -> Result<Entry<'_>, Trouble> {
    let (family, end) = line::family(text, at, "TYPE")?;
    let from = (end + 1).min(text.len());
    let kind = match &text[from..] {
        b"counter" => MetricType::Counter,
        b"gauge" => MetricType::Gauge,
        b"histogram" => MetricType::Histogram,
        b"summary" => MetricType::Summary,
        b"untyped" => MetricType::Unknown,
        word => {
            let found = Excerpt::whole(word);
            let expected = "counter, gauge, histogram, summary, untyped";
            return Err(Trouble::at(from, Problem::TypeWord { found, format: "the Prometheus format", expected }));
        }
    };
    Ok(Entry::Type { family, kind })
}

fn help_line(text: &[u8], at: usize) -> Result<Entry<'_>, Trouble> {
    let (family, end) = line::family(text, at, "HELP")?;
    // A text of blanks alone counts as none, separator and all.
    let from = if scan::skip_blanks(text, end) == text.len() { text.len() } else { end + 1 };
    let help = line::utf8(text, from, text.len())?;
    Ok(Entry::Help { family, text: if help.is_empty() { Cow::Borrowed("") } else { unescape_help(help) } })
}

/// The end of the run of bytes that are not blank.
#[inline]
fn token_end(text: &[u8], from: usize) -> usize {
    let rest = &text[from..];
    from + rest.iter().position(|byte| matches!(byte, b' ' | b'\t')).unwrap_or(rest.len())
}
