//! Exposition in, borrowed entries out: Prometheus text 0.0.4 and 1.0.0, OpenMetrics 1.0.0 and 0.0.1, and protobuf, which
//! is told of in [`protobuf`].
//!
//! A [`Parser`] of text pulls one entry at a time from the front of a buffer that the caller fills as the body arrives; it owns
//! no buffer and allocates nothing for a sample. What Prometheus accepts is accepted and what it rejects is rejected,
//! with a position and a reason that a person can act on. Where this room differs on purpose:
//!
//! - a line is at most [`MAX_LINE_BYTES`] long and carries at most [`MAX_LABELS`] labels;
//! - a zero byte where no text may stand is an error, and in a comment it is text; Prometheus takes one at the start of a
//!   line or in a comment for the end of the body;
//! - a bare name alone between braces is an error; Prometheus 3.5 takes it, without its first and last letter, for the
//!   metric's name;
//! - the quoted name of a descriptor is decoded as that of a sample is, so that the two are the same; Prometheus leaves
//!   its escapes as they stand;
//! - a bound is canonical only if it is a decimal number; Prometheus also reads Go's hexadecimal ones.
//!
//! What always holds: a NaN comes out as the one ordinary NaN, so no target can forge a staleness marker; the same bytes
//! give the same entries however they were cut into chunks; the work per byte is bounded, also for a line that
//! arrives in a thousand pieces.
//!
//! This room must not know where bytes came from, what time it is, or what becomes of labels: a duplicate series, a
//! timestamp in the future, a sample outside its family are none of its business.

mod braces;
mod error;
mod format;
mod line;
mod nhcb;
mod number;
mod openmetrics;
pub mod print;
pub mod protobuf;
mod sample;
mod scan;
mod series;
mod text;

#[cfg(test)]
mod tests;

use std::borrow::Cow;

pub use error::{DuplicateLabel, Excerpt, ParseError, Problem};
pub use format::{Exposition, Format, MediaTypeError};
pub use nhcb::Converter;
pub use number::{NumberError, parse_value};
pub use sample::{Exemplar, HistogramEntry, MAX_EXEMPLAR_CHARACTERS, SampleEntry};
pub use series::{Series, SeriesKey};

use crate::model::MetricType;
use error::Trouble;
use scan::LineEnd;

/// How long a line may be, without its line feed; a line with line breaks inside quotes counts as a whole.
pub const MAX_LINE_BYTES: usize = 1 << 20;

/// How many labels a sample may have, its name not counted; in a message `le` and `quantile` are not counted either.
pub const MAX_LABELS: usize = 1024;

/// What one line says, or a part of a protobuf message.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry<'a> {
    /// A value of a series.
    Sample(SampleEntry<'a>),
    /// A native histogram: in protobuf, or from a [`Converter`].
    Histogram(HistogramEntry<'a>),
    /// `# TYPE`: also the type of all samples up to the next such line.
    Type {
        /// The metric family.
        family: Cow<'a, str>,
        /// What it is.
        kind: MetricType,
    },
    /// `# HELP`
    Help {
        /// The metric family.
        family: Cow<'a, str>,
        /// Its description, escapes decoded.
        text: Cow<'a, str>,
    },
    /// `# UNIT`, not in the Prometheus text format.
    Unit {
        /// The metric family.
        family: Cow<'a, str>,
        /// Its unit, possibly empty.
        unit: &'a str,
    },
    /// A line that says nothing: a comment or a blank line of the Prometheus format.
    Comment,
    /// `# EOF`, in OpenMetrics only; nothing may follow.
    Eof,
}

/// What [`Parser::next`] found at the front of its input.
#[derive(Clone, Debug, PartialEq)]
pub enum Step<'a> {
    /// An entry, and how many bytes it took: the next call must be given the input behind them.
    Entry(Entry<'a>, usize),
    /// The input ends inside a line. The next call must be given the same bytes with more behind them.
    NeedMore,
    /// The body has ended as it should.
    End,
}

/// A parser of one body.
///
/// ```
/// use meshscrape::parse::{Entry, Format, Parser, Step};
///
/// let mut parser = Parser::new(Format::PrometheusText);
/// let mut rest: &[u8] = b"# TYPE lake_level gauge\nlake_level{shore=\"east\"} 3\n";
/// let mut sum = 0.0;
/// while let Step::Entry(entry, taken) = parser.next(rest, true)? {
///     if let Entry::Sample(sample) = entry {
///         sum += sample.value;
///     }
///     rest = &rest[taken..];
/// }
/// assert_eq!(sum, 3.0);
/// # Ok::<(), meshscrape::parse::ParseError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Parser {
    format: Format,
    /// The number of the line that the input begins with.
    line: usize,
    /// The last TYPE seen, whichever family it named: Prometheus judges `le` and `quantile` by it.
    kind: MetricType,
    /// How far the search for the end of the current line has come.
    line_end: LineEnd,
    /// Whether any byte has been consumed.
    started: bool,
    /// Whether the last byte consumed was a line feed.
    line_feed: bool,
    /// Whether `# EOF` was seen.
    eof: bool,
}

impl Parser {
    /// A parser at the beginning of a body.
    pub fn new(format: Format) -> Self {
        Self {
            format,
            line: 1,
            kind: MetricType::Unknown,
            line_end: LineEnd::default(),
            started: false,
            line_feed: false,
            eof: false,
        }
    }

    /// Takes the next entry from the front of `input`, which must begin where the last entry ended. `at_end` says that
    /// no byte follows `input`; only then is a last line without line feed taken.
    ///
    /// After an error the body is lost: Prometheus stores nothing of it, and this parser must not be asked again.
    pub fn next<'a>(&mut self, input: &'a [u8], at_end: bool) -> Result<Step<'a>, ParseError> {
        if input.is_empty() {
            return if at_end { self.end() } else { Ok(Step::NeedMore) };
        }
        if self.eof {
            return Err(self.error(input, Trouble::at(0, Problem::AfterEof)));
        }
        loop {
            let found = self.line_end.find(input);
            let length = found.unwrap_or(input.len());
            if length > MAX_LINE_BYTES {
                return Err(self.error(input, Trouble::at(0, Problem::LineTooLong)));
            }
            if found.is_none() && !at_end {
                return Ok(Step::NeedMore);
            }
            let line = &input[..length];
            let parsed = match self.format {
                Format::PrometheusText => text::entry(line, self.kind),
                Format::OpenMetrics => openmetrics::entry(line, self.kind),
            };
            match parsed {
                Ok(entry) => {
                    let taken = length + usize::from(found.is_some());
                    self.advance(line, &entry, found.is_some());
                    return Ok(Step::Entry(entry, taken));
                }
                // The line feed stands inside quotes and belongs to them: look for the one behind.
                Err(Trouble::Open { labels }) if found.is_some() => self.line_end.resume_in_quotes(length + 1, labels),
                Err(trouble) => {
                    let unfinished = found.is_none();
                    return Err(ParseError { unfinished, ..self.error(line, trouble) });
                }
            }
        }
    }

    /// Whether the bytes consumed so far could be a whole body: the Prometheus format ends in a line feed,
    /// OpenMetrics in `# EOF`, and nothing at all is complete in both. Asked after [`Step::End`], a `false` means that
    /// the last line may have been cut; Prometheus accepts that, a job with `require_complete` does not.
    pub fn is_complete(&self) -> bool {
        !self.started
            || match self.format {
                Format::PrometheusText => self.line_feed,
                Format::OpenMetrics => self.eof,
            }
    }

    fn end<'a>(&self) -> Result<Step<'a>, ParseError> {
        if self.format == Format::OpenMetrics && self.started && !self.eof {
            let error = self.error(&[], Trouble::at(0, Problem::EofMissing));
            return Err(ParseError { unfinished: true, ..error });
        }
        Ok(Step::End)
    }

    fn advance(&mut self, line: &[u8], entry: &Entry<'_>, line_feed: bool) {
        self.line += usize::from(line_feed) + if self.line_end.spans_lines() { scan::line_feeds(line) } else { 0 };
        self.line_end = LineEnd::default();
        self.started = true;
        self.line_feed = line_feed;
        match entry {
            Entry::Type { kind, .. } => self.kind = *kind,
            Entry::Eof => self.eof = true,
            _ => {}
        }
    }

    /// Turns an offset into the current line into a position in the body.
    fn error(&self, line: &[u8], trouble: Trouble) -> ParseError {
        let (at, problem) = match trouble {
            Trouble::Wrong { at, problem } => (at.min(line.len()), problem),
            Trouble::Open { .. } => (line.len(), Problem::Unclosed),
        };
        let before = &line[..at];
        let start = memchr::memrchr(b'\n', before).map_or(0, |feed| feed + 1);
        let is_character = |byte: &&u8| **byte & 0b1100_0000 != 0b1000_0000;
        ParseError {
            line: self.line + scan::line_feeds(before),
            column: 1 + before[start..].iter().filter(is_character).count(),
            problem,
            unfinished: false,
        }
    }
}
