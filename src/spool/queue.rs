//! One queue: in at the back, out at the front by leases.
//!
//! Every block gets a position when it comes in, one higher than the last. A lease is a run of blocks in order of their
//! positions; returned blocks go back to where their positions put them. A queue on disk has the same positions, with
//! the acknowledged ones made durable.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::QueueSettings;
use super::metrics::{Metrics, QueueMetrics};
use crate::model::Block;

/// A full queue is complained about at most this often.
const WARN_EVERY: Duration = Duration::from_secs(30);

/// How much one lease may hold, and how long it may wait to fill up.
#[derive(Clone, Copy, Debug)]
pub struct LeaseLimits {
    /// Samples; a single block with more goes alone.
    pub max_samples: u64,
    /// Bytes before compression, which is what receivers limit; a single block with more goes alone.
    pub max_message_bytes: u64,
    /// How long the oldest waiting block may wait for company.
    pub linger: Duration,
}

/// What a queue holds, and what it lost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueSnapshot {
    /// Blocks that wait or are leased.
    pub pending_blocks: u64,
    /// Samples that wait or are leased.
    pub pending_samples: u64,
    /// Bytes of the blocks that wait, with what it takes to keep them.
    pub waiting_bytes: u64,
    /// How many bytes may wait.
    pub capacity_bytes: u64,
    /// The oldest timestamp that waits or is leased, milliseconds since the Unix epoch.
    pub oldest_ms: Option<i64>,
    /// Blocks dropped because the queue was full.
    pub dropped_blocks: u64,
    /// Samples in them.
    pub dropped_samples: u64,
}

/// The way out of one queue.
pub struct Outlet {
    queue: Arc<Queue>,
}

impl Outlet {
    pub(super) fn new(queue: Arc<Queue>) -> Self {
        Self { queue }
    }

    /// Waits for enough blocks, or for the oldest to have waited long enough, or for the end of input, and takes them.
    /// `None` once the spool is closed and every block was acknowledged or dropped.
    ///
    /// Nothing is lost if the wait is cancelled.
    pub async fn lease(&mut self, limits: LeaseLimits) -> Option<Lease> {
        loop {
            let changed = self.queue.changed.notified();
            match self.queue.take(limits) {
                Take::Blocks(blocks) => return Some(Lease { queue: Arc::clone(&self.queue), blocks }),
                Take::Over => return None,
                Take::Nothing => changed.await,
                Take::Until(full_enough) => tokio::select! {
                    () = changed => {}
                    () = sleep_until(full_enough) => {}
                },
            }
        }
    }

    /// Cancelled when nothing more will come and all that is left is to be delivered without delay.
    pub fn closed(&self) -> CancellationToken {
        self.queue.closed.clone()
    }

    /// What the queue holds now.
    pub fn snapshot(&self) -> QueueSnapshot {
        self.queue.snapshot()
    }

    /// A way to ask for snapshots while somebody else takes the leases.
    pub fn observer(&self) -> impl Fn() -> QueueSnapshot + Clone + Send + Sync + 'static {
        let queue = Arc::clone(&self.queue);
        move || queue.snapshot()
    }
}

/// Blocks on their way out, oldest first. Dropped without [`Lease::ack`], they return to their places in the queue.
pub struct Lease {
    queue: Arc<Queue>,
    blocks: Vec<Waiting>,
}

impl Lease {
    /// The blocks, never none.
    pub fn blocks(&self) -> impl ExactSizeIterator<Item = &Block> + Clone {
        self.blocks.iter().map(|waiting| &waiting.block)
    }

    /// They are delivered, or given up for good: the queue forgets them.
    pub fn ack(mut self) {
        let blocks = std::mem::take(&mut self.blocks);
        self.queue.forget(&blocks);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if !self.blocks.is_empty() {
            self.queue.give_back(std::mem::take(&mut self.blocks));
        }
    }
}

pub(super) struct Queue {
    name: String,
    labels: Vec<(String, String)>,
    capacity_bytes: u64,
    metrics: QueueMetrics,
    state: Mutex<State>,
    /// A block came, went back or was acknowledged, or the end did.
    changed: Notify,
    /// Cancelled by the end of input.
    closed: CancellationToken,
}

#[derive(Default)]
struct State {
    /// In order of positions.
    waiting: VecDeque<Waiting>,
    next_position: u64,
    sum: Sum,
    leased: Sum,
    /// The oldest timestamps of leased blocks, by their positions.
    leased_oldest: BTreeMap<u64, i64>,
    closed: bool,
    dropped: Sum,
    warned: Option<(Instant, Sum)>,
}

/// A block in the queue.
struct Waiting {
    position: u64,
    arrived: Instant,
    block: Block,
}

impl Waiting {
    /// What it costs to keep it.
    fn bytes(&self) -> u64 {
        (self.block.elements.len() + size_of::<Self>()) as u64
    }
}

/// Blocks, summed up.
#[derive(Clone, Copy, Default)]
struct Sum {
    blocks: u64,
    samples: u64,
    message_bytes: u64,
    bytes: u64,
}

impl Sum {
    fn add(&mut self, one: &Waiting) {
        self.blocks += 1;
        self.samples += u64::from(one.block.samples);
        self.message_bytes += u64::from(one.block.raw_len);
        self.bytes += one.bytes();
    }

    /// `one` was added before.
    fn remove(&mut self, one: &Waiting) {
        self.blocks -= 1;
        self.samples -= u64::from(one.block.samples);
        self.message_bytes -= u64::from(one.block.raw_len);
        self.bytes -= one.bytes();
    }

    fn reaches(&self, limits: LeaseLimits) -> bool {
        self.samples >= limits.max_samples || self.message_bytes >= limits.max_message_bytes
    }

    fn exceeds(&self, limits: LeaseLimits) -> bool {
        self.samples > limits.max_samples || self.message_bytes > limits.max_message_bytes
    }
}

/// What an outlet finds.
enum Take {
    Blocks(Vec<Waiting>),
    /// Blocks wait, but may wait for more until then.
    Until(Instant),
    Nothing,
    Over,
}

impl Queue {
    pub(super) fn new(settings: QueueSettings, metrics: &Metrics) -> Self {
        let metrics = metrics.queue(&settings.labels);
        metrics.capacity_bytes.set(gauge(settings.capacity_bytes));
        Self {
            name: settings.name,
            labels: settings.labels,
            capacity_bytes: settings.capacity_bytes,
            metrics,
            state: Mutex::default(),
            changed: Notify::new(),
            closed: CancellationToken::new(),
        }
    }

    /// What its metrics carry.
    pub(super) fn labels(&self) -> &Vec<(String, String)> {
        &self.labels
    }

    pub(super) fn push(&self, block: Block) {
        self.metrics.saw(block.max_ms);
        let mut state = self.state();
        let one = Waiting { position: state.next_position, arrived: Instant::now(), block };
        state.next_position += 1;
        state.sum.add(&one);
        state.waiting.push_back(one);
        self.settle(state);
    }

    pub(super) fn close(&self) {
        self.state().closed = true;
        self.closed.cancel();
        self.changed.notify_one();
    }

    fn take(&self, limits: LeaseLimits) -> Take {
        let mut state = self.state();
        let Some(oldest) = state.waiting.front() else {
            // A lease that is still out may come back.
            return if state.closed && state.leased.blocks == 0 { Take::Over } else { Take::Nothing };
        };
        let until = oldest.arrived + limits.linger;
        if !state.closed && !state.sum.reaches(limits) && Instant::now() < until {
            return Take::Until(until);
        }

        let mut taken = Vec::new();
        let mut sum = Sum::default();
        while let Some(next) = state.waiting.front() {
            sum.add(next);
            if sum.exceeds(limits) && !taken.is_empty() {
                break;
            }
            let Some(next) = state.waiting.pop_front() else { break };
            state.sum.remove(&next);
            state.leased.add(&next);
            state.leased_oldest.insert(next.position, next.block.min_ms);
            taken.push(next);
        }
        self.show(&state);
        Take::Blocks(taken)
    }

    fn forget(&self, blocks: &[Waiting]) {
        let mut state = self.state();
        for one in blocks {
            state.unlease(one);
        }
        self.settle(state);
    }

    fn give_back(&self, blocks: Vec<Waiting>) {
        let mut state = self.state();
        for one in blocks.into_iter().rev() {
            state.unlease(&one);
            state.sum.add(&one);
            let at = state.waiting.partition_point(|other| other.position < one.position);
            state.waiting.insert(at, one);
        }
        self.settle(state);
    }

    /// After a change: drops what is too much, shows the new state, wakes who waits for it.
    fn settle(&self, mut state: MutexGuard<'_, State>) {
        while state.sum.bytes > self.capacity_bytes && state.waiting.len() > 1 {
            let Some(oldest) = state.waiting.pop_front() else { break };
            state.sum.remove(&oldest);
            state.dropped.add(&oldest);
            self.metrics.dropped_blocks.inc();
            self.metrics.dropped_samples.inc_by(u64::from(oldest.block.samples));
        }
        let lost = state.lost_since_warning();
        self.show(&state);
        drop(state);
        if let Some(lost) = lost {
            tracing::warn!(
                queue = self.name,
                blocks = lost.blocks,
                samples = lost.samples,
                capacity_bytes = self.capacity_bytes,
                "the queue is full: the oldest blocks were dropped; the receiver is down or too slow"
            );
        }
        self.changed.notify_one();
    }

    fn show(&self, state: &State) {
        self.metrics.pending_samples.set(gauge(state.sum.samples + state.leased.samples));
        self.metrics.waiting_bytes.set(gauge(state.sum.bytes));
    }

    fn snapshot(&self) -> QueueSnapshot {
        let state = self.state();
        let waiting = state.waiting.iter().map(|one| one.block.min_ms);
        let leased = state.leased_oldest.values().copied();
        QueueSnapshot {
            pending_blocks: state.sum.blocks + state.leased.blocks,
            pending_samples: state.sum.samples + state.leased.samples,
            waiting_bytes: state.sum.bytes,
            capacity_bytes: self.capacity_bytes,
            oldest_ms: waiting.chain(leased).min(),
            dropped_blocks: state.dropped.blocks,
            dropped_samples: state.dropped.samples,
        }
    }

    /// Nothing under this lock panics, so a poisoned state is a whole one.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn unlease(&mut self, one: &Waiting) {
        self.leased.remove(one);
        self.leased_oldest.remove(&one.position);
    }

    /// What was dropped and not yet said, if it is time to say so.
    fn lost_since_warning(&mut self) -> Option<Sum> {
        let (last, said) = match self.warned {
            Some((last, said)) => (Some(last), said),
            None => (None, Sum::default()),
        };
        let silent = self.dropped.blocks == said.blocks || last.is_some_and(|last| last.elapsed() < WARN_EVERY);
        if silent {
            return None;
        }
        self.warned = Some((Instant::now(), self.dropped));
        Some(Sum {
            blocks: self.dropped.blocks - said.blocks,
            samples: self.dropped.samples - said.samples,
            ..Sum::default()
        })
    }
}

fn gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
