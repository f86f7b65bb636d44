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
