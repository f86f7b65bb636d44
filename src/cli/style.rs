//! Colour, where a person looks at a terminal and has not asked for none (`NO_COLOR`).

use std::fmt::Display;
use std::io::IsTerminal;

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
