//! The parts that the lines of both formats have in common.

use std::borrow::Cow;

use super::MAX_LABELS;
use super::braces::{Braces, Item, Manners};
use super::error::{Excerpt, Problem, Trouble};
use super::number::{NumberError, parse_value};
use super::sample::unescape;
use super::scan::{self, Feeds};
use super::series::Series;
use crate::model::MetricType;

/// Reads name and braces. The series begins at 0, its bare name or its brace at `at`; the end is returned with it.
#[inline]
pub(super) fn series<'a>(
    line: &'a [u8],
    at: usize,
    manners: Manners,
    kind: MetricType,
) -> Result<(Series<'a>, usize), Trouble> {
    let name_end = scan::metric_name(line, at);
    let brace = match manners {
        Manners::Lenient => scan::skip_blanks(line, name_end),
        Manners::Strict | Manners::Exemplar => name_end,
    };
    let end = match line.get(brace) {
        Some(b'{') => braces(line, brace + 1, manners, name_end > at)?,
        _ => name_end,
    };
    Ok((Series::of_text(utf8(line, 0, end)?, kind), end))
}

/// Reads over everything up to and with the `}` and returns what is behind it.
#[inline]
fn braces(line: &[u8], at: usize, manners: Manners, mut named: bool) -> Result<usize, Trouble> {
    let mut braces = Braces::new(line, at, manners);
    let mut labels = 0;
    loop {
        let from = braces.at();
        match braces.next()? {
            None if named => return Ok(braces.at()),
            None => return Err(Trouble::at(at - 1, Problem::NoName)),
            Some(Item::Name(_)) if named => return Err(Trouble::at(from, Problem::NameTwice)),
            Some(Item::Name(_)) => named = true,
            Some(Item::Label { .. }) if labels == MAX_LABELS => return Err(Trouble::at(from, Problem::TooManyLabels)),
            Some(Item::Label { .. }) => labels += 1,
        }
    }
}

/// Reads the number in `line[from..end]`, which is not empty.
#[inline]
pub(super) fn number(line: &[u8], from: usize, end: usize) -> Result<f64, Trouble> {
    parse_value(&line[from..end]).map_err(|error| {
        let excerpt = Excerpt::whole(&line[from..end]);
        Trouble::at(
            from,
            match error {
                NumberError::Syntax => Problem::NotANumber(excerpt),
                NumberError::Range => Problem::OutOfRange(excerpt),
            },
        )
    })
}

/// `line[from..end]` as text.
#[inline]
pub(super) fn utf8(line: &[u8], from: usize, end: usize) -> Result<&str, Trouble> {
    std::str::from_utf8(&line[from..end]).map_err(|error| Trouble::at(from + error.valid_up_to(), Problem::Utf8))
}

/// Reads the name of a family, bare or quoted, at `at`, and returns it with what is behind it.
pub(super) fn family<'a>(line: &'a [u8], at: usize, keyword: &'static str) -> Result<(Cow<'a, str>, usize), Trouble> {
    match line.get(at) {
        Some(b'"') => {
            let end = scan::quoted(line, at + 1, Feeds::Allowed, false)?;
            if line[at + 1..end].contains(&0) {
                return Err(Trouble::at(at, Problem::ZeroByte));
            }
            Ok((unescape(utf8(line, at + 1, end)?), end + 1))
        }
        Some(byte) if scan::starts_metric_name(*byte) => {
            let end = scan::metric_name(line, at);
            Ok((Cow::Borrowed(utf8(line, at, end)?), end))
        }
        _ => Err(Trouble::at(at, Problem::FamilyName { keyword, found: Excerpt::of(line, at) })),
    }
}
