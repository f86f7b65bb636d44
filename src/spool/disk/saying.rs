//! What the disk part of a queue says of itself: once when something goes wrong, again after a while, and when it is over; the
//! rest is counted. It touches no file.

use std::io;
use std::time::Duration;

use tokio::time::Instant;

use super::Disk;
use crate::spool::count::Count;
use crate::spool::log::Log;
use crate::spool::pauses::Work;
use crate::spool::queue::gauge;
use crate::spool::storage::Storage;

/// How long a disk that failed is left alone.
const RETRY_EVERY: Duration = Duration::from_secs(1);

/// How often the same trouble is said.
const SAY_EVERY: Duration = Duration::from_secs(60);

pub(super) struct Trouble {
    since: Instant,
    /// When it was said last, and of which work.
    said: Option<(Instant, Work)>,
}

impl<S: Storage> Disk<S> {
    /// Something does not work, and is left alone for a while. Nothing was done.
    pub(super) fn fail(&mut self, now: Instant, work: Work, what: &'static str, error: &io::Error) -> bool {
        let (pause, words) = match work {
            Work::Write => (
                &mut self.pauses.write,
                "the queue on disk does not work: what comes in is kept in memory, and lost with this process, until it does",
            ),
            Work::Read => (
                &mut self.pauses.read,
                "the queue on disk cannot be read: what waits there and behind it is not delivered until it can, or for a minute",
            ),
            Work::Tidy => (
                &mut self.pauses.tidy,
                "the files of the queue on disk cannot be kept up: what is delivered may come again after a restart",
            ),
        };
        pause.begin(now + RETRY_EVERY);
        self.queue.measure(|metrics| metrics.disk.iter().for_each(|disk| disk.failed(what)));
        let trouble = self.trouble.get_or_insert(Trouble { since: now, said: None });
        // Once for each kind of work, and again after a while.
        if trouble.said.is_some_and(|(said, last)| said + SAY_EVERY > now && last >= work) {
            return false;
        }
        trouble.said = Some((now, work));
        tracing::error!(
            queue = self.queue.name(),
            directory = %self.shown_place.display(),
            operation = what,
            %error,
            seconds = (now - trouble.since).as_secs(),
            "{words}"
        );
        false
    }

    /// Something does not work, or did not a moment ago.
    #[cfg(test)]
    pub(in crate::spool) fn is_in_trouble(&self) -> bool {
        self.trouble.is_some()
    }

    pub(super) fn heal(&mut self, now: Instant) {
        if let Some(trouble) = self.trouble.take() {
            tracing::info!(
                queue = self.queue.name(),
                directory = %self.shown_place.display(),
                seconds = (now - trouble.since).as_secs(),
                "the queue on disk works again, and all that waits is on it"
            );
        }
    }

    pub(super) fn show(&mut self) {
        let (now_ms, works) = (self.ticks.now_ms(), self.log.is_some() && self.pauses.write.is_none());
        let wrongs = self.log.as_ref().map_or(self.counted, Log::wrongs);
        let (log, counted) = (self.log.as_ref(), self.counted);
        self.queue.measure(|metrics| {
            metrics.on_disk.set(works.into());
            let (Some(log), Some(disk)) = (log, &metrics.disk) else { return };
            let age_ms = log.oldest_arrival_ms().map_or(0, |arrived_ms| now_ms.saturating_sub(arrived_ms).max(0));
            disk.bytes.set(gauge(log.bytes()));
            disk.oldest_age.set(age_ms as f64 / 1000.0);
            disk.torn.inc_by(wrongs.torn - counted.torn);
        });
        if wrongs.damaged > counted.damaged {
            self.queue.found_damage(wrongs.damaged - counted.damaged);
            tracing::warn!(
                queue = self.queue.name(),
                directory = %self.shown_place.display(),
                places = wrongs.damaged - counted.damaged,
                "the queue on disk is damaged; what is whole will be delivered, the files are kept as *.corrupt"
            );
        }
        self.counted = wrongs;
    }

    /// What could not be written is lost now.
    pub(super) fn say_goodbye(&mut self) {
        let mut lost = Count::default();
        self.queue.change(|window| lost = window.lose_unwritten());
        if lost.blocks > 0 {
            tracing::error!(
                queue = self.queue.name(),
                directory = %self.shown_place.display(),
                blocks = lost.blocks,
                samples = lost.samples,
                "the queue on disk does not take what is left: these samples are lost"
            );
        }
        self.lost = lost;
    }
}
