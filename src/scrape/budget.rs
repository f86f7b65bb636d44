//! The memory that all scrapes under way may take together.
//!
//! What a scrape has gathered is held until the whole answer proved good, so many targets that answer much at one time
//! could take more than the process may have, though none of them goes beyond its own limits. Each scrape tells what it
//! holds; where that is too much in sum, the one that holds most fails, and the others go on.
//!
//! What always holds: the sum of what is told and not given back is over the limit only while a scrape that was chosen to
//! fail comes to its end; a scrape that ends in whatever way gives back all that it held. What counts is what is held
//! between two parts of an answer; what a target's series take once the scrape is
//! over is not counted here but bounded for each target by itself; what reading one part takes besides is bounded by the ceilings of one entry, for as
//! many answers as there are threads.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::metrics::gauge::Gauge;
use tokio_util::sync::CancellationToken;

use crate::model::{Failure, Reason};

/// A change of so many bytes is not worth telling.
const GRAIN_BYTES: u64 = 64 * 1024;

/// The memory of all scrapes; clones are the same one.
#[derive(Clone)]
pub struct Budget {
    state: Arc<Mutex<State>>,
}

struct State {
    limit: u64,
    /// What all of `holders` hold together.
    sum: u64,
    holders: HashMap<u64, Holder>,
    next: u64,
    shown: Gauge,
}

/// A scrape under way that may go on.
struct Holder {
    bytes: u64,
    /// Cancelled once it may not.
    refused: CancellationToken,
}

impl Budget {
    /// A budget of `limit` bytes, which shows in `shown` how many of them are held.
    pub(super) fn new(limit: u64, shown: Gauge) -> Self {
        let state = State { limit, sum: 0, holders: HashMap::new(), next: 0, shown };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// For a process that makes one scrape and ends.
    pub fn unlimited() -> Self {
        Self::new(u64::MAX, Gauge::default())
    }

    /// Another limit, which what is held now may go beyond until somebody holds more.
    pub(super) fn set_limit(&self, limit: u64) {
        self.state().limit = limit;
    }

    /// The share of a scrape that begins.
    pub fn share(&self) -> Share {
        Share { budget: self.clone(), number: None, told: 0, refused: CancellationToken::new() }
    }

    /// Nothing under this lock panics, so a poisoned state is a whole one.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Refuses whoever holds most until the rest is within the limit.
    fn settle(&mut self) {
        while self.sum > self.limit {
            let largest = self.holders.iter().max_by_key(|(number, holder)| (holder.bytes, **number));
            let Some(number) = largest.map(|(number, _)| *number) else { break };
            if let Some(holder) = self.remove(number) {
                holder.refused.cancel();
            }
        }
        self.show();
    }

    fn remove(&mut self, number: u64) -> Option<Holder> {
        let holder = self.holders.remove(&number)?;
        self.sum -= holder.bytes;
        Some(holder)
    }

    fn show(&self) {
        self.shown.set(i64::try_from(self.sum).unwrap_or(i64::MAX));
    }
}

/// What one scrape holds of a [`Budget`]. Dropped, it gives all back.
pub struct Share {
    budget: Budget,
    /// Its number among the holders, from the first time on that it holds enough to be told.
    number: Option<u64>,
    told: u64,
    refused: CancellationToken,
}

impl Share {
    /// Tells that the scrape holds so many bytes now.
    ///
    /// # Errors
    /// If that is too much together with all the others, and this scrape holds the most; also if it was refused before.
    pub(super) fn hold(&mut self, bytes: u64) -> Result<(), Failure> {
        if bytes.abs_diff(self.told) >= GRAIN_BYTES {
            let mut state = self.budget.state();
            let number = self.number.unwrap_or_else(|| {
                state.next += 1;
                let number = state.next;
                state.holders.insert(number, Holder { bytes: 0, refused: self.refused.clone() });
                number
            });
            self.number = Some(number);
            self.told = bytes;
            if let Some(holder) = state.holders.get_mut(&number) {
                let before = std::mem::replace(&mut holder.bytes, bytes);
                state.sum = state.sum - before + bytes;
                state.settle();
            }
        }
        if self.refused.is_cancelled() { Err(self.failure()) } else { Ok(()) }
    }

    /// Waits until the scrape may not go on; for ever, if it may.
    pub(super) async fn refused(&self) -> Failure {
        self.refused.cancelled().await;
        self.failure()
    }

    fn failure(&self) -> Failure {
        let limit = self.budget.state().limit;
        let detail = format!(
            "all scrapes under way together held more than the {limit} bytes of scrape_memory_limit, and this one the most, {} bytes",
            self.told
        );
        Failure::new(Reason::MemoryBudget, detail)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            let mut state = self.budget.state();
            state.remove(number);
            state.show();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn held(budget: &Budget) -> u64 {
        let state = budget.state();
        assert_eq!(state.sum, state.holders.values().map(|holder| holder.bytes).sum::<u64>());
        assert_eq!(state.shown.get(), i64::try_from(state.sum).expect("small"));
        state.sum
    }

    #[tokio::test(start_paused = true)]
    async fn the_largest_fails_whoever_asks_and_the_others_go_on() {
        let budget = Budget::new(10 * MIB, Gauge::default());
        let (mut small, mut large) = (budget.share(), budget.share());
        large.hold(7 * MIB).expect("there is room");
        small.hold(3 * MIB).expect("it is just full");
        assert!(tokio::time::timeout(std::time::Duration::from_secs(1), large.refused()).await.is_err());
        small.hold(3 * MIB + GRAIN_BYTES).expect("another one holds more");
        let failure = large.refused().await;
        assert_eq!(failure.reason, Reason::MemoryBudget);
        assert!(failure.detail.contains("10485760") && failure.detail.contains("7340032"), "{}", failure.detail);
        assert!(large.hold(0).is_err(), "it stays refused");
        small.hold(9 * MIB).expect("the large one does not count any more");
        assert!(small.hold(11 * MIB).is_err(), "now it is the largest itself");
        assert_eq!(held(&budget), 0);
    }

    #[test]
    fn what_ends_gives_back_what_it_held() {
        let budget = Budget::new(10 * MIB, Gauge::default());
        let (mut one, mut other) = (budget.share(), budget.share());
        one.hold(5 * MIB).expect("there is room");
        other.hold(4 * MIB).expect("there is room");
        one.hold(2 * MIB).expect("less is never too much");
        assert_eq!(held(&budget), 6 * MIB);
        drop(one);
        assert_eq!(held(&budget), 4 * MIB);
        budget.set_limit(MIB);
        other.hold(4 * MIB).expect("nothing has changed");
        assert!(other.hold(5 * MIB).is_err());
        drop(other);
        assert_eq!(held(&budget), 0);
    }

    #[test]
    fn small_scrapes_are_not_worth_a_word() {
        let budget = Budget::new(0, Gauge::default());
        let mut share = budget.share();
        share.hold(GRAIN_BYTES - 1).expect("too little to count");
        assert!(share.hold(GRAIN_BYTES).is_err());
    }
}
