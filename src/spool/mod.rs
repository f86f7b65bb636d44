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
//! - queues know nothing of each other: a dead receiver fills its own queue and no other.
//!
//! This room knows bytes and headers only: not what a sample is, who receives, or how. The bound counts what waits; what
//! is leased comes on top, and the limits of a lease bound that.

mod metrics;
mod queue;

#[cfg(test)]
mod tests;

use std::sync::Arc;

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
    queues: Arc<[Arc<Queue>]>,
}

impl Spool {
    /// A queue for each of `settings`; [`Block::receiver`] is the position in it. The outlets, in the same order, are
    /// the only way out.
    pub fn new(settings: Vec<QueueSettings>, metrics: &Metrics) -> (Spool, Vec<Outlet>) {
        let queues: Arc<[_]> = settings.into_iter().map(|one| Arc::new(Queue::new(one, metrics))).collect();
        let outlets = queues.iter().cloned().map(Outlet::new).collect();
        (Spool { queues }, outlets)
    }

    /// Takes in what arrives until all senders of `blocks` are gone, then closes the queues.
    pub async fn run(self, mut blocks: mpsc::Receiver<Block>) {
        while let Some(block) = blocks.recv().await {
            self.push(block);
        }
        self.close();
    }

    /// Takes one block in; never waits.
    pub fn push(&self, block: Block) {
        match self.queues.get(block.receiver) {
            Some(queue) => queue.push(block),
            None => tracing::error!(
                receiver = block.receiver,
                queues = self.queues.len(),
                "BUG: a block for a receiver that does not exist; it is dropped"
            ),
        }
    }

    /// Nothing more will come: the outlets hand out what is left, without waiting for more, and then end.
    pub fn close(&self) {
        for queue in &*self.queues {
            queue.close();
        }
    }
}
