//! The way out of a queue: leases of its blocks, which are acknowledged or return.
//!
//! A queue has one outlet at a time that is given anything; of leases there may be several, never two with blocks of one target.
//! Which blocks those are is the business of [the window](super::window); this file gives them to whoever sends, and takes
//! back what he drops.

use std::sync::Arc;

use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;

use super::queue::{Queue, QueueSnapshot};
use super::window::{LeaseLimits, Refused, Take, Waiting};
use crate::model::Block;

/// The way out of one queue, until another one is opened to it.
pub struct Outlet {
    queue: Arc<Queue>,
    number: u64,
    closed: CancellationToken,
}

impl Outlet {
    /// The only one of `queue` from now on; an earlier one finds the queue to be over.
    pub(super) fn new(queue: Arc<Queue>) -> Self {
        let (number, closed) = queue.add_outlet();
        Self { queue, number, closed }
    }

    /// Waits for enough blocks, or for the oldest to have waited long enough, or for the end of input, and takes them.
    /// There may be several leases at a time, which never have blocks of the same target. All blocks of one are of one
    /// tenant.
    ///
    /// `None` once the queue is closed and every block was acknowledged or dropped, or once another outlet was opened.
    ///
    /// Nothing is lost if the wait is cancelled.
    pub async fn lease(&mut self, limits: LeaseLimits) -> Option<Lease> {
        self.lease_except(limits, &Refused::default()).await
    }

    /// The same, without what waits for tenants that are `refused`; when these are others, it is to be asked anew. Only what
    /// is [overdue](Lease::is_overdue) is of one of them.
    pub async fn lease_except(&mut self, limits: LeaseLimits, refused: &Refused) -> Option<Lease> {
        loop {
            let changed = self.queue.changed();
            let lease = |blocks, is_overdue| Some(Lease { queue: Arc::clone(&self.queue), blocks, is_overdue });
            match self.queue.take(self.number, limits, refused) {
                Take::Blocks(blocks) => return lease(blocks, false),
                Take::Overdue(blocks) => return lease(blocks, true),
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
        self.closed.clone()
    }

    /// What the queue holds now.
    pub fn snapshot(&self) -> QueueSnapshot {
        self.queue.snapshot()
    }

    /// Whether the queue is on disk, or would be if that worked: then what is left at its end is no business of the outlet.
    pub fn is_on_disk(&self) -> bool {
        self.queue.disk_limits().is_some()
    }

    /// Whether another outlet has taken over: what is pending is its business.
    pub fn is_superseded(&self) -> bool {
        !self.queue.is_newest(self.number)
    }

    /// A way to ask for snapshots while somebody else takes the leases.
    pub fn observer(&self) -> impl Fn() -> QueueSnapshot + Clone + Send + Sync + 'static {
        let queue = Arc::clone(&self.queue);
        move || queue.snapshot()
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        self.queue.remove_outlet();
    }
}

/// Blocks on their way out, oldest first. Dropped without [`Lease::ack`], they return to their places in the queue.
pub struct Lease {
    queue: Arc<Queue>,
    blocks: Vec<Waiting>,
    is_overdue: bool,
}

impl Lease {
    /// The blocks.
    pub fn blocks(&self) -> impl ExactSizeIterator<Item = &Block> + Clone {
        self.blocks.iter().map(|waiting| &waiting.block)
    }

    /// Whether these are the oldest blocks of a refused tenant, for which the others can wait no longer: they are to be given
    /// up.
    pub fn is_overdue(&self) -> bool {
        self.is_overdue
    }

    /// Takes those out for which `which` is true, as a lease of their own; `None` if there are none. This one may be left
    /// with nothing.
    pub fn take_out(&mut self, mut which: impl FnMut(&Block) -> bool) -> Option<Lease> {
        let blocks: Vec<_> = self.blocks.extract_if(.., |waiting| which(&waiting.block)).collect();
        let is_overdue = self.is_overdue;
        (!blocks.is_empty()).then(|| Lease { queue: Arc::clone(&self.queue), blocks, is_overdue })
    }

    /// Whether an earlier run has left any of them on disk. It may have sent them: what was acknowledged just before it was
    /// killed comes again.
    pub fn has_earlier(&self) -> bool {
        self.blocks.iter().any(Waiting::is_earlier)
    }

    /// Whether any of what an earlier run has left is not settled yet, be it in this lease, in another one or in the queue.
    pub fn is_earlier_left(&self) -> bool {
        self.queue.ask(|window| window.holds_earlier())
    }

    /// [`Lease::take_out`] of those that an earlier run has left.
    pub fn take_out_earlier(&mut self, mut which: impl FnMut(&Block) -> bool) -> Option<Lease> {
        let earlier = self.blocks.extract_if(.., |waiting| waiting.is_earlier() && which(&waiting.block));
        let (blocks, is_overdue): (Vec<_>, _) = (earlier.collect(), self.is_overdue);
        (!blocks.is_empty()).then(|| Lease { queue: Arc::clone(&self.queue), blocks, is_overdue })
    }

    /// They are delivered, or given up for good: the queue forgets them.
    pub fn ack(mut self) {
        let blocks = std::mem::take(&mut self.blocks);
        self.queue.with(|window| window.forget(&blocks));
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if !self.blocks.is_empty() {
            let blocks = std::mem::take(&mut self.blocks);
            self.queue.with(|window| window.give_back(blocks));
        }
    }
}
