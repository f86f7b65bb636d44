//! Bytes and where things end: character classes, blanks, names, quoted texts, lines.
//!
//! Both grammars are built from these. Nothing here allocates; every function looks at each byte once.

use memchr::{memchr, memchr_iter, memchr2, memchr3};

use super::error::{Problem, Trouble};

const METRIC_START: u8 = 1;
const METRIC: u8 = 2;
const LABEL_START: u8 = 4;
const LABEL: u8 = 8;

/// Which names a byte may stand in.
const CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        classes[byte] = match byte as u8 {
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => METRIC_START | METRIC | LABEL_START | LABEL,
            b':' => METRIC_START | METRIC,
            b'0'..=b'9' => METRIC | LABEL,
            _ => 0,
        };
        byte += 1;
    }
    classes
};

/// Whether a bare metric name may begin with `byte`.
pub(super) fn starts_metric_name(byte: u8) -> bool {
    CLASSES[usize::from(byte)] & METRIC_START != 0
}

/// Whether a bare label name may begin with `byte`.
pub(super) fn starts_label_name(byte: u8) -> bool {
    CLASSES[usize::from(byte)] & LABEL_START != 0
}

/// The end of the bare metric name that goes on at `at`.
pub(super) fn metric_name(line: &[u8], at: usize) -> usize {
    run(line, at, METRIC)
}

/// The end of the bare label name that goes on at `at`.
pub(super) fn label_name(line: &[u8], at: usize) -> usize {
    run(line, at, LABEL)
}

fn run(line: &[u8], at: usize, class: u8) -> usize {
    let rest = &line[at..];
    at + rest.iter().position(|byte| CLASSES[usize::from(*byte)] & class == 0).unwrap_or(rest.len())
}

/// The first byte at or behind `at` that is neither space nor tab.
pub(super) fn skip_blanks(line: &[u8], at: usize) -> usize {
    let rest = &line[at..];
    at + rest.iter().position(|byte| !matches!(byte, b' ' | b'\t')).unwrap_or(rest.len())
}

/// How many line feeds there are.
pub(super) fn line_feeds(bytes: &[u8]) -> usize {
    memchr_iter(b'\n', bytes).count()
}

/// Whether a raw line feed may stand inside a quoted text.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Feeds {
    Allowed,
    Refused,
}

/// The place of the quote that ends the quoted text whose content begins at `at`. `labels` says whether the text stands
/// between braces: if the line ends inside it, that decides how the search for its real end goes on.
pub(super) fn quoted(line: &[u8], mut at: usize, feeds: Feeds, labels: bool) -> Result<usize, Trouble> {
    loop {
        let rest = &line[at..];
        let next = match feeds {
            Feeds::Allowed => memchr2(b'"', b'\\', rest),
            Feeds::Refused => memchr3(b'"', b'\\', b'\n', rest),
        };
        let Some(offset) = next else {
            return match feeds {
                Feeds::Allowed => Err(Trouble::Open { labels }),
                Feeds::Refused => Err(Trouble::at(line.len(), Problem::Unclosed)),
            };
        };
        at += offset;
        match line[at] {
            b'"' => return Ok(at),
            // Prometheus takes no escaped line feed or zero byte, and a line feed follows what ends the line.
            b'\\' if !matches!(line.get(at + 1), None | Some(b'\n' | 0)) => at += 2,
            _ => return Err(Trouble::at(at, Problem::Unclosed)),
        }
    }
}

/// The search for the line feed that ends the current line, resumable where the input ended.
#[derive(Clone, Debug, Default)]
pub(super) struct LineEnd {
    /// Everything before this has been looked at.
    at: usize,
    state: State,
    /// Whether a line feed was found that stands inside quotes.
    spans_lines: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// The next line feed ends the line, unless parsing shows that it stands inside quotes.
    #[default]
    Plain,
    /// Inside quotes that hold a line feed.
    Quoted {
        /// Whether more quoted texts may follow them: between braces, but not in a descriptor.
        labels: bool,
    },
    /// Behind such quotes, between braces: the next line feed ends the line, the next quote opens another text.
    Between,
}

impl LineEnd {
    /// The place of the line feed, or `None` if it is not in `input`; then the next call must be given the same bytes
    /// with more behind them.
    pub(super) fn find(&mut self, input: &[u8]) -> Option<usize> {
        loop {
            let rest = &input[self.at..];
            let found = match self.state {
                State::Plain => memchr(b'\n', rest),
                State::Quoted { .. } => memchr2(b'"', b'\\', rest),
                State::Between => memchr2(b'"', b'\n', rest),
            };
            let Some(offset) = found else {
                self.at = input.len();
                return None;
            };
            self.at += offset;
            match (input[self.at], self.state) {
                (b'\\', _) if self.at + 1 == input.len() => return None,
                (b'\\', _) => self.at += 2,
                (b'"', State::Quoted { labels }) => {
                    self.at += 1;
                    self.state = if labels { State::Between } else { State::Plain };
                }
                (b'"', _) => {
                    self.at += 1;
                    self.state = State::Quoted { labels: true };
                }
                _ => return Some(self.at),
            }
        }
    }

    /// Goes on at `at`, which is inside quotes.
    pub(super) fn resume_in_quotes(&mut self, at: usize, labels: bool) {
        *self = Self { at, state: State::Quoted { labels }, spans_lines: true };
    }

    /// Whether the line has line feeds inside quotes.
    pub(super) fn spans_lines(&self) -> bool {
        self.spans_lines
    }
}
