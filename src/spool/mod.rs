//! Blocks between scraping and sending: one bounded queue per receiver, on disk where there is a data directory.
//!
//! ```text
//! targets' tasks ──mpsc──▶ Spool::run ──push──▶ queue 0 ──lease──▶ sender 0 ──ack──▶ forgotten
//!                                      │         ▲ │ append, read, ack
//!                                      │         │ ▼
//!                                      │        log 0 (a thread, files in DATA_DIR/spool/<receiver>/)
//!                                      └──push─▶ queue 1 ──lease──▶ sender 1 ──drop─▶ back in its old place
//! ```
//!
//! What always holds:
//! - taking a block in never waits for a receiver or for a disk: a full queue drops its oldest blocks, counts them and says so;
//! - the blocks of a target leave a queue in the order in which they came, also after a lease was returned and after a
//!   restart, and as long as one of them is leased no other lease has any of that target; those of different targets may
//!   overtake each other only there. Where the newest are to go first, what came in of late overtakes what waits on disk, and
//!   each of the two keeps its order;
//! - a block is forgotten only when its lease is acknowledged, or when it is dropped and counted;
//! - queues know nothing of each other: a dead receiver fills its own queue and no other;
//! - queues come and go while blocks flow. One that is closed still hands out what it has; a block that comes for it later
//!   goes to the queue that took its number, or nowhere;
//! - a queue on disk belongs to its directory: whoever opens the directory again, in this process or in the next, gets what
//!   was left in it.
//!
//! How a block gets to disk and when it is safe there is told in [`disk`], what the files look like in [`log`], [`segment`],
//! [`record`] and [`acknowledged`].
//!
//! This room knows bytes and headers only: not what a sample is, who receives, or how. The bound of memory counts what waits;
//! what is leased comes on top, and the limits of a lease bound that.

mod acknowledged;
mod count;
mod disk;
mod done;
mod home;
mod log;
mod lost;
mod made_up;
#[cfg(test)]
mod memory;
mod metrics;
mod outlet;
mod pauses;
mod queue;
mod record;
mod segment;
mod storage;
mod strays;
mod window;

#[cfg(test)]
mod against_model;
#[cfg(test)]
mod lives;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::clock::Clock;
use crate::model::Block;
use count::Count;
use disk::{Disk, Ticks};
use queue::Queue;

pub use disk::DiskLimits;
pub use home::{Home, HomeError};
#[doc(hidden)]
pub use made_up::read_made_up;
pub use metrics::Metrics;
pub use outlet::{Lease, Outlet};
pub use queue::{DiskSnapshot, QueueSnapshot};
pub use window::{LeaseLimits, Refused};

/// How often directories that no receiver uses are looked after.
const STRAYS_EVERY: Duration = Duration::from_secs(600);

/// How long the end waits for the disk to take what is left.
const DISK_PATIENCE: Duration = Duration::from_secs(10);

/// What nobody will deliver any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Undelivered {
    /// Blocks.
    pub blocks: u64,
    /// Samples in them.
    pub samples: u64,
}

/// One queue, as the composition root wants it.
#[derive(Clone, Debug)]
pub struct QueueSettings {
    /// Its name, for the log.
    pub name: String,
    /// What its metrics carry; the same names for all queues.
    pub labels: Vec<(String, String)>,
    /// How many bytes of blocks may wait in memory; at least the newest block waits whatever its size.
    pub capacity_bytes: u64,
    /// Where it is on disk; without effect where there is no data directory.
    pub disk: Option<DiskSettings>,
}

/// The disk part of one queue, as the composition root wants it.
#[derive(Clone, Debug)]
pub struct DiskSettings {
    /// The name of its directory: a plain file name that stays the same as long as what is inside is for the same receiver,
    /// and that no other queue has at the same time.
    pub directory: String,
    /// Its bounds.
    pub limits: DiskLimits,
    /// Whether what comes in goes before what waits on disk: for receivers that take samples in any order. Otherwise the
    /// oldest goes first.
    pub newest_first: bool,
}

/// The queues of all receivers. Clones are the same spool.
#[derive(Clone)]
pub struct Spool {
    queues: Arc<RwLock<HashMap<usize, Arc<Queue>>>>,
    metrics: Metrics,
    disks: Option<Arc<Disks>>,
}

/// The queues that are on disk.
struct Disks {
    home: Home,
    clock: Clock,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// By their directories.
    queues: HashMap<String, Weak<Queue>>,
    /// Each tells when its thread has ended, and what was lost by that.
    running: Vec<(Weak<Queue>, oneshot::Receiver<Count>)>,
    /// What was lost by those that have ended.
    lost: Count,
    /// The directories that were begun to be used since strays were looked after.
    begun: HashSet<String>,
}

impl Spool {
    /// In memory, without queues yet.
    pub fn new(metrics: Metrics) -> Self {
        Self { queues: Arc::default(), metrics, disks: None }
    }

    /// On disk, without queues yet.
    pub fn at(home: Home, clock: Clock, metrics: Metrics) -> Self {
        let disks = Disks { home, clock, known: Mutex::default() };
        Self { queues: Arc::default(), metrics, disks: Some(Arc::new(disks)) }
    }

    /// Whether queues can be on disk.
    pub fn is_on_disk(&self) -> bool {
        self.disks.is_some()
    }

    /// Whether there is a directory of this name for a queue.
    pub fn has(&self, directory: &str) -> bool {
        self.disks.as_ref().is_some_and(|disks| disks.home.path_of(directory).is_dir())
    }

    /// A queue for the blocks whose [`Block::receiver`] is `receiver`, in place of the one that there may be. The outlet is
    /// the only way out.
    ///
    /// If its directory is that of a queue which still has something, it is that queue, closed or not, and the earlier outlet
    /// is over. Otherwise the one before is closed.
    pub fn open(&self, receiver: usize, mut settings: QueueSettings) -> Outlet {
        if self.disks.is_none() {
            settings.disk = None;
        }
        self.write(|queues| {
            let before = queues.remove(&receiver);
            let queue = self.reopened(before.as_ref(), &settings);
            if before.as_ref().is_some_and(|before| queue.as_ref().is_none_or(|queue| !Arc::ptr_eq(before, queue))) {
                self.end(before);
            }
            let queue = queue.unwrap_or_else(|| self.begin(receiver, settings));
            queues.insert(receiver, Arc::clone(&queue));
            Outlet::new(queue)
        })
    }

    /// The queue that has the directory already, opened again.
    fn reopened(&self, before: Option<&Arc<Queue>>, settings: &QueueSettings) -> Option<Arc<Queue>> {
        let (disks, disk) = (self.disks.as_ref()?, settings.disk.as_ref()?);
        let queue = disks.known().queues.get(&disk.directory).and_then(Weak::upgrade)?;
        let labels = queue.labels();
        if !queue.reopen(settings.clone(), &self.metrics) {
            return None;
        }
        if labels != settings.labels && before.is_some_and(|before| Arc::ptr_eq(before, &queue)) {
            self.metrics.forget(&labels);
        }
        Some(queue)
    }

    /// A new queue.
    fn begin(&self, receiver: usize, settings: QueueSettings) -> Arc<Queue> {
        let (Some(disks), Some(disk)) = (&self.disks, settings.disk.clone()) else {
            return Arc::new(Queue::new(settings, &self.metrics));
        };
        let queue = Arc::new(Queue::new(settings.clone(), &self.metrics));
        match disks.start(receiver, &queue, &disk) {
            Ok(()) => queue,
            Err(error) => {
                tracing::error!(queue = settings.name, %error, "no thread for the disk: the queue is kept in memory");
                Arc::new(Queue::new(QueueSettings { disk: None, ..settings }, &self.metrics))
            }
        }
    }

    /// Nothing more will come for this receiver: its outlet hands out what is left, without waiting for more, and then
    /// ends.
    pub fn close(&self, receiver: usize) {
        self.write(|queues| self.end(queues.remove(&receiver)));
    }

    /// Takes in what arrives until all senders of `blocks` are gone, then closes the queues.
    pub async fn run(self, mut blocks: mpsc::Receiver<Block>) {
        let mut strays = tokio::time::interval(STRAYS_EVERY);
        let known_strays = Arc::default();
        loop {
            tokio::select! {
                biased;
                block = blocks.recv() => match block {
                    Some(block) => self.push(block),
                    None => break,
                },
                _ = strays.tick(), if self.disks.is_some() => self.look_after_strays(Arc::clone(&known_strays)),
            }
        }
        self.write(|queues| queues.drain().for_each(|(_, queue)| queue.close()));
    }

    /// Takes one block in; never waits.
    pub fn push(&self, block: Block) {
        // Held while it is taken in: a queue that is closed has got all that came before.
        let queues = self.queues.read().unwrap_or_else(PoisonError::into_inner);
        match queues.get(&block.receiver) {
            Some(queue) => queue.push(block),
            None => tracing::debug!(receiver = block.receiver, "a block for a receiver that is gone"),
        }
    }

    /// Waits until what is left of all queues, which must be closed and without outlets, is on disk: how much is not, of
    /// all queues that have ended, and is lost.
    pub async fn finish(&self) -> Undelivered {
        let Some(disks) = &self.disks else { return Undelivered::default() };
        let mut running = std::mem::take(&mut disks.known().running);
        let mut lost = disks.known().lost;
        let deadline = Instant::now() + DISK_PATIENCE;
        for (queue, ended) in &mut running {
            let left = match timeout_at(deadline, ended).await {
                // An end without a word is an end.
                Ok(ended) => ended.unwrap_or_default(),
                Err(_) => {
                    let left = queue.upgrade().map(|queue| queue.ask(|window| window.in_memory_only()));
                    let left = left.unwrap_or_default();
                    tracing::error!(
                        dir = %disks.home.dir().display(),
                        seconds = DISK_PATIENCE.as_secs(),
                        blocks = left.blocks,
                        samples = left.samples,
                        "the disk does not answer: what was not written to it is lost"
                    );
                    left
                }
            };
            lost += left;
        }
        Undelivered { blocks: lost.blocks, samples: lost.samples }
    }

    fn look_after_strays(&self, known: Arc<Mutex<strays::Known>>) {
        let Some(disks) = self.disks.clone() else { return };
        tokio::task::spawn_blocking(move || {
            let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
            disks.look_after_strays(Instant::now(), &mut known);
        });
    }

    fn end(&self, queue: Option<Arc<Queue>>) {
        if let Some(queue) = queue {
            self.metrics.forget(&queue.labels());
            queue.close();
        }
    }

    fn write<T>(&self, change: impl FnOnce(&mut HashMap<usize, Arc<Queue>>) -> T) -> T {
        change(&mut self.queues.write().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Disks {
    fn start(&self, receiver: usize, queue: &Arc<Queue>, settings: &DiskSettings) -> std::io::Result<()> {
        let (home, directory) = (self.home.clone(), settings.directory.clone());
        let shown = home.path_of(&directory);
        let place = Box::new(move || home.directory(&directory));
        let ticks = Ticks::from(self.clock.now_ms());
        let limits = settings.limits.of_log();
        let disk = Disk::new(Arc::clone(queue), (place, shown), limits, receiver, ticks, true);
        let (ended, running) = oneshot::channel();
        std::thread::Builder::new().name("spool".to_owned()).spawn(move || {
            // Nobody may be waiting for it.
            let _ = ended.send(disk::run(disk));
        })?;
        let mut known = self.known();
        let mut lost = known.lost;
        known.running.retain_mut(|(_, one)| match one.try_recv() {
            Err(error) => error == oneshot::error::TryRecvError::Empty,
            Ok(left) => {
                lost += left;
                false
            }
        });
        known.lost = lost;
        known.running.push((Arc::downgrade(queue), running));
        known.queues.retain(|_, queue| queue.strong_count() > 0);
        known.queues.insert(settings.directory.clone(), Arc::downgrade(queue));
        known.begun.insert(settings.directory.clone());
        Ok(())
    }

    /// May block.
    fn look_after_strays(&self, now: Instant, known: &mut strays::Known) {
        // Who came back and went again has left something new.
        let begun = std::mem::take(&mut self.known().begun);
        known.retain(|name, _| !begun.contains(name));
        strays::look_after(&self.home, &self.in_use(), now, known);
    }

    /// The directories that are.
    fn in_use(&self) -> HashSet<String> {
        let known = self.known();
        let living = known.queues.iter().filter(|(_, queue)| queue.strong_count() > 0);
        living.map(|(directory, _)| directory.clone()).collect()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
