//! A failed scrape: its reason from the closed list, and what exactly happened.

use std::borrow::Cow;
use std::fmt;

use super::{Peer, Reason, clean};

/// Why one scrape failed. The detail is safe to show: foreign text in it has been cleaned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Which of the listed reasons it was.
    pub reason: Reason,
    /// What happened, with the values at hand; lower case, no full stop.
    pub detail: String,
    /// Who had to answer, where an identity was expected.
    pub expected: Option<String>,
    /// Who did answer, as far as the certificate told; never from an unverified chain without saying so in `detail`.
    pub presented: Option<String>,
    /// The certificates that the refused peer sent, a line each, leaf first: its own words, nothing verified.
    pub chain: Box<[String]>,
    /// What is known of this case that the reason alone does not tell.
    advice: Option<Advice>,
}

/// What is to be done in one case of a reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Advice {
    /// To be looked at before what the reason's hint says.
    First(&'static str),
    /// The reason's hint would lead astray.
    Instead(&'static str),
}

impl Failure {
    /// A failure with its explanation. `detail` may contain foreign text: it is cleaned here.
    pub fn new(reason: Reason, detail: impl AsRef<str>) -> Self {
        let detail = clean_detail(detail.as_ref());
        Self { reason, detail, expected: None, presented: None, chain: Box::default(), advice: None }
    }

    /// Adds who had to answer.
    pub fn expecting(mut self, peer: &Peer) -> Self {
        self.expected = Some(peer.to_string());
        self
    }

    /// Adds who answered.
    pub fn presenting(mut self, id: &str) -> Self {
        self.presented = Some(clean(id).into_owned());
        self
    }

    /// Adds the certificates that were refused.
    pub fn sending(mut self, chain: Vec<String>) -> Self {
        self.chain = chain.into();
        self
    }

    /// Adds what to look at first in this case: a phrase without a full stop.
    pub fn advising(mut self, advice: &'static str) -> Self {
        self.advice = Some(Advice::First(advice));
        self
    }

    /// Says what to do in this case, where the reason's own hint would not help: a phrase without a full stop.
    pub fn mended_by(mut self, advice: &'static str) -> Self {
        self.advice = Some(Advice::Instead(advice));
        self
    }

    /// The same failure under another reason, which explains it better; the detail says what it was.
    pub fn seen_as(self, reason: Reason) -> Self {
        let detail = clean_detail(&self.to_string());
        Self { reason, detail, advice: None, ..self }
    }

    /// What to look at or to change.
    pub fn hint(&self) -> Cow<'static, str> {
        match self.advice {
            None => Cow::Borrowed(self.reason.hint()),
            Some(Advice::First(advice)) => format!("{advice}; else {}", self.reason.hint()).into(),
            Some(Advice::Instead(advice)) => Cow::Borrowed(advice),
        }
    }
}

/// Details are composed by us around foreign parts, so they may be longer than a single foreign value.
fn clean_detail(text: &str) -> String {
    super::clean_to(text, 1024).into_owned()
}

/// `identity_mismatch: …`, in one line.
impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.reason, self.detail)
    }
}

impl std::error::Error for Failure {}
