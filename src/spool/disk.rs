//! What happens between the memory of a queue and its log, on a thread of its own.
//!
//! ```text
//!  pushed ─▶ tail ──append──▶ log ──read──▶ front ─▶ leases ─▶ finished ──▶ log: done, segments deleted
//! ```
//! Each step does whatever is due, then the thread sleeps until something has changed:
//! - *at once*: blocks that came in are written, in one `write` for all that wait. From then on they survive a `kill -9`;
//! - *ten times a second* at most: what is acknowledged is written down. What was acknowledged in between comes twice after a
//!   `kill -9`;
//! - *every second*: what was written is synced, on another thread, so that no write waits for it. From then on it survives
//!   the machine's loss of power. At the end, and where a segment ends, the same;
//! - if the disk takes nothing (full, read-only, failing, not there) it is asked again every second. Meanwhile blocks wait in
//!   memory, within its bounds, and are delivered from there. They are written in their order once the disk takes them. What
//!   is on disk only waits until it can be read; what cannot for ten seconds is given up.
//!
//! What always holds: the lock of the queue is never held while a file is touched, so neither scraping nor sending waits for
//! the disk; what is wrong is said once, then counted, said again after a while, and its end is said too.
//!
//! Numbers of blocks in memory are positions in the log plus a constant: what comes in gets numbers before anybody knows
//! what is in the log. If a disk is not there when the process starts and has older blocks when it comes, they are sent
//! then, behind newer ones: late is better than never. No other case changes the order.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::log::{Log, LogLimits, Overdue, POSITIONS, Wrongs};
use super::lost::Lost;
use super::pauses::{Pauses, Work};
use super::queue::{Queue, gauge};
use super::record::{self, MAX_RECORD};
use super::storage::{Storage, StoredFile};
use super::window::FIRST;
use crate::model::Block;

/// The most bytes of one write, if no block is larger.
const WRITE_BYTES: u64 = 1 << 20;

/// How long acknowledgements wait to be written down.
const SAVE_EVERY: Duration = Duration::from_millis(100);

/// How long what was written waits to be synced.
const SYNC_EVERY: Duration = Duration::from_secs(1);

/// How long a disk that failed is left alone.
const RETRY_EVERY: Duration = Duration::from_secs(1);

/// How long one is left alone that is about to be free.
const RETRY_SOON: Duration = Duration::from_millis(20);

/// How often the same trouble is said.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// How often it is tried to read what cannot be read before it is given up.
const READ_ATTEMPTS: u32 = 10;

/// How often it is tried to open a log before what of it cannot be read is left out.
const OPEN_ATTEMPTS: u32 = 5;

/// How the disk part of a queue is bounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskLimits {
    /// The most bytes of its files.
    pub max_bytes: u64,
    /// How long a block is kept, to the precision of a segment.
    pub max_age: Duration,
}

impl DiskLimits {
    /// A segment is a small part of the whole, because it is dropped as a whole, and large enough that there are few.
    pub(super) fn of_log(self) -> LogLimits {
        let segment_bytes = (self.max_bytes / 16).clamp(64 << 10, 16 << 20);
        LogLimits { segment_bytes, max_bytes: self.max_bytes, max_age: self.max_age }
    }
}

/// When a step is to be done again.
pub(super) enum Next {
    /// After this time, or as soon as something has changed.
    Within(Duration),
    /// Never: all is written, and nothing will come.
    Over,
}

/// Milliseconds since the Unix epoch that do not step: blocks must not age because somebody sets the clock.
pub(super) struct Ticks {
    began_ms: i64,
    began: Instant,
}

impl Ticks {
    /// It is `now_ms`.
    pub(super) fn from(now_ms: i64) -> Self {
        Self { began_ms: now_ms, began: Instant::now() }
    }

    fn now_ms(&self) -> i64 {
        self.began_ms.saturating_add(i64::try_from(self.began.elapsed().as_millis()).unwrap_or(i64::MAX))
    }
}

/// Where a log is to be opened; asked again until there is one.
pub(super) type Place<S> = Box<dyn Fn() -> io::Result<S> + Send>;

/// The disk part of one queue.
pub(super) struct Disk<S: Storage> {
    queue: Arc<Queue>,
    place: Place<S>,
    /// For the log.
    shown_place: PathBuf,
    limits: LogLimits,
    receiver: usize,
    ticks: Ticks,
    /// Whether files are synced on another thread.
    sync_apart: bool,
    log: Option<Log<S>>,
    /// The number of the block at position 0.
    zero: u64,
    open_attempts: u32,
    read_attempts: u32,
    syncing: Option<JoinHandle<io::Result<()>>>,
    trouble: Option<Trouble>,
    /// What the metrics say of what was wrong.
    counted: Wrongs,
    save_due: Option<Instant>,
    sync_due: Option<Instant>,
    pauses: Pauses,
}

struct Trouble {
    since: Instant,
    /// When it was said last, and of which work.
    said: Option<(Instant, Work)>,
}

impl<S: Storage> Disk<S> {
    /// That of `queue`, not opened yet.
    pub(super) fn new(
        queue: Arc<Queue>,
        (place, shown_place): (Place<S>, PathBuf),
        limits: LogLimits,
        receiver: usize,
        ticks: Ticks,
        sync_apart: bool,
    ) -> Self {
        Self {
            queue,
            place,
            shown_place,
            limits,
            receiver,
            ticks,
            sync_apart,
            log: None,
            zero: FIRST,
            open_attempts: 0,
            read_attempts: 0,
            syncing: None,
            trouble: None,
            counted: Wrongs::default(),
            save_due: None,
            sync_due: None,
            pauses: Pauses::default(),
        }
    }

    /// Does all that is due.
    pub(super) fn step(&mut self) -> Next {
        let now = Instant::now();
        let left = self.queue.is_left();
        if left {
            self.pauses = Pauses::default();
        }
        if let (Some(limits), Some(log)) = (self.queue.disk_limits(), &mut self.log) {
            log.set_limits(LogLimits { segment_bytes: self.limits.segment_bytes, ..limits.of_log() });
        }
        if self.log.is_none() && self.pauses.write.is_over(now) {
            match self.open() {
                Ok(()) => {}
                // The log before this one is about to end.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.pauses.write.begin(now + RETRY_SOON),
                Err(error) => {
                    self.fail(now, Work::Write, "open", &error);
                }
            }
        }
        // What can be read is read and what is done is deleted, even if nothing can be written, and the other way round.
        loop {
            self.learn();
            self.trim(0);
            let wrote = self.pauses.write.is_over(now)
                && self.write().unwrap_or_else(|error| self.fail(now, Work::Write, "write", &error));
            let read = self.pauses.read.is_over(now)
                && self.read().unwrap_or_else(|error| self.fail(now, Work::Read, "read", &error));
            if !(wrote || read) {
                break;
            }
        }
        if self.pauses.tidy.is_over(now)
            && let Err((what, error)) = self.tidy(now, left)
        {
            self.fail(now, Work::Tidy, what, &error);
        }
        if self.pauses.are_none() {
            self.heal(now);
        }
        self.show();
        if left && self.queue.end() {
            self.say_goodbye();
            return Next::Over;
        }
        let dues = [self.save_due, self.sync_due, self.pauses.end()].into_iter().flatten();
        Next::Within(dues.min().map_or(SYNC_EVERY, |due| due.saturating_duration_since(now)))
    }

    /// Deletes, saves and syncs what is due.
    fn tidy(&mut self, now: Instant, left: bool) -> Result<(), (&'static str, io::Error)> {
        let Some(log) = &mut self.log else { return Ok(()) };
        // Each by itself: a name that cannot be deleted must not keep the rest from being safe.
        let collected = log.collect().map_err(|error| ("delete", error));
        let mut saved = Ok(());
        if left || is_due(self.save_due, now) {
            self.save_due = None;
            saved = log.save_done().map_err(|error| ("acknowledge", error));
        }
        let mut synced = Ok(());
        if left || is_due(self.sync_due, now) {
            self.sync_due = None;
            synced = self.sync(left).map_err(|error| ("sync", error));
        }
        self.sync_due.get_or_insert(now + SYNC_EVERY);
        collected.and(saved).and(synced)
    }

    /// What could not be written is lost now.
    fn say_goodbye(&self) {
        let lost = self.queue.ask(|window| window.in_memory_only());
        if lost.blocks > 0 {
            tracing::error!(
                queue = self.queue.name(),
                directory = %self.shown_place.display(),
                blocks = lost.blocks,
                samples = lost.samples,
                "the queue on disk does not take what is left: these samples are lost"
            );
        }
    }

    fn open(&mut self) -> io::Result<()> {
        self.open_attempts += 1;
        let tolerant = self.open_attempts > OPEN_ATTEMPTS;
        let opened = (self.place)().and_then(|storage| Log::open(storage, self.limits, self.receiver, tolerant));
        let log = match opened {
            Ok(log) => log,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(error),
            Err(error) => {
                self.queue.change(|window| window.not_opened());
                return Err(error);
            }
        };
        self.zero = FIRST - log.next();
        let (first, pending) = (self.zero + log.first(), log.pending());
        if pending.blocks > 0 {
            tracing::info!(
                queue = self.queue.name(),
                directory = %self.shown_place.display(),
                blocks = pending.blocks,
                samples = pending.samples,
                "samples of an earlier run are on disk and will be delivered"
            );
        }
        self.queue.change(|window| window.opened(first, pending, log.oldest_ms(log.first())));
        self.log = Some(log);
        Ok(())
    }

    /// The log learns what is done with.
    fn learn(&mut self) {
        let finished = self.queue.ask(|window| window.take_finished());
        let Some(log) = &mut self.log else { return };
        if !finished.is_empty() {
            self.save_due.get_or_insert_with(|| Instant::now() + SAVE_EVERY);
        }
        for (number, samples) in finished {
            log.finish(number - self.zero, samples);
        }
    }

    /// Drops what is too old, and what is too much once `more` bytes are written.
    fn trim(&mut self, more: u64) {
        let now_ms = self.ticks.now_ms();
        let Some(log) = &mut self.log else { return };
        while let Some(why) = log.overdue(more, now_ms) {
            let zero = self.zero;
            self.queue.change(|window| {
                // Nothing is counted as dropped that was delivered.
                for (number, samples) in window.take_finished() {
                    log.finish(number - zero, samples);
                }
                let Some((range, pending)) = log.drop_oldest() else { return };
                let why = match why {
                    Overdue::Bytes => Lost::Bytes,
                    Overdue::Age => Lost::Age,
                };
                window.trimmed(range.start + zero..range.end + zero, pending, why);
            });
            self.save_due.get_or_insert_with(|| Instant::now() + SAVE_EVERY);
        }
    }

    /// Writes what waits to be written, up to a limit; whether there was anything.
    fn write(&mut self) -> io::Result<bool> {
        if self.log.is_none() {
            return Ok(false);
        }
        let batch = self.queue.ask(|window| window.next_to_write(WRITE_BYTES));
        let Some((first, block)) = batch.first() else { return Ok(false) };
        if record::len(block) > MAX_RECORD {
            let number = *first;
            self.queue.change(|window| window.too_large(number));
            return Ok(true);
        }
        let zero = self.zero;
        let fits = |(_, block): &(u64, Block)| record::len(block) <= MAX_RECORD;
        let batch: Vec<_> = batch.into_iter().take_while(fits).map(|(number, block)| (number - zero, block)).collect();
        let bytes = batch.iter().map(|(_, block)| record::len(block) as u64).sum();
        self.trim(bytes);
        let now_ms = self.ticks.now_ms();
        let (Some(log), Some((last, _))) = (&mut self.log, batch.last()) else { return Ok(false) };
        if *last >= POSITIONS {
            return Err(io::Error::other("BUG: positions have run out"));
        }
        log.append(&batch, now_ms)?;
        let end = last + 1 + zero;
        self.queue.change(|window| window.wrote(end));
        Ok(true)
    }

    /// Reads what the front has room for; whether there was anything.
    fn read(&mut self) -> io::Result<bool> {
        let Some((from, bytes)) = self.queue.ask(|window| window.next_to_read()) else { return Ok(false) };
        let (Some(log), zero) = (&mut self.log, self.zero) else { return Ok(false) };
        let batch = match log.read(from - zero, bytes) {
            Ok(batch) => batch,
            Err(error) if self.read_attempts < READ_ATTEMPTS => {
                self.read_attempts += 1;
                return Err(error);
            }
            Err(error) => {
                tracing::error!(
                    queue = self.queue.name(),
                    directory = %self.shown_place.display(),
                    %error,
                    "a part of the queue on disk cannot be read and is given up"
                );
                log.give_up(from - zero)
            }
        };
        self.read_attempts = 0;
        let blocks = batch.blocks.into_iter().map(|(position, block)| (position + zero, block)).collect();
        let lost: Vec<_> = batch.lost.into_iter().map(|(position, samples)| (position + zero, samples)).collect();
        self.queue.change(|window| {
            window.has_read(from, blocks, batch.next + zero, &lost);
            window.set_stored_oldest(|number| log.oldest_ms(number - zero));
        });
        Ok(true)
    }

    /// Has synced what was written; with `wait`, until it is.
    fn sync(&mut self, wait: bool) -> io::Result<()> {
        let Some(log) = &mut self.log else { return Ok(()) };
        if !log.check_name()? {
            tracing::error!(
                queue = self.queue.name(),
                directory = %self.shown_place.display(),
                "somebody has deleted files of the queue on disk; what comes from now on is written anew"
            );
        }
        // Samples are synced also where what is done cannot be written.
        let saved = log.save_done();
        self.save_due = None;
        if let Some(syncing) = self.syncing.take_if(|syncing| wait || syncing.is_finished()) {
            let synced = syncing.join().unwrap_or_else(|_| Err(io::Error::other("BUG: syncing ended abnormally")));
            if synced.is_err() {
                // What the system makes of a page that it could not write is unknown: no more goes there.
                log.seal();
            }
            synced?;
        }
        // The disk is slower than we are: the next time.
        if self.syncing.is_some() {
            return saved;
        }
        let files = log.take_unsynced()?;
        if files.is_empty() {
            return saved;
        }
        let sync = move || files.iter().try_for_each(StoredFile::sync);
        if self.sync_apart && !wait {
            let thread = std::thread::Builder::new().name("spool-sync".to_owned());
            self.syncing = Some(thread.spawn(sync)?);
            return saved;
        }
        sync().inspect_err(|_| log.seal())?;
        saved
    }

    /// Something does not work, and is left alone for a while. Nothing was done.
    fn fail(&mut self, now: Instant, work: Work, what: &'static str, error: &io::Error) -> bool {
        let (pause, words) = match work {
            Work::Write => (
                &mut self.pauses.write,
                "the queue on disk does not work: what comes in is kept in memory, and lost with this process, until it does",
            ),
            Work::Read => (
                &mut self.pauses.read,
                "the queue on disk cannot be read: what is only there is not delivered until it can",
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

    fn heal(&mut self, now: Instant) {
        if let Some(trouble) = self.trouble.take() {
            tracing::info!(
                queue = self.queue.name(),
                directory = %self.shown_place.display(),
                seconds = (now - trouble.since).as_secs(),
                "the queue on disk works again, and all that waits is on it"
            );
        }
    }

    fn show(&mut self) {
        let (now_ms, works) = (self.ticks.now_ms(), self.log.is_some() && self.pauses.write.is_none());
        let wrongs = self.log.as_ref().map_or(self.counted, Log::wrongs);
        let (log, counted) = (self.log.as_ref(), self.counted);
        self.queue.measure(|metrics| {
            metrics.on_disk.set(works.into());
            let (Some(log), Some(disk)) = (log, &metrics.disk) else { return };
            let age_ms = log.oldest_arrival_ms().map_or(0, |arrived_ms| now_ms.saturating_sub(arrived_ms).max(0));
            disk.bytes.set(gauge(log.bytes()));
            disk.oldest_age.set(age_ms as f64 / 1000.0);
            disk.damaged.inc_by(wrongs.damaged - counted.damaged);
            disk.torn.inc_by(wrongs.torn - counted.torn);
        });
        if wrongs.damaged > counted.damaged {
            tracing::warn!(
                queue = self.queue.name(),
                directory = %self.shown_place.display(),
                places = wrongs.damaged - counted.damaged,
                "the queue on disk is damaged; what is whole will be delivered, the files are kept as *.corrupt"
            );
        }
        self.counted = wrongs;
    }
}

#[cfg(test)]
impl<S: Storage> Disk<S> {
    /// All that waits for its time has waited long enough.
    pub(super) fn hurry(&mut self) {
        let now = Some(Instant::now());
        (self.save_due, self.sync_due) = (now, now);
        self.pauses = Pauses::default();
    }
}

fn is_due(due: Option<Instant>, now: Instant) -> bool {
    due.is_some_and(|due| due <= now)
}

/// Runs the disk part of a queue until it is over.
pub(super) fn run<S: Storage>(mut disk: Disk<S>) {
    while let Next::Within(time) = disk.step() {
        disk.queue.wait_for_work(time);
    }
}
