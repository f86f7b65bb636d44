//! What became of the last changes of the files: the newest sixteen, for people.
//!
//! A rotation writes several files one after the other, so that between two of them the set does not fit together. What
//! was refused so and taken within a moment is no event, and leaves no trace here.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

/// How many events are remembered.
const KEPT: usize = 16;
/// Within which a refusal belongs to the rotation that is under way.
const MOMENT: Duration = Duration::from_secs(2);

/// What happened when the files had changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reload {
    /// When.
    pub at: SystemTime,
    /// What.
    pub outcome: Outcome,
}

/// What became of changed files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// They are in use.
    Taken {
        /// The generation of the credentials that they made.
        generation: u64,
        /// Whether our own certificate is another one.
        own: bool,
        /// Whether the roots are others.
        roots: bool,
    },
    /// They were refused, in whole or in part, for this; the last good ones stayed in use.
    Refused(String),
}

/// The newest events, newest first.
#[derive(Clone, Debug, Default)]
pub(super) struct History(VecDeque<Reload>);

impl History {
    /// Changed files were taken.
    pub(super) fn taken(&mut self, at: SystemTime, outcome: Outcome) {
        while let Some(last) = self.0.front()
            && matches!(last.outcome, Outcome::Refused(_))
            && at.duration_since(last.at).is_ok_and(|since| since < MOMENT)
        {
            self.0.pop_front();
        }
        self.push(Reload { at, outcome });
    }

    /// Changed files were refused; the same again is no news.
    pub(super) fn refused(&mut self, at: SystemTime, why: String) {
        let outcome = Outcome::Refused(why);
        if self.0.front().is_none_or(|last| last.outcome != outcome) {
            self.push(Reload { at, outcome });
        }
    }

    /// All of them.
    pub(super) fn events(&self) -> impl Iterator<Item = &Reload> {
        self.0.iter()
    }

    fn push(&mut self, reload: Reload) {
        self.0.truncate(KEPT - 1);
        self.0.push_front(reload);
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn at(millis: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(millis)
    }

    fn taken(generation: u64) -> Outcome {
        Outcome::Taken { generation, own: true, roots: false }
    }

    fn seen(history: &History) -> Vec<Outcome> {
        history.events().map(|reload| reload.outcome.clone()).collect()
    }

    #[test]
    fn a_rotation_that_is_half_written_for_a_moment_is_one_event() {
        let mut history = History::default();
        history.taken(at(0), taken(1));
        history.refused(at(10_000), "the key does not fit".to_owned());
        history.refused(at(10_100), "the key does not fit".to_owned());
        history.taken(at(10_200), taken(2));
        assert_eq!(seen(&history), [taken(2), taken(1)]);
        history.refused(at(20_000), "no certificate".to_owned());
        history.refused(at(20_500), "no certificate".to_owned());
        history.taken(at(25_000), taken(3));
        assert_eq!(seen(&history), [taken(3), Outcome::Refused("no certificate".to_owned()), taken(2), taken(1)]);
    }

    #[test]
    fn the_newest_are_kept() {
        let mut history = History::default();
        (1..=100).for_each(|generation| history.taken(at(generation * 10_000), taken(generation)));
        let seen = seen(&history);
        assert_eq!((seen.len(), &seen[0], &seen[15]), (16, &taken(100), &taken(85)));
    }
}
