//! How a receiver is doing, for people: counted by the task, asked for by the status page.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::recent::Recent;
use super::verdict::Trouble;
use crate::clock::{Clock, unix_ms};
use crate::config::RemoteWrite;
use crate::model::WriteFormat;
use crate::spool::{Outlet, QueueSnapshot};

/// The state of one receiver. Nothing in it is secret.
#[derive(Clone, Debug, PartialEq)]
pub struct ReceiverSnapshot {
    /// Its name.
    pub name: String,
    /// Its URL, without the query.
    pub url: String,
    /// As which message samples are sent; one that a receiver does not know is sent as 1.0.
    pub message: WriteFormat,
    /// What waits and what was dropped because the queue was full.
    pub queue: QueueSnapshot,
    /// The age of the oldest sample that is not delivered; zero if there is none.
    pub lag: Duration,
    /// Samples that the receiver has.
    pub delivered_samples: u64,
    /// How many of them a second, over the last minute.
    pub samples_per_second: f64,
    /// Samples that it rejected.
    pub rejected_samples: u64,
    /// Samples that grew too old to be sent.
    pub too_old_samples: u64,
    /// How long ago samples were last lost, in the queue or by their age.
    pub since_loss: Option<Duration>,
    /// When it last took samples.
    pub last_delivery: Option<SystemTime>,
    /// Why samples are not delivered now, and since when; gone with the next answer that is final.
    pub trouble: Option<(SystemTime, Trouble)>,
    /// The last request that it rejected.
    pub last_refusal: Option<Refusal>,
}

/// A rejected request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// When.
    pub at: SystemTime,
    /// The HTTP status.
    pub status: u16,
    /// How many samples were in it.
    pub samples: u64,
    /// What the receiver said, safe to show.
    pub words: String,
}

/// What the task writes down.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress {
    pub(super) delivered_samples: u64,
    pub(super) recent: Recent,
    pub(super) rejected_samples: u64,
    pub(super) too_old_samples: u64,
    pub(super) too_old_at: Option<Instant>,
    pub(super) last_delivery: Option<SystemTime>,
    pub(super) trouble: Option<(SystemTime, Trouble)>,
    pub(super) last_refusal: Option<Refusal>,
}

impl Progress {
    /// The receiver has so many more.
    pub(super) fn took(&mut self, samples: u64) {
        self.delivered_samples += samples;
        self.recent.add(samples, Instant::now());
    }

    /// So many grew too old to be sent.
    pub(super) fn outlived(&mut self, samples: u64) {
        self.too_old_samples += samples;
        self.too_old_at = Some(Instant::now());
    }
}

/// Where it is written down: shared by the task and its monitors.
#[derive(Clone, Default)]
pub(super) struct Ledger(Arc<Mutex<Progress>>);

impl Ledger {
    /// Nothing under this lock panics, so what a poisoned one holds is whole.
    pub(super) fn with<T>(&self, write: impl FnOnce(&mut Progress) -> T) -> T {
        write(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Shows how a receiver is doing while its task runs, and after.
#[derive(Clone)]
pub struct Monitor {
    name: String,
    url: String,
    message: WriteFormat,
    ledger: Ledger,
    queue: Arc<dyn Fn() -> QueueSnapshot + Send + Sync>,
    clock: Clock,
}

impl Monitor {
    pub(super) fn new(remote: &RemoteWrite, ledger: Ledger, outlet: &Outlet, clock: Clock) -> Self {
        Self {
            name: remote.name.clone(),
            url: remote.shown_url(),
            message: remote.message,
            ledger,
            queue: Arc::new(outlet.observer()),
            clock,
        }
    }

    /// The state now.
    pub fn snapshot(&self) -> ReceiverSnapshot {
        let queue = (self.queue)();
        let mut progress = self.ledger.with(|progress| progress.clone());
        let age_ms = queue.oldest_ms.map_or(0, |oldest| unix_ms(self.clock.now()).saturating_sub(oldest));
        let since_too_old = progress.too_old_at.map(|at| at.elapsed());
        ReceiverSnapshot {
            since_loss: queue.since_drop.into_iter().chain(since_too_old).min(),
            name: self.name.clone(),
            url: self.url.clone(),
            message: self.message,
            queue,
            lag: Duration::from_millis(u64::try_from(age_ms).unwrap_or(0)),
            delivered_samples: progress.delivered_samples,
            samples_per_second: progress.recent.per_second(Instant::now()),
            rejected_samples: progress.rejected_samples,
            too_old_samples: progress.too_old_samples,
            last_delivery: progress.last_delivery,
            trouble: progress.trouble,
            last_refusal: progress.last_refusal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_is_known_how_long_ago_samples_were_lost_last_in_either_way() {
        let (ledger, dropped) = (Ledger::default(), Arc::new(Mutex::new(None)));
        let seen = Arc::clone(&dropped);
        let monitor = Monitor {
            name: String::new(),
            url: String::new(),
            message: WriteFormat::V1,
            ledger: ledger.clone(),
            queue: Arc::new(move || QueueSnapshot { since_drop: *seen.lock().expect("whole"), ..<_>::default() }),
            clock: Clock::system(),
        };
        assert_eq!(monitor.snapshot().since_loss, None);
        ledger.with(|progress| progress.outlived(3));
        tokio::time::advance(Duration::from_secs(60)).await;
        let seen = monitor.snapshot();
        assert_eq!((seen.too_old_samples, seen.since_loss), (3, Some(Duration::from_secs(60))));
        for (since_drop, since_loss) in [(90, 60), (30, 30)] {
            *dropped.lock().expect("whole") = Some(Duration::from_secs(since_drop));
            assert_eq!(monitor.snapshot().since_loss, Some(Duration::from_secs(since_loss)));
        }
    }
}
