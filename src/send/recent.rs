//! How many samples a receiver took within the last minute: a ring of counts, for the status page.
//!
//! It goes by the time that only moves forward, and holds sixteen numbers whatever happens.

use std::time::Duration;

use tokio::time::Instant;

/// The length of one count.
const SLOT: Duration = Duration::from_secs(5);
/// How many of them make a minute.
const SLOTS: usize = 12;

/// Samples by the time at which the receiver took them.
#[derive(Clone, Debug, Default)]
pub(super) struct Recent {
    /// When the first slot began.
    began: Option<Instant>,
    /// The samples of each slot; slot `n` since the beginning is at `n % SLOTS`.
    samples: [u64; SLOTS],
    /// The slot that was counted in last.
    newest: u64,
}

impl Recent {
    /// The receiver took these now.
    pub(super) fn add(&mut self, samples: u64, now: Instant) {
        let began = *self.began.get_or_insert(now);
        let slot = self.slot(began, now);
        self.samples[slot] += samples;
    }

    /// Samples a second over the last minute, or since the first of them where that is shorter.
    pub(super) fn per_second(&mut self, now: Instant) -> f64 {
        let Some(began) = self.began else { return 0.0 };
        self.slot(began, now);
        let span = now.duration_since(began).clamp(SLOT, SLOT * SLOTS as u32);
        self.samples.iter().sum::<u64>() as f64 / span.as_secs_f64()
    }

    /// The place of the slot of `now`; those that have passed since the last time are emptied.
    fn slot(&mut self, began: Instant, now: Instant) -> usize {
        let at = now.duration_since(began).as_secs() / SLOT.as_secs();
        for passed in (self.newest + 1..=at).take(SLOTS) {
            self.samples[(passed % SLOTS as u64) as usize] = 0;
        }
        self.newest = self.newest.max(at);
        (at % SLOTS as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_of_the_last_minute_and_ends_with_it() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut recent = Recent::default();
        assert_eq!(recent.per_second(at(0)), 0.0);
        recent.add(500, at(0));
        assert_eq!(recent.per_second(at(0)), 100.0, "of the first five seconds");
        assert_eq!(recent.per_second(at(10)), 50.0);
        for seconds in 1..=100 {
            recent.add(60, at(seconds));
        }
        let rate = recent.per_second(at(100));
        assert!((55.0..=60.0).contains(&rate), "{rate}");
        assert_eq!(recent.per_second(at(1_000)), 0.0, "nothing was taken for long");
        recent.add(600, at(1_001));
        assert_eq!(recent.per_second(at(1_001)), 10.0);
    }
}
