//! What can be wrong with an exposition, and where.
//!
//! Messages say what was found and what was expected instead. What was found is foreign text: it is cleaned and cut
//! before it becomes part of an error.

use std::fmt;

use thiserror::Error;

use crate::model::clean_to;

use super::{MAX_LABELS, MAX_LINE_BYTES};

/// How much of the foreign text is shown.
const EXCERPT_BYTES: usize = 32;

/// Where parsing stopped, and why.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("line {line}, column {column}: {problem}")]
pub struct ParseError {
    /// The line, counted from 1.
    pub line: usize,
    /// The character in that line, counted from 1.
    pub column: usize,
    /// What is wrong there.
    pub problem: Problem,
    /// Whether the body ended in this place without the line feed or the `# EOF` that it needs: then it was probably cut
    /// on its way, and the target is not to blame.
    pub unfinished: bool,
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Problem {
    /// The first byte of a line.
    #[error("{0} cannot begin a line: a metric name, \"{{\" or \"#\" is expected")]
    Start(Excerpt),
    /// A blank line in OpenMetrics.
    #[error("a blank line, which OpenMetrics does not allow")]
    BlankLine,
    /// A comment in OpenMetrics.
    #[error(
        "OpenMetrics has no comments: \"# TYPE \", \"# HELP \", \"# UNIT \" or \"# EOF\" is expected, with single spaces"
    )]
    Comment,
    /// Between braces, where a label begins.
    #[error("{0} is not a label name: a label name or \"}}\" is expected")]
    LabelName(Excerpt),
    /// Behind a label name.
    #[error("\"=\" is expected after the label name, not {0}")]
    Equals(Excerpt),
    /// Behind `=`.
    #[error("a label value in double quotes is expected, not {0}")]
    LabelValue(Excerpt),
    /// Behind a label value in OpenMetrics.
    #[error("\",\" or \"}}\" is expected after the label value, not {0}")]
    Comma(Excerpt),
    /// A quoted text without its second quote.
    #[error("the quoted text is not closed: '\"' is expected")]
    Unclosed,
    /// Label value, quoted name or help text.
    #[error("the text is not valid UTF-8")]
    Utf8,
    /// A zero byte in a quoted name, or in an exemplar.
    #[error("a zero byte cannot stand in a name, nor in an exemplar")]
    ZeroByte,
    /// A metric name before the braces and inside, or twice inside.
    #[error("the metric name is given twice")]
    NameTwice,
    /// Braces without any metric name.
    #[error("the metric name is missing: it stands before the braces, or inside them in double quotes")]
    NoName,
    /// `{""}` or `""=`.
    #[error("a name cannot be empty")]
    EmptyName,
    /// Over [`MAX_LABELS`].
    #[error("the sample has over {MAX_LABELS} labels")]
    TooManyLabels,
    /// No value where one must be.
    #[error("a value is expected after {0}")]
    NoValue(&'static str),
    /// A value, or a timestamp in OpenMetrics.
    #[error("{0} is not a number")]
    NotANumber(Excerpt),
    /// A value or a timestamp.
    #[error("{0} is out of the range of numbers")]
    OutOfRange(Excerpt),
    /// Behind the value.
    #[error("a timestamp or the end of the line is expected after the value, not {0}")]
    AfterValue(Excerpt),
    /// Behind the timestamp.
    #[error("the end of the line is expected after the timestamp, not {0}")]
    AfterTimestamp(Excerpt),
    /// NaN or an infinity as a timestamp.
    #[error("{0} is not a time")]
    NotATime(Excerpt),
    /// Behind `# TYPE`, `# HELP`, `# UNIT`.
    #[error("a metric name is expected after {keyword:?}, not {found}")]
    FamilyName {
        /// The keyword.
        keyword: &'static str,
        /// What stands there.
        found: Excerpt,
    },
    /// No text behind the name of a descriptor in OpenMetrics.
    #[error("a space is expected after the metric name, not {0}")]
    NoText(Excerpt),
    /// The word behind a TYPE.
    #[error("{found} is not a type of {format}: one of {expected} is expected")]
    TypeWord {
        /// What stands there.
        found: Excerpt,
        /// The format's name.
        format: &'static str,
        /// The words that the format has.
        expected: &'static str,
    },
    /// The unit is not the end of the family's name.
    #[error("the unit {0} is not the last part of the metric name")]
    Unit(Excerpt),
    /// Anything behind `# EOF`.
    #[error("nothing may follow \"# EOF\"")]
    AfterEof,
    /// The body ends without `# EOF`.
    #[error("the body ends without \"# EOF\"")]
    EofMissing,
    /// Over [`MAX_LINE_BYTES`].
    #[error("the line has over {MAX_LINE_BYTES} bytes")]
    LineTooLong,
}

/// A sample names a label twice. The line is well-formed, so it is not a [`ParseError`]; yet such a series cannot be
/// stored, and Prometheus fails the scrape unless relabelling drops it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("label name {name} is not unique in {series}")]
pub struct DuplicateLabel {
    /// The label.
    pub name: Excerpt,
    /// The beginning of the series as exposed.
    pub series: Excerpt,
}

/// The beginning of a foreign text, safe to show: in double quotes, or words for what has no text.
#[derive(Clone, PartialEq, Eq)]
pub struct Excerpt(Box<str>);

impl Excerpt {
    /// What stands at `at`, up to the end of the line.
    pub(super) fn of(line: &[u8], at: usize) -> Self {
        let rest = line.get(at..).unwrap_or_default();
        let rest = rest.split(|byte| *byte == b'\n').next().unwrap_or_default();
        if rest.is_empty() {
            return Self("the end of the line".into());
        }
        // Four bytes are the longest character: cutting the bytes first keeps the work small for a long line.
        let cut = &rest[..rest.len().min(EXCERPT_BYTES + 4)];
        Self(format!("\"{}\"", clean_to(&String::from_utf8_lossy(cut), EXCERPT_BYTES)).into())
    }

    /// All of `text`, which may be empty.
    pub(super) fn whole(text: &[u8]) -> Self {
        if text.is_empty() { Self("\"\"".into()) } else { Self::of(text, 0) }
    }
}

impl fmt::Display for Excerpt {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl fmt::Debug for Excerpt {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

/// Why a line could not be parsed, inside this room.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The line is wrong at this offset.
    Wrong { at: usize, problem: Problem },
    /// The line ends inside quotes in which a line feed may stand; `labels` if they stand between braces.
    Open { labels: bool },
}

impl Trouble {
    /// The line is wrong at `at`.
    pub(super) fn at(at: usize, problem: Problem) -> Self {
        Self::Wrong { at, problem }
    }
}
