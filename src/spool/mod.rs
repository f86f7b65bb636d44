//! Blocks between scraping and sending: one bounded queue per receiver, in memory.
//!
//! ```text
//! targets' tasks ──mpsc──▶ Spool::run ──push──▶ queue 0 ──lease──▶ sender 0 ──ack──▶ forgotten
//!                                          └──▶ queue 1 ──lease──▶ sender 1 ──drop─▶ back in its old place
//! ```
//!
//! What always holds:
//! - taking a block in never waits for a receiver: a full queue drops its oldest blocks, counts them and says so;
//! - blocks leave a queue in the order in which they came, also after a lease was returned;
//! - a block is forgotten only when its lease is acknowledged, or when it is dropped and counted;
//! - queues know nothing of each other: a dead receiver fills its own queue and no other;
//! - queues come and go while blocks flow. One that is closed still hands out what it has; a block that comes for it later
//!   goes to the queue that took its number, or nowhere.
//!
//! This room knows bytes and headers only: not what a sample is, who receives, or how. The bound counts what waits; what
//! is leased comes on top, and the limits of a lease bound that.

mod done;
mod log;
#[cfg(test)]
mod memory;
mod metrics;
mod queue;
mod record;
mod segment;
mod storage;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::mpsc;

use crate::model::Block;
use queue::Queue;

pub use metrics::Metrics;
pub use queue::{Lease, LeaseLimits, Outlet, QueueSnapshot};

/// One queue, as the composition root wants it.
#[derive(Clone, Debug)]
pub struct QueueSettings {
    /// Its name, for the log.
    pub name: String,
    /// What its metrics carry; the same names for all queues.
    pub labels: Vec<(String, String)>,
    /// How many bytes of blocks may wait; at least the newest block waits whatever its size.
    pub capacity_bytes: u64,
}

/// The queues of all receivers. Clones are the same spool.
#[derive(Clone)]
pub struct Spool {
    queues: Arc<RwLock<HashMap<usize, Arc<Queue>>>>,
    metrics: Metrics,
}

impl Spool {
    /// Without queues yet.
    pub fn new(metrics: Metrics) -> Self {
        Self { queues: Arc::default(), metrics }
    }

    /// A new queue for the blocks whose [`Block::receiver`] is `receiver`, in place of the one that there may be, which is
    /// closed. The outlet is the only way out.
    pub fn open(&self, receiver: usize, settings: QueueSettings) -> Outlet {
        self.write(|queues| {
            self.end(queues.remove(&receiver));
            let queue = Arc::new(Queue::new(settings, &self.metrics));
            queues.insert(receiver, Arc::clone(&queue));
            Outlet::new(queue)
        })
    }

    /// Nothing more will come for this receiver: its outlet hands out what is left, without waiting for more, and then
    /// ends.
    pub fn close(&self, receiver: usize) {
        self.write(|queues| self.end(queues.remove(&receiver)));
    }

    /// Takes in what arrives until all senders of `blocks` are gone, then closes the queues.
    pub async fn run(self, mut blocks: mpsc::Receiver<Block>) {
        while let Some(block) = blocks.recv().await {
            self.push(block);
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

    fn end(&self, queue: Option<Arc<Queue>>) {
        if let Some(queue) = queue {
            self.metrics.forget(queue.labels());
            queue.close();
        }
    }

    fn write<T>(&self, change: impl FnOnce(&mut HashMap<usize, Arc<Queue>>) -> T) -> T {
        change(&mut self.queues.write().unwrap_or_else(PoisonError::into_inner))
    }
}
