//! What stands between `{` and `}`: labels, and perhaps the metric's name in quotes.
//!
//! One walk serves the check of a line, which keeps nothing, and the decoding of a series, which runs over text that has
//! been checked. The formats differ in blanks and commas only.

use super::error::{Excerpt, Problem, Trouble};
use super::scan::{self, Feeds};

/// The manners of a format.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Manners {
    /// Prometheus text: blanks between any two tokens, commas optional between labels, line breaks in values.
    Lenient,
    /// OpenMetrics: no blanks, a comma between labels, no line breaks in values.
    Strict,
    /// An exemplar of OpenMetrics: as strict, no line breaks in names nor zero bytes in values either, yet a quoted name
    /// may be empty.
    Exemplar,
}

/// One thing between the braces, without its quotes, escapes as written.
pub(super) enum Item<'a> {
    /// A quoted text alone: the metric's name.
    Name(&'a [u8]),
    /// A label.
    Label { name: &'a [u8], value: &'a [u8] },
}

/// A walk over the items between braces.
pub(super) struct Braces<'a> {
    line: &'a [u8],
    at: usize,
    manners: Manners,
}

impl<'a> Braces<'a> {
    /// Begins behind the `{`.
    pub(super) fn new(line: &'a [u8], at: usize, manners: Manners) -> Self {
        Self { line, at, manners }
    }

    /// Where the walk is; after the last item that is behind the `}`.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// The next item, or `None` behind the `}`.
    #[inline]
    pub(super) fn next(&mut self) -> Result<Option<Item<'a>>, Trouble> {
        self.skip_blanks();
        let (name, is_quoted) = match self.line.get(self.at) {
            Some(b'}') => {
                self.at += 1;
                return Ok(None);
            }
            Some(b'"') => (self.quoted_name()?, true),
            Some(byte) if scan::starts_label_name(*byte) => {
                let from = self.at;
                self.at = scan::label_name(self.line, from + 1);
                (&self.line[from..self.at], false)
            }
            _ => return Err(self.wrong(Problem::LabelName)),
        };
        self.skip_blanks();
        match self.line.get(self.at) {
            Some(b'=') => self.at += 1,
            Some(b',') if is_quoted => {
                self.at += 1;
                return Ok(Some(Item::Name(name)));
            }
            Some(b'}') if is_quoted => return Ok(Some(Item::Name(name))),
            _ => return Err(self.wrong(Problem::Equals)),
        }
        self.skip_blanks();
        if self.line.get(self.at) != Some(&b'"') {
            return Err(self.wrong(Problem::LabelValue));
        }
        let feeds = match self.manners {
            Manners::Lenient => Feeds::Allowed,
            Manners::Strict | Manners::Exemplar => Feeds::Refused,
        };
        let from = self.at + 1;
        let end = scan::quoted(self.line, from, feeds, true)?;
        let value = &self.line[from..end];
        if self.manners == Manners::Exemplar && value.contains(&0) {
            return Err(Trouble::at(self.at, Problem::ZeroByte));
        }
        self.at = end + 1;
        self.skip_blanks();
        match (self.line.get(self.at), self.manners) {
            (Some(b','), _) => self.at += 1,
            (Some(b'}'), _) | (_, Manners::Lenient) => {}
            _ => return Err(self.wrong(Problem::Comma)),
        }
        Ok(Some(Item::Label { name, value }))
    }

    /// Both formats let line feeds stand in the quoted names of a series.
    fn quoted_name(&mut self) -> Result<&'a [u8], Trouble> {
        let feeds = match self.manners {
            Manners::Lenient | Manners::Strict => Feeds::Allowed,
            Manners::Exemplar => Feeds::Refused,
        };
        let from = self.at + 1;
        let end = scan::quoted(self.line, from, feeds, true)?;
        let name = &self.line[from..end];
        if name.is_empty() && self.manners != Manners::Exemplar {
            return Err(Trouble::at(self.at, Problem::EmptyName));
        }
        if name.contains(&0) {
            return Err(Trouble::at(self.at, Problem::ZeroByte));
        }
        self.at = end + 1;
        Ok(name)
    }

    fn skip_blanks(&mut self) {
        if self.manners == Manners::Lenient {
            self.at = scan::skip_blanks(self.line, self.at);
        }
    }

    fn wrong(&self, problem: impl FnOnce(Excerpt) -> Problem) -> Trouble {
        Trouble::at(self.at, problem(Excerpt::of(self.line, self.at)))
    }
}
