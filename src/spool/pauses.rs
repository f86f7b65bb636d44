//! What is left alone for a while because it failed: each kind of work for itself, so that a disk that takes nothing still
//! gives what it has, and the other way round.

use tokio::time::Instant;

/// What is tried, the worst to fail last.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Work {
    Tidy,
    Read,
    Write,
}

/// Which work is left alone for a while.
#[derive(Default)]
pub(super) struct Pauses {
    pub(super) write: Pause,
    pub(super) read: Pause,
    pub(super) tidy: Pause,
}

impl Pauses {
    pub(super) fn are_none(&self) -> bool {
        self.end().is_none()
    }

    /// When the first of them is over.
    pub(super) fn end(&self) -> Option<Instant> {
        [&self.write, &self.read, &self.tidy].into_iter().filter_map(|pause| pause.0).min()
    }
}

/// Until when, if at all.
#[derive(Default)]
pub(super) struct Pause(Option<Instant>);

impl Pause {
    /// Until then nothing is tried.
    pub(super) fn begin(&mut self, until: Instant) {
        self.0 = Some(until);
    }

    pub(super) fn is_none(&self) -> bool {
        self.0.is_none()
    }

    /// Ends it if its time is up; whether there is none any more.
    pub(super) fn is_over(&mut self, now: Instant) -> bool {
        self.0.take_if(|until| *until <= now);
        self.0.is_none()
    }
}
