//! What is wrong with a file, where, and what to write instead.

use std::fmt;
use std::path::PathBuf;

use crate::yaml::Pos;

/// One problem of a file, or one warning. It shows no secret and no value of an environment variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file as it was named, or as a pattern of the file found it.
    pub file: PathBuf,
    /// The place; `None` if the file as a whole is meant.
    pub pos: Option<Pos>,
    /// The key, from the top of the file: `scrape_configs[0].tls_config`. Empty if no key is meant.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it, as an instruction: "write …", "remove …".
    pub instead: Option<String>,
}

/// `file:line:column: key: what is wrong; write … instead`, without the parts that are absent.
impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:", self.file.display())?;
        if let Some(pos) = self.pos {
            write!(out, "{}:{}:", pos.line, pos.column)?;
        }
        if !self.key.is_empty() {
            write!(out, " {}:", self.key)?;
        }
        write!(out, " {}", self.message)?;
        match &self.instead {
            Some(instead) => write!(out, "; {instead}"),
            None => Ok(()),
        }
    }
}

/// What is wrong with one value, without its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) message: String,
    pub(super) instead: Option<String>,
}

impl Wrong {
    /// Says what is wrong and what to do about it.
    pub(super) fn new(message: impl Into<String>, instead: impl Into<String>) -> Self {
        Self { message: message.into(), instead: Some(instead.into()) }
    }

    /// Says what is wrong, where the message leaves no question what to do.
    pub(super) fn only(message: impl Into<String>) -> Self {
        Self { message: message.into(), instead: None }
    }
}
