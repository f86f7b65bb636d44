//! One queue: in at the back, out at the front by leases.
//!
//! [`Window`] says what happens to a block; here is who may do what: anybody pushes, one [outlet](super::Outlet) at a time takes
//! leases, and where there is a disk, its thread ([`super::disk`]) moves what is waiting there and back. All of them meet under
//! one lock, under which no file is touched.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::QueueSettings;
use super::count::Count;
use super::disk::DiskLimits;
use super::lost::Lost;
use super::metrics::{Metrics, QueueMetrics};
use super::window::{LeaseLimits, Refused, Take, Window};
use crate::model::Block;

/// A full queue is complained about at most this often.
const WARN_EVERY: Duration = Duration::from_secs(30);

/// What a queue holds, and what it lost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueSnapshot {
    /// Blocks that wait or are leased.
    pub pending_blocks: u64,
    /// Samples and histograms that wait or are leased.
    pub pending_samples: u64,
    /// Histograms among them.
    pub pending_histograms: u64,
    /// Exemplars that wait or are leased.
    pub pending_exemplars: u64,
    /// Of the pending blocks, those that are on disk, and there after this process has ended.
    pub kept_blocks: u64,
    /// Samples in them.
    pub kept_samples: u64,
    /// Bytes of the blocks that wait in memory, with what it takes to keep them.
    pub waiting_bytes: u64,
    /// How many bytes may wait in memory.
    pub capacity_bytes: u64,
    /// The oldest timestamp that waits or is leased, milliseconds since the Unix epoch.
    pub oldest_ms: Option<i64>,
    /// Blocks dropped undelivered, whatever for.
    pub dropped_blocks: u64,
    /// Samples in them.
    pub dropped_samples: u64,
    /// How long ago the last of them was dropped.
    pub since_drop: Option<Duration>,
    /// Its files, if it has any.
    pub disk: Option<DiskSnapshot>,
}

/// The files of a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskSnapshot {
    /// Whether blocks are written to them now; else they wait in memory.
    pub works: bool,
    /// How many bytes they have.
    pub bytes: u64,
    /// How many they may have before the oldest blocks are dropped.
    pub capacity_bytes: u64,
    /// How long ago something was last found in them that was never written there.
    pub since_damage: Option<Duration>,
}

pub(super) struct Queue {
    state: Mutex<State>,
    /// A block came, went back or was acknowledged, or the end did.
    changed: Notify,
    /// The same, for the thread of the disk.
    work: Condvar,
}

struct State {
    window: Window,
    settings: QueueSettings,
    metrics: QueueMetrics,
    outlets: usize,
    newest_outlet: u64,
    /// Of the newest outlet.
    outlet_closed: CancellationToken,
    /// Something has changed since the thread of the disk looked last.
    has_work: bool,
    /// Nobody writes the disk any more.
    ended: bool,
    /// What the metrics say of what was dropped.
    counted: [Count; Lost::ALL.len()],
    warned: Option<(Instant, [Count; Lost::ALL.len()])>,
    /// When something was dropped last.
    dropped_at: Option<Instant>,
    /// When damage was found last.
    damaged_at: Option<Instant>,
}

impl Queue {
    /// Whether there is a disk to it is settled by `settings`.
    pub(super) fn new(settings: QueueSettings, metrics: &Metrics) -> Self {
        let metrics = metrics.queue(&settings);
        let mut window = Window::new(settings.capacity_bytes, settings.disk.is_some());
        window.set_newest_first(settings.disk.as_ref().is_some_and(|disk| disk.newest_first));
        let state = State {
            window,
            metrics,
            settings,
            outlets: 0,
            newest_outlet: 0,
            outlet_closed: CancellationToken::new(),
            has_work: true,
            ended: false,
            counted: <_>::default(),
            warned: None,
            dropped_at: None,
            damaged_at: None,
        };
        Self { state: Mutex::new(state), changed: Notify::new(), work: Condvar::new() }
    }

    /// Opens a closed queue again, under other settings; false if it has ended.
    pub(super) fn reopen(&self, settings: QueueSettings, metrics: &Metrics) -> bool {
        let mut state = self.state();
        if state.ended {
            return false;
        }
        state.metrics = metrics.queue(&settings);
        state.window.closed = false;
        state.window.set_capacity(settings.capacity_bytes);
        state.window.set_newest_first(settings.disk.as_ref().is_some_and(|disk| disk.newest_first));
        state.settings = settings;
        self.settle(state);
        true
    }

    /// What its metrics carry.
    pub(super) fn labels(&self) -> Vec<(String, String)> {
        self.state().settings.labels.clone()
    }

    pub(super) fn push(&self, block: Block) {
        let mut state = self.state();
        state.metrics.saw(block.max_ms);
        state.window.push(block);
        self.settle(state);
    }

    pub(super) fn close(&self) {
        let mut state = self.state();
        state.window.closed = true;
        state.outlet_closed.cancel();
        self.settle(state);
    }

    /// Another outlet, the only one from now on: its number, and what is cancelled when nothing more will come for it.
    pub(super) fn add_outlet(&self) -> (u64, CancellationToken) {
        let mut state = self.state();
        state.outlets += 1;
        state.newest_outlet += 1;
        let (number, closed) = (state.newest_outlet, CancellationToken::new());
        if state.window.closed {
            closed.cancel();
        }
        std::mem::replace(&mut state.outlet_closed, closed.clone()).cancel();
        drop(state);
        self.changed.notify_waiters();
        (number, closed)
    }

    pub(super) fn remove_outlet(&self) {
        let mut state = self.state();
        state.outlets -= 1;
        // It may be the end, which the thread of the disk is not to find out by chance.
        state.has_work = true;
        drop(state);
        self.work.notify_all();
    }

    /// Whether it is the one that was added last.
    pub(super) fn is_newest(&self, outlet: u64) -> bool {
        self.state().newest_outlet == outlet
    }

    /// Done when something changes that a lease may depend on, from the call on.
    pub(super) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    pub(super) fn take(&self, outlet: u64, limits: LeaseLimits, refused: &Refused) -> Take {
        let mut state = self.state();
        if state.newest_outlet != outlet {
            return Take::Over;
        }
        let take = state.window.take(limits, refused);
        let is_taken = matches!(take, Take::Blocks(_) | Take::Overdue(_));
        if is_taken {
            state.show();
        }
        // There may be room for more, or something in the gap for the first time.
        if is_taken || state.window.next_to_read().is_some() {
            state.has_work = true;
            self.work.notify_all();
        }
        take
    }

    /// Does something to the window, and sees to what follows from it.
    pub(super) fn with(&self, change: impl FnOnce(&mut Window)) {
        let mut state = self.state();
        change(&mut state.window);
        self.settle(state);
    }

    /// After a change: shows the new state, says what was lost, wakes who waits for it.
    fn settle(&self, mut state: MutexGuard<'_, State>) {
        state.has_work = true;
        self.tell(state);
        self.work.notify_all();
    }

    fn tell(&self, mut state: MutexGuard<'_, State>) {
        state.show();
        let lost = state.lost_since_warning();
        let (name, capacity_bytes) = match lost.is_empty() {
            true => (String::new(), 0),
            false => (state.settings.name.clone(), state.settings.capacity_bytes),
        };
        drop(state);
        for (why, lost) in lost {
            tracing::warn!(
                queue = name,
                reason = why.name(),
                blocks = lost.blocks,
                samples = lost.samples,
                capacity_bytes,
                "{}",
                why.words()
            );
        }
        self.changed.notify_waiters();
    }

    pub(super) fn snapshot(&self) -> QueueSnapshot {
        let state = self.state();
        let window = &state.window;
        let (pending, only) = (window.pending(), window.in_memory_only());
        let kept = pending.less(only);
        let dropped = Lost::ALL.map(|why| window.dropped(why));
        QueueSnapshot {
            pending_blocks: pending.blocks,
            pending_samples: pending.samples,
            pending_histograms: pending.histograms,
            pending_exemplars: pending.exemplars,
            kept_blocks: kept.blocks,
            kept_samples: kept.samples,
            waiting_bytes: window.waiting_bytes(),
            capacity_bytes: state.settings.capacity_bytes,
            oldest_ms: window.oldest_ms(),
            dropped_blocks: dropped.iter().map(|count| count.blocks).sum(),
            dropped_samples: dropped.iter().map(|count| count.samples).sum(),
            since_drop: state.dropped_at.map(|at| at.elapsed()),
            disk: state.settings.disk.as_ref().zip(state.metrics.disk.as_ref()).map(|(settings, metrics)| {
                DiskSnapshot {
                    works: state.metrics.on_disk.get() == 1,
                    bytes: u64::try_from(metrics.bytes.get()).unwrap_or(0),
                    capacity_bytes: settings.limits.max_bytes,
                    since_damage: state.damaged_at.map(|at| at.elapsed()),
                }
            }),
        }
    }

    /// Nothing under this lock panics, so a poisoned state is a whole one.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// For the thread of the disk.
impl Queue {
    /// Does something to the window that nobody waits for.
    pub(super) fn ask<T>(&self, ask: impl FnOnce(&mut Window) -> T) -> T {
        ask(&mut self.state().window)
    }

    /// Does something to the window that its outlet may wait for.
    pub(super) fn change(&self, change: impl FnOnce(&mut Window)) {
        let mut state = self.state();
        change(&mut state.window);
        self.tell(state);
    }

    /// Does something with its metrics.
    pub(super) fn measure(&self, measure: impl FnOnce(&QueueMetrics)) {
        measure(&self.state().metrics);
    }

    /// Counts places of its files that hold what was never written there.
    pub(super) fn found_damage(&self, places: u64) {
        let mut state = self.state();
        if let Some(disk) = &state.metrics.disk {
            disk.damaged.inc_by(places);
        }
        state.damaged_at = Some(Instant::now());
    }

    /// What it is called in the log.
    pub(super) fn name(&self) -> String {
        self.state().settings.name.clone()
    }

    /// How its disk part is bounded now.
    pub(super) fn disk_limits(&self) -> Option<DiskLimits> {
        self.state().settings.disk.as_ref().map(|disk| disk.limits)
    }

    /// Blocks the thread until somebody else has changed something since this was called last, but not longer than
    /// `at_most`.
    pub(super) fn wait_for_work(&self, at_most: Duration) {
        let state = self.state();
        let waited = self.work.wait_timeout_while(state, at_most, |state| !state.has_work);
        waited.unwrap_or_else(PoisonError::into_inner).0.has_work = false;
    }

    /// Whether nothing will come in or go out any more.
    pub(super) fn is_left(&self) -> bool {
        let state = self.state();
        state.window.closed && state.outlets == 0
    }

    /// Nobody writes the disk any more, unless somebody has opened the queue again meanwhile; whether it is so.
    pub(super) fn end(&self) -> bool {
        let mut state = self.state();
        state.ended = state.window.closed && state.outlets == 0;
        state.ended
    }
}

impl State {
    fn show(&mut self) {
        self.metrics.pending(self.window.pending());
        self.metrics.waiting_bytes.set(gauge(self.window.waiting_bytes()));
        for (why, counted) in Lost::ALL.into_iter().zip(&mut self.counted) {
            let now = self.window.dropped(why);
            if now != *counted {
                self.dropped_at = Some(Instant::now());
            }
            self.metrics.lost(why, now.less(*counted));
            *counted = now;
        }
    }

    /// What was dropped and not yet said, if it is time to say so.
    fn lost_since_warning(&mut self) -> Vec<(Lost, Count)> {
        let now = Lost::ALL.map(|why| self.window.dropped(why));
        let said = match self.warned {
            Some((last, _)) if last.elapsed() < WARN_EVERY => return Vec::new(),
            Some((_, said)) => said,
            None => <_>::default(),
        };
        let news = Lost::ALL.into_iter().zip(now).zip(said).map(|((why, now), said)| (why, now.less(said)));
        let news: Vec<_> = news.filter(|(_, lost)| lost.blocks > 0).collect();
        if !news.is_empty() {
            self.warned = Some((Instant::now(), now));
        }
        news
    }
}

/// For a gauge, which is signed.
pub(super) fn gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
