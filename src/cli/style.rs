//! What a terminal asks for: colour, where a person looks and has not asked for none (`NO_COLOR`), and lines that fit.

use std::fmt::Display;
use std::io::IsTerminal;

/// Columns and rows of the terminal on standard output; none where it is no terminal.
pub(super) fn terminal_size() -> Option<(usize, usize)> {
    #[cfg(unix)]
    {
        let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
        (size.ws_col > 0).then_some((size.ws_col.into(), size.ws_row.into()))
    }
    #[cfg(not(unix))]
    None
}

/// `text` in at most `width` characters, with an ellipsis for what is left out.
pub(super) fn shortened(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(width.saturating_sub(1)).collect();
    if width > 0 {
        short.push('…');
    }
    short
}

/// `text` in lines of at most `width` characters, broken between words; a longer word stays whole.
pub(super) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let last = lines.last_mut().expect("there is always a last line");
        if last.is_empty() {
            last.push_str(word);
        } else if last.chars().count() + 1 + word.chars().count() <= width {
            last.push(' ');
            last.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

/// Colours text, or leaves it alone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Paint {
    on: bool,
}

impl Paint {
    /// Colour for standard error.
    pub(super) fn for_stderr() -> Self {
        Self::wanted(std::io::stderr().is_terminal())
    }

    /// Colour for standard output.
    pub(super) fn for_stdout() -> Self {
        Self::wanted(std::io::stdout().is_terminal())
    }

    /// No colour.
    #[cfg(test)]
    pub(super) fn none() -> Self {
        Self { on: false }
    }

    fn wanted(terminal: bool) -> Self {
        Self { on: terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) }
    }

    /// Good news.
    pub(super) fn good(self, text: impl Display) -> String {
        self.wrap("32", text)
    }

    /// Bad news.
    pub(super) fn bad(self, text: impl Display) -> String {
        self.wrap("31", text)
    }

    /// What matters.
    pub(super) fn bold(self, text: impl Display) -> String {
        self.wrap("1", text)
    }

    fn wrap(self, code: &str, text: impl Display) -> String {
        if self.on { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_broken_between_words() {
        assert_eq!(wrapped("one two three-and-more four", 8), ["one two", "three-and-more", "four"]);
        assert_eq!(wrapped("", 8), [""]);
    }

    #[test]
    fn what_is_cut_says_so() {
        assert_eq!([shortened("abcdef", 6), shortened("abcdef", 4), shortened("abcdef", 0)], ["abcdef", "abc…", ""]);
    }
}
