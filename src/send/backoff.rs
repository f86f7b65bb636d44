//! How long to wait before a request is tried again.
//!
//! Each pause is one and a half to two and a half times the one before, up to a maximum: never shorter than the last,
//! and different on every node, so that thousands of agents do not come back in step. A receiver that asks for a pause
//! gets at least that, within reason.

use std::time::Duration;

use thiserror::Error;

/// The longest pause that a receiver can ask for.
pub(super) const LONGEST_ASKED: Duration = Duration::from_secs(5 * 60);

/// What is added at most to a pause that the receiver asked for, as a part of it: it told all of us the same.
const SPREAD: f64 = 0.1;

/// A rule for pauses; one that exists makes sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    min: Duration,
    max: Duration,
}

/// Why there is no such rule.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum BackoffError {
    /// A receiver that is down would be asked without pause.
    #[error("min_backoff is 0, it must be longer: 30ms is usual")]
    Zero,
    /// The first pause would be longer than the longest.
    #[error("min_backoff ({min:?}) is longer than max_backoff ({max:?}): raise max_backoff")]
    Reversed {
        /// The first pause.
        min: Duration,
        /// The longest pause.
        max: Duration,
    },
}

impl Backoff {
    /// Pauses from `min` to `max`.
    pub fn new(min: Duration, max: Duration) -> Result<Self, BackoffError> {
        if min.is_zero() {
            return Err(BackoffError::Zero);
        }
        if min > max {
            return Err(BackoffError::Reversed { min, max });
        }
        Ok(Self { min, max })
    }

    /// The pauses of one request, from the first.
    pub fn pauses(self) -> Pauses {
        Pauses { policy: self, last: None }
    }
}

/// The pauses of one request that is tried again and again.
#[derive(Debug)]
pub struct Pauses {
    policy: Backoff,
    last: Option<Duration>,
}

impl Pauses {
    /// The next pause; `asked` is what the receiver wants, of which no more than five minutes count. Afterwards the
    /// pauses go on from there, within the rule.
    pub fn next(&mut self, asked: Option<Duration>) -> Duration {
        let Backoff { min, max } = self.policy;
        let own = match self.last {
            None => min.mul_f64(rand::random_range(1.0..2.0)),
            Some(last) => last.mul_f64(rand::random_range(1.5..2.5)),
        };
        let own = own.min(max);
        let pause = match asked.map(|asked| asked.min(LONGEST_ASKED)) {
            Some(asked) if asked >= own => asked.mul_f64(rand::random_range(1.0..1.0 + SPREAD)).min(LONGEST_ASKED),
            _ => own,
        };
        self.last = Some(pause.min(max));
        pause
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_rule_that_makes_no_sense_is_none() {
        assert_eq!(Backoff::new(Duration::ZERO, MS), Err(BackoffError::Zero));
        assert_eq!(Backoff::new(2 * MS, MS), Err(BackoffError::Reversed { min: 2 * MS, max: MS }));
        assert!(Backoff::new(MS, MS).is_ok());
    }

    proptest! {
        #[test]
        fn pauses_grow_to_the_maximum_and_never_shrink(min in 1..1_000u64, more in 0..60_000u64) {
            let (min, max) = (Duration::from_millis(min), Duration::from_millis(min + more));
            let mut pauses = Backoff::new(min, max).expect("in order").pauses();
            let all: Vec<_> = (0..40).map(|_| pauses.next(None)).collect();
            prop_assert!(all.is_sorted(), "{all:?}");
            prop_assert!(all[0] >= min);
            prop_assert_eq!(all[39], max);
        }

        #[test]
        fn the_receiver_is_obeyed_within_reason(asked in 0..u64::MAX / 2, before in 0..5usize) {
            let asked = Duration::from_secs(asked);
            let mut pauses = Backoff::new(30 * MS, 5_000 * MS).expect("in order").pauses();
            let last = (0..before).map(|_| pauses.next(None)).last().unwrap_or(30 * MS);
            let pause = pauses.next(Some(asked));
            prop_assert!(pause >= asked.min(LONGEST_ASKED));
            prop_assert!(pause >= last, "a receiver cannot hurry us");
            prop_assert!(pause <= LONGEST_ASKED);
            prop_assert!(pauses.next(None) <= 5_000 * MS, "and then the rule holds again");
        }
    }

    #[test]
    fn two_agents_do_not_come_back_in_step() {
        let policy = Backoff::new(30 * MS, 5_000 * MS).expect("in order");
        let one_by_one = || {
            let mut pauses = policy.pauses();
            (0..5).map(|_| pauses.next(None)).collect::<Vec<_>>()
        };
        assert_ne!(one_by_one(), one_by_one());
    }
}
