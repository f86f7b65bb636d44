//! When a target is scraped.
//!
//! The first scrape comes after a delay that depends on the target and on this agent, so that load is spread over the
//! interval and stays where it was over restarts; then a fixed beat. A slow scrape does not queue further ones: missed
//! beats are skipped. Samples get the time of the beat if the scrape starts close to it, so that timestamps of one target
//! are exact multiples apart and compress well.

use std::hash::Hasher;
use std::time::Duration;

use tokio::time::Instant;

use crate::model::TargetId;

/// A scrape that starts this little after its beat is stamped with the beat (the smaller of this and a hundredth of the
/// interval).
const TOLERANCE: Duration = Duration::from_millis(2);

/// The beat of one target.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    interval: Duration,
    next: Instant,
    /// The wall time that belongs to `next`, milliseconds since the Unix epoch.
    next_ms: i64,
}

impl Schedule {
    /// The beat of `target` from now on; `seed` tells this agent from others that scrape the same target.
    pub(super) fn new(interval: Duration, target: TargetId, seed: u64, now_ms: i64) -> Self {
        let delay = first_delay(interval, target, seed, now_ms);
        Self { interval, next: Instant::now() + delay, next_ms: now_ms.saturating_add(millis(delay)) }
    }

    /// The moment of the next beat.
    pub(super) fn next(&self) -> Instant {
        self.next
    }

    /// Passes the beat that has come, and returns the timestamp for a scrape that starts now, at `now_ms`.
    pub(super) fn begin(&mut self, now_ms: i64) -> i64 {
        let late = Instant::now().saturating_duration_since(self.next);
        let late_ms = millis(late);
        // The steady clock says how late we are; the wall clock may have been set meanwhile, then its beat moves along.
        if now_ms.saturating_sub(self.next_ms.saturating_add(late_ms)).abs() > millis(TOLERANCE) {
            self.next_ms = now_ms.saturating_sub(late_ms);
        }
        // In whole milliseconds: the timer itself rounds up to the next one.
        let punctual = late_ms <= millis(TOLERANCE.min(self.interval / 100));
        let stamp = if punctual { self.next_ms } else { now_ms };

        let missed = u32::try_from(late.as_nanos() / self.interval.as_nanos().max(1)).unwrap_or(u32::MAX);
        let step = self.interval.saturating_mul(missed.saturating_add(1));
        self.next += step;
        self.next_ms = self.next_ms.saturating_add(millis(step));
        stamp
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// A delay in `(0, interval]`: the same wall-clock phase for the same target and agent after every restart.
fn first_delay(interval: Duration, target: TargetId, seed: u64, now_ms: i64) -> Duration {
    let interval_ns = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX).max(1);
    let now_ns = u64::try_from(now_ms).unwrap_or_default().wrapping_mul(1_000_000);
    let base = interval_ns - now_ns % interval_ns;
    let offset = (mix(target.0) ^ seed) % interval_ns;
    let delay = base + offset;
    Duration::from_nanos(if delay > interval_ns { delay - interval_ns } else { delay })
}

/// FNV-1a over the bytes: spreads ids that differ little over the whole interval.
fn mix(id: u64) -> u64 {
    let mut hash = Fnv(0xcbf2_9ce4_8422_2325);
    hash.write(&id.to_be_bytes());
    hash.finish()
}

/// FNV-1a, 64 bit: the same value in every process and version, unlike the standard library's hasher.
pub(super) struct Fnv(pub(super) u64);

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// What tells this agent from others: a hash of its host name and external labels.
pub(super) fn seed(host: &str, external: &crate::model::Labels) -> u64 {
    let mut hash = Fnv(0xcbf2_9ce4_8422_2325);
    hash.write(host.as_bytes());
    hash.write(external.to_string().as_bytes());
    hash.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn phases_are_spread_and_stay_put() {
        let interval = 10 * SECOND;
        let phase = |id: u64, now_ms: i64| {
            let delay = first_delay(interval, TargetId(id), 7, now_ms);
            assert!(delay > Duration::ZERO && delay <= interval, "{delay:?}");
            (now_ms as u128 * 1_000_000 + delay.as_nanos()) % interval.as_nanos()
        };
        let mut tenths = [0; 10];
        for id in 0..1000 {
            assert_eq!(phase(id, 1_700_000_000_123), phase(id, 1_700_000_777_999), "phase of {id} moved");
            tenths[(phase(id, 0) / SECOND.as_nanos()) as usize] += 1;
        }
        assert!(tenths.iter().all(|&n| n > 60), "{tenths:?}");
        assert_ne!(first_delay(interval, TargetId(1), 7, 0), first_delay(interval, TargetId(1), 8, 0));
    }

    /// Waits until `late` after the next beat.
    async fn come(schedule: &Schedule, late: Duration) {
        tokio::time::sleep_until(schedule.next() + late).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_punctual_scrape_is_stamped_with_its_beat() {
        let mut schedule = Schedule::new(10 * SECOND, TargetId(1), 0, 1_000_000);
        let beat = schedule.next_ms;
        come(&schedule, Duration::from_millis(2)).await;
        assert_eq!(schedule.begin(beat + 2), beat);
        come(&schedule, Duration::from_millis(1)).await;
        assert_eq!(schedule.begin(beat + 10_002), beat + 10_000, "milliseconds are cut on both clocks");
        come(&schedule, Duration::from_millis(3)).await;
        assert_eq!(schedule.begin(beat + 20_003), beat + 20_003, "3 ms late is late");
        come(&schedule, Duration::ZERO).await;
        assert_eq!(schedule.begin(beat + 30_000), beat + 30_000);
    }

    #[tokio::test(start_paused = true)]
    async fn missed_beats_are_skipped() {
        let mut schedule = Schedule::new(10 * SECOND, TargetId(1), 0, 1_000_000);
        let first = schedule.next();
        let beat = schedule.next_ms;
        tokio::time::sleep_until(first + 35 * SECOND).await;
        assert_eq!(schedule.begin(beat + 35_000), beat + 35_000);
        assert_eq!(schedule.next(), first + 40 * SECOND);
        tokio::time::sleep_until(schedule.next()).await;
        assert_eq!(schedule.begin(beat + 40_000), beat + 40_000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wall_clock_that_was_set_is_followed_at_once() {
        for step in [3_600_000, 500, -500, -3_600_000] {
            let mut schedule = Schedule::new(10 * SECOND, TargetId(1), 0, 10_000_000);
            let beat = schedule.next_ms + step;
            come(&schedule, Duration::ZERO).await;
            assert_eq!(schedule.begin(beat), beat, "{step}");
            come(&schedule, Duration::from_millis(1)).await;
            assert_eq!(schedule.begin(beat + 10_001), beat + 10_000, "{step}: on the new beat from then on");
        }
    }
}
