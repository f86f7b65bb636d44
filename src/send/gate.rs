//! Whether the receiver may be asked now: one pause for all requests to it.
//!
//! ```text
//! open ──a request fails──▶ closed for a pause ──it is over──▶ one request probes ──it is answered──▶ open
//!                                  ▲                                   │
//!                                  └────────────it fails───────────────┘
//! ```
//!
//! What always holds: a receiver in trouble gets one request at a time, with pauses between them that do not shrink; those
//! that wait take turns, so that one which fails for its own sake keeps no other from being tried. A request that was sent
//! before a pause began neither lengthens it by failing nor ends it.
//!
//! It does not know what is in a request.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::backoff::{Backoff, LONGEST_ASKED, Pauses};

/// What all requests to one receiver pass.
pub(super) struct Gate {
    policy: Backoff,
    state: Mutex<State>,
    /// Held by the request that probes; the others queue up for it in order.
    turn: tokio::sync::Mutex<()>,
}

struct State {
    /// Counts how often it was opened and closed, and each pause anew.
    epoch: u64,
    /// `None`: it is open.
    closed: Option<Closed>,
}

struct Closed {
    until: Instant,
    pauses: Pauses,
}

/// Leave to send one request.
pub(super) struct Pass<'g> {
    epoch: u64,
    _turn: Option<tokio::sync::MutexGuard<'g, ()>>,
}

impl Gate {
    /// Open.
    pub(super) fn new(policy: Backoff) -> Self {
        Self { policy, state: Mutex::new(State { epoch: 0, closed: None }), turn: tokio::sync::Mutex::default() }
    }

    /// Waits until a request may be sent.
    pub(super) async fn enter(&self) -> Pass<'_> {
        let (epoch, until) = self.look();
        if until.is_none() {
            return Pass { epoch, _turn: None };
        }
        let turn = self.turn.lock().await;
        loop {
            match self.look() {
                (epoch, None) => return Pass { epoch, _turn: None },
                (epoch, Some(until)) if until <= Instant::now() => return Pass { epoch, _turn: Some(turn) },
                // It may have been put off meanwhile.
                (_, Some(until)) => sleep_until(until).await,
            }
        }
    }

    /// The same if there is nothing to wait for; else `None`.
    pub(super) fn try_enter(&self) -> Option<Pass<'_>> {
        if let (epoch, None) = self.look() {
            return Some(Pass { epoch, _turn: None });
        }
        let turn = self.turn.try_lock().ok()?;
        match self.look() {
            (epoch, None) => Some(Pass { epoch, _turn: None }),
            (epoch, Some(until)) if until <= Instant::now() => Some(Pass { epoch, _turn: Some(turn) }),
            _ => None,
        }
    }

    /// When its pause ends, or has ended without a request that was answered since; `None` if it is open.
    pub(super) fn closed_until(&self) -> Option<Instant> {
        self.look().1
    }

    /// Whether a request would not have to wait.
    pub(super) fn is_open(&self) -> bool {
        self.state().closed.is_none()
    }

    /// The request was answered for good.
    pub(super) fn answered(&self, pass: Pass<'_>) {
        let mut state = self.state();
        if pass.epoch == state.epoch && state.closed.take().is_some() {
            state.epoch += 1;
        }
    }

    /// The request has to be sent again; `asked` is the pause that the receiver wants. Gives how long the pause still is.
    pub(super) fn failed(&self, pass: Pass<'_>, asked: Option<Duration>) -> Duration {
        let now = Instant::now();
        let mut state = self.state();
        if pass.epoch == state.epoch {
            state.epoch += 1;
            let mut pauses = state.closed.take().map_or_else(|| self.policy.pauses(), |closed| closed.pauses);
            let until = now + pauses.next(asked);
            state.closed = Some(Closed { until, pauses });
        } else if let (Some(closed), Some(asked)) = (&mut state.closed, asked) {
            closed.until = closed.until.max(now + asked.min(LONGEST_ASKED));
        }
        state.closed.as_ref().map_or(Duration::ZERO, |closed| closed.until.saturating_duration_since(now))
    }

    fn look(&self) -> (u64, Option<Instant>) {
        let state = self.state();
        (state.epoch, state.closed.as_ref().map(|closed| closed.until))
    }

    /// Nothing under this lock panics, so a poisoned state is a whole one.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn gate() -> Gate {
        Gate::new(Backoff::new(100 * MS, 100 * MS).expect("in order"))
    }

    async fn passes(gate: &Gate, within: Duration) -> Option<Pass<'_>> {
        tokio::time::timeout(within, gate.enter()).await.ok()
    }

    #[tokio::test(start_paused = true)]
    async fn one_failure_pauses_all_and_one_request_probes() {
        let gate = gate();
        let (first, second) = (gate.enter().await, gate.enter().await);
        assert_eq!(gate.failed(first, None), 100 * MS);
        assert!(passes(&gate, 99 * MS).await.is_none());
        let pause = gate.failed(second, None);
        assert!(pause <= MS, "sent before the pause began: {pause:?}");

        let probe = passes(&gate, 2 * MS).await.expect("the pause is over");
        assert!(passes(&gate, 1_000 * MS).await.is_none(), "one probes at a time");
        gate.answered(probe);
        let all = [passes(&gate, MS).await, passes(&gate, MS).await];
        assert!(all.iter().all(Option::is_some) && gate.is_open());
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_wait_is_let_in_as_the_others_are() {
        let gate = gate();
        gate.failed(gate.try_enter().expect("it is open"), None);
        let until = gate.closed_until().expect("it is closed");
        assert!(gate.try_enter().is_none());
        tokio::time::sleep_until(until).await;
        let probe = gate.try_enter().expect("the pause is over");
        assert!(gate.try_enter().is_none(), "one probes at a time");
        gate.answered(probe);
        assert!(gate.try_enter().is_some() && gate.closed_until().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn those_that_wait_take_turns() {
        let gate = gate();
        gate.failed(gate.enter().await, None);
        let mut others = std::pin::pin!(gate.enter());
        let probe = gate.enter().await;
        assert!(tokio::time::timeout(MS, &mut others).await.is_err());
        gate.failed(probe, None);
        let again = gate.enter();
        let start = Instant::now();
        let other = tokio::select! {
            biased;
            _ = again => panic!("it had its turn"),
            other = others => other,
        };
        assert!(start.elapsed() >= 99 * MS);
        gate.answered(other);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_to_a_request_from_before_the_pause_does_not_end_it() {
        let gate = gate();
        let (first, second) = (gate.enter().await, gate.enter().await);
        gate.failed(first, None);
        gate.answered(second);
        assert!(!gate.is_open());
    }

    #[tokio::test(start_paused = true)]
    async fn every_request_can_ask_for_a_longer_pause_within_reason() {
        let gate = gate();
        let (first, second, third) = (gate.enter().await, gate.enter().await, gate.enter().await);
        gate.failed(first, None);
        assert_eq!(gate.failed(second, Some(3_000 * MS)), 3_000 * MS);
        assert!(passes(&gate, 2_999 * MS).await.is_none());
        assert_eq!(gate.failed(third, Some(Duration::from_secs(1 << 40))), LONGEST_ASKED);
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_is_cut_off_leaves_its_turn_to_the_next() {
        let gate = gate();
        gate.failed(gate.enter().await, None);
        drop(gate.enter().await);
        assert!(passes(&gate, MS).await.is_some());
    }
}
