//! How many requests would have to be under way for a receiver to keep up, estimated as Prometheus does.
//!
//! Every ten seconds: the time that a sample takes in requests, times the samples that come in a second and a twentieth of
//! those that wait. Rates are smoothed, so that one scrape more or less does not show. A receiver that has taken nothing
//! since the last time says nothing about the time it takes: then the estimate stays.

use std::time::Duration;

/// How often the estimate is made.
pub(super) const EVERY: Duration = Duration::from_secs(10);

/// How much the newest rate counts against those before it.
const WEIGHT: f64 = 0.2;

/// The part of what waits that is to be sent each second, beside what comes in.
const CATCH_UP: f64 = 0.05;

/// Everything since the start.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Work {
    /// Samples that were delivered.
    pub(super) samples: u64,
    /// The time that all requests took together.
    pub(super) busy: Duration,
}

/// The estimate of one receiver.
#[derive(Debug, Default)]
pub(super) struct Demand {
    last: Work,
    pending: u64,
    /// Samples a second that came in and went out, and seconds of requests a second; none yet.
    rates: Option<[f64; 3]>,
}

impl Demand {
    /// After [`EVERY`]: so much was done in all, and so many samples wait or are on their way. `None` if nothing is known.
    pub(super) fn estimate(&mut self, work: Work, pending: u64) -> Option<f64> {
        let out = work.samples.saturating_sub(self.last.samples);
        // What was dropped meanwhile is missing here: then there is more to worry about than an estimate.
        let came = (out + pending).saturating_sub(self.pending);
        let busy = work.busy.saturating_sub(self.last.busy);
        (self.last, self.pending) = (work, pending);
        let seconds = EVERY.as_secs_f64();
        let now = [came as f64 / seconds, out as f64 / seconds, busy.as_secs_f64() / seconds];
        let before = self.rates.unwrap_or(now);
        let [came, sent, busy] = [0, 1, 2].map(|at| before[at] + WEIGHT * (now[at] - before[at]));
        self.rates = Some([came, sent, busy]);
        (out > 0 && sent > 0.0).then(|| busy / sent * (came + CATCH_UP * pending as f64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten seconds after ten seconds, with so many samples out in each, each of which takes a millisecond.
    fn estimates(steps: &[(u64, u64)]) -> Vec<Option<u64>> {
        let (mut demand, mut work) = (Demand::default(), Work::default());
        let mut estimate = |(out, pending): (u64, u64)| {
            work.samples += out;
            work.busy += Duration::from_millis(out);
            Some(demand.estimate(work, pending)?.round() as u64)
        };
        steps.iter().map(|step| estimate(*step)).collect()
    }

    #[test]
    fn who_keeps_up_needs_what_is_used() {
        // 2,000 samples a second of a millisecond each.
        assert_eq!(estimates(&[(20_000, 0), (20_000, 0), (20_000, 0)]), [Some(2); 3]);
    }

    #[test]
    fn who_falls_behind_needs_more() {
        // As many again are left over each time: in the end both rates and a twentieth of what waits.
        let steps: Vec<_> = (1..=30).map(|n| (20_000, 20_000 * n)).collect();
        let all = estimates(&steps);
        assert!(all.is_sorted() && all[0] >= Some(4), "{all:?}");
        assert_eq!(all[29], Some(4 + 30), "{all:?}");
    }

    #[test]
    fn nothing_is_said_while_nothing_is_answered() {
        assert_eq!(estimates(&[(0, 0), (0, 10_000), (10_000, 0)])[..2], [None, None]);
    }
}
