//! What happens between the memory of a queue and its log, on a thread of its own.
//!
//! ```text
//!  pushed ─▶ tail ──append──▶ log ──read──▶ front ─▶ leases ─▶ finished ──▶ log: done, segments deleted
//! ```
//! Each step does whatever is due, then the thread sleeps until something has changed. While blocks are moved without end a
//! step ends as soon as anything else is due:
//! - *at once*: blocks that came in are written, in one `write` for all that wait. From then on they survive a `kill -9`;
//! - *ten times a second* at most: what is acknowledged is written down. What was acknowledged in between comes twice after a
//!   `kill -9`;
//! - *every second*: what was written is synced, on another thread, so that no write waits for it. From then on it survives
//!   the machine's loss of power. At the end, and where a segment ends, the same;
//! - if the disk takes nothing (full, read-only, failing, not there) it is asked again every second. Meanwhile blocks wait in
//!   memory, within its bounds, and are delivered from there. They are written in their order once the disk takes them;
//! - *what cannot be read* is tried again every second for a minute, at the start and later, and nothing is delivered that
//!   came behind it. Then, or once what cannot be written fills half of the memory, it is given up: counted, and its file
//!   kept beside the log as `*.unread`, as long as there is room for it. Each file has a minute of its own; and where it is
//!   the machine that has no files or no memory left, which says nothing of a file, none is given up.
//!
//! What always holds: the lock of the queue is never held while a file is touched, so neither scraping nor sending waits for
//! the disk; what is wrong is said once, then counted, said again after a while, and its end is said too.
//!
//! Numbers of blocks in memory are positions in the log plus a constant: what comes in gets numbers before anybody knows
//! what is in the log. So a disk that cannot even say which files there are when the process starts holds everything up, for
//! a minute, or until what cannot be written fills half of the memory; one that does not answer at all, or belongs to
//! somebody else, for half a minute more, or until three quarters are filled. If it comes later and has older blocks, they are sent
//! then, behind newer ones: late is better than never. No other case changes the order. Where there surely was nothing, as in
//! a directory that cannot be made, nothing is waited for.
//!
//! *Age* is counted in a time of the log's own. It begins as the wall clock, goes on where the newest block in the log says,
//! and passes while the process runs, by a clock that does not step. So a wall clock that was wrong when a process began, or
//! that is set while it runs, makes no block older or younger; the time in which no process runs does not count, either. Who
//! does not want samples beyond a certain age, whatever they waited for, says so with `sample_age_limit`.

mod saying;
mod syncing;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use self::saying::Trouble;
use self::syncing::Syncing;

use super::count::Count;
use super::log::{Batch, Log, LogLimits, Overdue, POSITIONS, Wrongs};
use super::lost::Lost;
use super::pauses::{Pauses, Work};
use super::queue::Queue;
use super::record::{self, MAX_RECORD};
use super::storage::{Storage, is_absent, is_shortage};
use super::window::FIRST;
use crate::model::Block;

/// The most bytes of one write, if no block is larger.
const WRITE_BYTES: u64 = 1 << 20;

/// How long acknowledgements wait to be written down.
const SAVE_EVERY: Duration = Duration::from_millis(100);

/// How long what was written waits to be synced.
const SYNC_EVERY: Duration = Duration::from_secs(1);

/// How long one is left alone that is about to be free.
const RETRY_SOON: Duration = Duration::from_millis(20);

/// How long what cannot be read is tried again before it is given up.
pub(super) const READ_PATIENCE: Duration = Duration::from_secs(60);

/// How long a queue that has ended waits for a directory that is about to be free; shorter than anybody waits for its end.
const END_PATIENCE: Duration = Duration::from_secs(8);

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

/// Milliseconds of the log's own time.
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
    patience: Duration,
    /// Since when the log could not be opened, and from which number on since when nothing could be read.
    unopened_since: Option<Instant>,
    unread_since: Option<(u64, Instant)>,
    /// Since when nothing comes in or goes out any more.
    left_since: Option<Instant>,
    /// What was lost at the end.
    lost: Count,
    syncing: Option<Syncing<S::File>>,
    trouble: Option<Trouble>,
    /// What the metrics say of what was wrong.
    counted: Wrongs,
    save_due: Option<Instant>,
    sync_due: Option<Instant>,
    pauses: Pauses,
    /// What the window was told of what is done.
    is_scattered: bool,
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
            patience: READ_PATIENCE,
            unopened_since: None,
            unread_since: None,
            left_since: None,
            lost: Count::default(),
            syncing: None,
            trouble: None,
            counted: Wrongs::default(),
            save_due: None,
            sync_due: None,
            pauses: Pauses::default(),
            is_scattered: false,
        }
    }

    /// Whether the end is worth waiting for, where somebody else still has the directory.
    fn may_still_be_written(&self, now: Instant) -> bool {
        self.left_since.is_some_and(|since| now < since + END_PATIENCE)
            && self.queue.ask(|window| window.in_memory_only()).blocks > 0
    }

    /// Does all that is due.
    pub(super) fn step(&mut self) -> Next {
        let now = Instant::now();
        let left = self.queue.is_left();
        if left {
            self.pauses = Pauses::default();
            self.left_since.get_or_insert(now);
        } else {
            self.left_since = None;
        }
        if let (Some(limits), Some(log)) = (self.queue.disk_limits(), &mut self.log) {
            let limits = limits.of_log();
            // They may be larger than fits the room that there is now, and are never made larger than they were.
            let segment_bytes = limits.segment_bytes.min(self.limits.segment_bytes);
            log.set_limits(LogLimits { segment_bytes, ..limits });
        }
        if self.log.is_none() && self.pauses.write.is_over(now) {
            match self.open() {
                Ok(()) => {}
                // The log before this one is about to end.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.pauses.write.begin(now + RETRY_SOON);
                    if self.may_still_be_written(now) {
                        return Next::Within(RETRY_SOON);
                    }
                }
                Err(error) => {
                    self.fail(now, Work::Write, "open", &error);
                }
            }
        }
        let has_more = self.move_blocks();
        // Time has passed by that.
        let (now, left) = (Instant::now(), left && !has_more);
        if self.pauses.tidy.is_over(now)
            && let Err((what, error)) = self.tidy(now, left)
        {
            self.fail(now, Work::Tidy, what, &error);
        }
        if self.pauses.are_none() && !has_more {
            self.heal(now);
        }
        self.show();
        if left && self.queue.end() {
            self.say_goodbye();
            return Next::Over;
        }
        let wait = self.dues().min().map_or(SYNC_EVERY, |due| due.saturating_duration_since(now));
        Next::Within(if has_more { Duration::ZERO } else { wait })
    }

    /// Writes and reads, until there is nothing more of that to be done or something else is due: a backlog that leaves as
    /// fast as it is read holds up nothing. Whether there may be more.
    fn move_blocks(&mut self) -> bool {
        // What can be read is read and what is done is deleted, even if nothing can be written, and the other way round.
        loop {
            let now = Instant::now();
            self.learn();
            self.trim(0);
            let wrote = self.pauses.write.is_over(now)
                && self.write().unwrap_or_else(|error| self.fail(now, Work::Write, "write", &error));
            let read = self.pauses.read.is_over(now)
                && self.read().unwrap_or_else(|error| self.fail(now, Work::Read, "read", &error));
            if !(wrote || read) {
                return false;
            }
            let now = Instant::now();
            if self.dues().any(|due| due <= now) {
                return true;
            }
        }
    }

    /// When something else is to be done than to write and to read, and when what is left alone is tried again.
    fn dues(&self) -> impl Iterator<Item = Instant> {
        let may_tidy = self.log.is_some() && self.pauses.tidy.is_none();
        let tidy = [self.save_due, self.sync_due].into_iter().flatten().filter(move |_| may_tidy);
        tidy.chain(self.pauses.end())
    }

    /// Deletes, saves and syncs what is due.
    fn tidy(&mut self, now: Instant, left: bool) -> Result<(), (&'static str, io::Error)> {
        let Some(log) = &mut self.log else { return Ok(()) };
        // Each by itself: a name that cannot be deleted must not keep the rest from being safe.
        let collected = log.collect(0).map_err(|error| ("delete", error));
        let mut saved = Ok(());
        if left || is_due(self.save_due, now) {
            saved = self.save(now).map_err(|error| ("acknowledge", error));
        }
        let mut synced = Ok(());
        if left || is_due(self.sync_due, now) {
            self.sync_due = None;
            synced = self.sync(left).map_err(|error| ("sync", error));
        }
        self.sync_due.get_or_insert(now + SYNC_EVERY);
        collected.and(saved).and(synced)
    }

    /// Writes down what is done, or a little later where that file is being synced.
    fn save(&mut self, now: Instant) -> io::Result<()> {
        let Some(log) = &mut self.log else { return Ok(()) };
        let saved = log.save_done();
        self.save_due = (saved.is_ok() && log.is_unsaved()).then_some(now + SAVE_EVERY);
        saved
    }

    fn open(&mut self) -> io::Result<()> {
        let tolerant = self.is_out_of_patience(self.unopened_since);
        let opened = (self.place)().and_then(|storage| Log::open(storage, self.limits, self.receiver, tolerant));
        let log = match opened {
            Ok(log) => log,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(error),
            Err(error) => {
                self.unopened_since.get_or_insert_with(Instant::now);
                // Newer blocks go on only after what is tolerant has been tried.
                let is_settled = tolerant || is_absent(&self.shown_place);
                self.queue.change(|window| window.not_opened(is_settled));
                return Err(error);
            }
        };
        if let Some(newest_ms) = log.newest_arrival_ms() {
            self.ticks = Ticks::from(newest_ms);
        }
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

    /// Whether what fails since then is to be given up.
    fn is_out_of_patience(&self, since: Option<Instant>) -> bool {
        let lasts = since.is_some_and(|since| since.elapsed() >= self.patience);
        lasts || since.is_some() && self.queue.ask(|window| window.is_pressed())
    }

    /// The log learns what is done with.
    fn learn(&mut self) {
        let finished = self.queue.ask(|window| window.take_finished());
        let Some(log) = &mut self.log else { return };
        if !finished.is_empty() {
            self.save_due.get_or_insert_with(|| Instant::now() + SAVE_EVERY);
        }
        for (number, one) in finished {
            log.finish(number - self.zero, one);
        }
        let is_scattered = log.is_scattered();
        if std::mem::replace(&mut self.is_scattered, is_scattered) != is_scattered {
            self.queue.change(|window| window.set_scattered(is_scattered));
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
                for (number, one) in window.take_finished() {
                    log.finish(number - zero, one);
                }
                let Some((range, pending)) = log.drop_oldest() else { return };
                let why = match why {
                    Overdue::Bytes => Lost::Bytes,
                    Overdue::Age => Lost::Age,
                };
                window.trimmed(range.start + zero..range.end + zero, pending, why);
            });
            self.save_due.get_or_insert_with(|| Instant::now() + SAVE_EVERY);
            // At once: what is written next is to have its room. If that fails it is tried again, and said, with the rest.
            let _ = log.collect(more);
        }
    }

    /// Writes what waits to be written, up to a limit; whether there was anything.
    fn write(&mut self) -> io::Result<bool> {
        if self.log.is_none() {
            return Ok(false);
        }
        let at_most = WRITE_BYTES.min(self.limits.segment_bytes);
        let batch = self.queue.ask(|window| window.next_to_write(at_most));
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
        let Some((range, bytes)) = self.queue.ask(|window| window.next_to_read()) else { return Ok(false) };
        let (Some(log), zero) = (&mut self.log, self.zero) else { return Ok(false) };
        let (from, positions) = (range.start, range.start - zero..range.end - zero);
        let (batch, why) = match log.read(positions.clone(), bytes) {
            Ok(batch) => {
                self.unread_since = None;
                (batch, Lost::Damage)
            }
            Err(error) if is_shortage(&error) => {
                self.unread_since = None;
                return Err(error);
            }
            Err(error) => {
                // What comes behind a file that was given up or dropped has its own time.
                let known = self.unread_since.filter(|(number, _)| *number == from);
                let (_, since) = *self.unread_since.insert(known.unwrap_or_else(|| (from, Instant::now())));
                if !self.is_out_of_patience(Some(since)) {
                    return Err(error);
                }
                tracing::error!(
                    queue = self.queue.name(),
                    directory = %self.shown_place.display(),
                    %error,
                    "a file of the queue on disk cannot be read and is given up: what it holds is lost; it is kept as *.unread"
                );
                let Some(log) = &mut self.log else { return Ok(false) };
                (log.give_up(positions), Lost::Unread)
            }
        };
        let Batch { blocks, next, lost, counted_anew } = batch;
        let batch = Batch {
            blocks: blocks.into_iter().map(|(position, block)| (position + zero, block)).collect(),
            next: next + zero,
            lost: lost.into_iter().map(|(position, one)| (position + zero, one)).collect(),
            counted_anew,
        };
        let Some(log) = &self.log else { return Ok(false) };
        self.queue.change(|window| {
            window.has_read(from, batch, why);
            window.set_stored_oldest(|number| log.oldest_ms(number - zero));
        });
        Ok(true)
    }
}

#[cfg(test)]
impl<S: Storage> Disk<S> {
    /// Steps until nothing is left that can be done at once.
    pub(super) fn settle(&mut self) -> Next {
        for _ in 0..10_000 {
            match self.step() {
                Next::Within(Duration::ZERO) => {}
                next => return next,
            }
        }
        panic!("there is always more to be done");
    }

    /// All that waits for its time has waited long enough.
    pub(super) fn hurry(&mut self) {
        let now = Some(Instant::now());
        (self.save_due, self.sync_due) = (now, now);
        self.pauses = Pauses::default();
    }

    /// So much of the log's time passes.
    pub(super) fn age(&mut self, by: Duration) {
        self.ticks.began_ms += by.as_millis() as i64;
    }

    /// What fails is given up at once.
    pub(super) fn lose_patience(&mut self) {
        self.patience = Duration::ZERO;
    }
}

fn is_due(due: Option<Instant>, now: Instant) -> bool {
    due.is_some_and(|due| due <= now)
}

/// Runs the disk part of a queue until it is over; what is lost then.
pub(super) fn run<S: Storage>(mut disk: Disk<S>) -> Count {
    while let Next::Within(time) = disk.step() {
        disk.queue.wait_for_work(time);
    }
    disk.lost
}
