//! The only reader of wall time.
//!
//! Waiting is tokio's business (tests pause it); this module answers "what time is it" for timestamps and certificate
//! validity. Every room that judges time is handed a [`Clock`], so that a test can move it. Elsewhere `SystemTime::now`
//! is forbidden by `.clippy.toml`.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A reader of wall time; cheap to clone, all clones agree.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    /// Milliseconds added to the system's time; zero outside tests.
    shift_ms: Arc<AtomicI64>,
}

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self::default()
    }

    /// The wall time now.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads wall time")]
    pub fn now(&self) -> SystemTime {
        let now = SystemTime::now();
        let shift = self.shift_ms.load(Ordering::Relaxed);
        let distance = Duration::from_millis(shift.unsigned_abs());
        if shift >= 0 { now + distance } else { now - distance }
    }

    /// The wall time now, in milliseconds since the Unix epoch; what a sample's timestamp is made of.
    pub fn now_ms(&self) -> i64 {
        unix_ms(self.now())
    }

    /// Moves this clock and all its clones by `by_ms` milliseconds, forwards or backwards; certificates expire and
    /// timestamps move without anyone waiting.
    pub fn shift(&self, by_ms: i64) {
        self.shift_ms.fetch_add(by_ms, Ordering::Relaxed);
    }
}

/// Milliseconds since the Unix epoch; negative before it, saturating at the ends of `i64`.
pub fn unix_ms(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_millis()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |ms| -ms),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_move_together() {
        let clock = Clock::system();
        let other = clock.clone();
        let before = other.now_ms();
        clock.shift(3_600_000);
        assert!(other.now_ms() - before >= 3_600_000);
        clock.shift(-7_200_000);
        assert!(other.now_ms() < before);
    }

    #[test]
    fn times_before_the_epoch_are_negative() {
        assert_eq!(unix_ms(UNIX_EPOCH - Duration::from_millis(5)), -5);
        assert_eq!(unix_ms(UNIX_EPOCH + Duration::from_millis(5)), 5);
    }
}
