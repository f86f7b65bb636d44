//! How many samples a second a receiver is sent at most, over all requests.
//!
//! Each request is let through when the ones before it have had their time: so the rate is smooth, and a request may be of
//! any size. Time in which nothing was sent is not saved up, and nothing is set aside for a request that does not go now:
//! whoever waits for another reason, or gives up, takes nothing from the others.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The bound of one receiver.
pub(super) struct Rate {
    /// 0: none.
    samples_per_second: u64,
    /// When the requests that were let through have had their time.
    free_from: Mutex<Instant>,
}

impl Rate {
    /// At most so many; 0 is no bound.
    pub(super) fn new(samples_per_second: u64) -> Self {
        Self { samples_per_second, free_from: Mutex::new(Instant::now()) }
    }

    /// Lets a request with so many samples through now; else it is to be tried again at that time.
    pub(super) fn take(&self, samples: u64) -> Result<(), Instant> {
        if self.samples_per_second == 0 {
            return Ok(());
        }
        let time = Duration::from_secs_f64(samples as f64 / self.samples_per_second as f64);
        let (mut free_from, now) = (self.free_from.lock().unwrap_or_else(PoisonError::into_inner), Instant::now());
        if *free_from > now {
            return Err(*free_from);
        }
        *free_from = now + time;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn waits(rate: &Rate, samples: u64) {
        while let Err(until) = rate.take(samples) {
            tokio::time::sleep_until(until).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn over_any_time_there_is_no_more_than_one_request_above_the_rate() {
        let (rate, start) = (Rate::new(1_000), Instant::now());
        for request in 0..10u32 {
            waits(&rate, 500).await;
            assert_eq!(start.elapsed(), request * Duration::from_millis(500));
        }
        tokio::time::advance(Duration::from_secs(3600)).await;
        let start = Instant::now();
        waits(&rate, 500).await;
        assert!(rate.take(500).is_err(), "and who is not let through takes nothing from the others");
        waits(&rate, 500).await;
        assert_eq!(start.elapsed(), Duration::from_millis(500), "an idle hour is not saved up");
    }

    #[tokio::test(start_paused = true)]
    async fn none_is_none() {
        let (rate, start) = (Rate::new(0), Instant::now());
        for _ in 0..10 {
            waits(&rate, u64::MAX).await;
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
    }
}
