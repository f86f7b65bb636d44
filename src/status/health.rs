//! How a target fares, judged in one place for the API and the page.

use crate::model::{Failure, Peer, PeerReport, ScrapeReport, Verification};
use crate::scrape::TargetSnapshot;

/// How a target fares, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum State {
    /// Its last scrape failed, or it may not be connected at all.
    Down,
    /// It has not been scraped yet.
    Unknown,
    /// Its last scrape succeeded.
    Up,
}

impl State {
    /// The word of Prometheus' API.
    pub(super) fn word(self) -> &'static str {
        match self {
            State::Down => "down",
            State::Unknown => "unknown",
            State::Up => "up",
        }
    }
}

/// What is to be said of a target.
#[derive(Clone, Copy, Debug)]
pub(super) struct Health<'a> {
    /// How it fares.
    pub(super) state: State,
    /// The last scrape.
    pub(super) last: Option<&'a ScrapeReport>,
    /// Why it is down.
    pub(super) failure: Option<&'a Failure>,
    /// What its answers lack though it is up.
    pub(super) lack: Option<&'a Failure>,
    verification: &'a Verification,
}

impl<'a> Health<'a> {
    /// Judges one.
    pub(super) fn of(TargetSnapshot { target, status }: &'a TargetSnapshot) -> Self {
        let last = status.last.as_ref();
        // Who may not be connected at all has failed before the first attempt.
        let refused = match &target.verification {
            Verification::Refused(failure) => Some(failure),
            _ => None,
        };
        let failure = last.map_or(refused, |report| report.failure.as_ref());
        let state = match (last, failure) {
            (_, Some(_)) => State::Down,
            (Some(_), None) => State::Up,
            (None, None) => State::Unknown,
        };
        let lack = last.and_then(|report| report.lack.as_ref());
        Self { state, last, failure, lack, verification: &target.verification }
    }

    /// What there is to complain about.
    pub(super) fn complaint(&self) -> Option<&'a Failure> {
        self.failure.or(self.lack)
    }

    /// The verified peer of the last scrape.
    pub(super) fn peer(&self) -> Option<&'a PeerReport> {
        self.last.and_then(|report| report.peer.as_ref())
    }

    /// Who must answer; empty where no identity is expected.
    pub(super) fn expected(&self) -> String {
        match self.verification {
            Verification::Spiffe(peer) => peer.to_string(),
            Verification::Refused(failure) => failure.expected.clone().unwrap_or_default(),
            Verification::HostName | Verification::None => String::new(),
        }
    }

    /// The identities that are accepted and how much of one must agree; `None` where no identity is expected.
    pub(super) fn wanted(&self) -> Option<&'a Peer> {
        match self.verification {
            Verification::Spiffe(peer) => Some(peer),
            Verification::Refused(_) | Verification::HostName | Verification::None => None,
        }
    }

    /// Whether nobody may answer, because it is not known who must.
    pub(super) fn refused(&self) -> bool {
        matches!(self.verification, Verification::Refused(_))
    }

    /// Who answered; empty where nobody did or nobody was asked who he is.
    pub(super) fn presented(&self) -> &'a str {
        let refused = self.failure.and_then(|failure| failure.presented.as_deref());
        refused.or_else(|| self.peer().map(|peer| peer.identity.as_str())).unwrap_or_default()
    }
}
