//! How many samples a second a receiver is sent at most, over all requests.
//!
//! Each request is let through when the ones before it have had their time: so the rate is smooth, and a request may be of
//! any size. Time in which nothing was sent is not saved up.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

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

    /// Waits until a request with so many samples may be sent.
    pub(super) async fn wait(&self, samples: u64) {
        if self.samples_per_second == 0 {
            return;
        }
        let time = Duration::from_secs_f64(samples as f64 / self.samples_per_second as f64);
        let at = {
            let mut free_from = self.free_from.lock().unwrap_or_else(PoisonError::into_inner);
            let at = (*free_from).max(Instant::now());
            *free_from = at + time;
            at
        };
        sleep_until(at).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn over_any_time_there_is_no_more_than_one_request_above_the_rate() {
        let (rate, start) = (Rate::new(1_000), Instant::now());
        for request in 0..10u32 {
            rate.wait(500).await;
            assert_eq!(start.elapsed(), request * Duration::from_millis(500));
        }
        tokio::time::advance(Duration::from_secs(3600)).await;
        let start = Instant::now();
        rate.wait(500).await;
        rate.wait(500).await;
        assert_eq!(start.elapsed(), Duration::from_millis(500), "an idle hour is not saved up");
    }

    #[tokio::test(start_paused = true)]
    async fn none_is_none() {
        let (rate, start) = (Rate::new(0), Instant::now());
        for _ in 0..10 {
            rate.wait(u64::MAX).await;
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
    }
}
