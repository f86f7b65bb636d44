//! What an earlier run has left, of which the receiver may have some already.
//!
//! A process that was killed has not written down what was acknowledged last, so that it comes again. A receiver that refuses
//! a request as a whole for one sample that is older than the newest of its series, as Prometheus does with remote write 1.0,
//! refuses with it what is new in the request. A scrape as it was sent is either there or not, so until something of a target
//! was taken its scrapes are tried one by one:
//!
//! ```text
//! first scrape of each target ─┬─ taken: the rest of these targets is sent as ever
//!                              └─ rejected ─▶ each alone ─┬─ taken: the rest is sent as ever
//!                                                         └─ rejected ─▶ its series; nothing taken: then its next scrape
//! ```
//! What always holds: the scrapes of a target go in their order; that a receiver refuses what it has already says nothing of
//! what it takes, so it is not believed to take nothing. A scrape that it has looks as if all its series were at fault: series
//! that are at fault are searched for at length once for each target, then only if one half of a scrape is taken.

use std::collections::HashSet;

use super::delivery::{Delivery, Rejection, Settled};
use super::narrow::Search;
use super::parts::{by_format, by_target, spans_targets};
use crate::model::{Block, TargetId};
use crate::spool::Lease;

/// What is known of the targets of which an earlier run left something.
#[derive(Default)]
pub(super) struct Earlier {
    /// Something of them was taken since.
    taken: HashSet<TargetId>,
    /// Something of them was rejected, all its series alike.
    rejected: HashSet<TargetId>,
}

impl Delivery {
    /// Settles of a lease what the receiver may have already; the rest stays in it.
    pub(super) async fn deliver_earlier(&self, lease: &mut Lease) {
        if !lease.has_earlier() {
            self.state().earlier = Earlier::default();
            return;
        }
        while let Some(round) = self.next_of_each(lease) {
            for part in by_format(round) {
                self.deliver_round(part).await;
            }
        }
    }

    /// The oldest block of each target of which nothing was taken yet.
    fn next_of_each(&self, lease: &mut Lease) -> Option<Lease> {
        let (state, mut known) = (self.state(), HashSet::new());
        lease.take_out_earlier(|block| !state.earlier.taken.contains(&block.target) && known.insert(block.target))
    }

    async fn deliver_round(&self, mut part: Lease) {
        let mut blocks: Vec<_> = part.blocks().cloned().collect();
        match self.settle(&mut blocks, Some(&mut part)).await {
            Settled::Delivered => self.has_taken(&blocks),
            Settled::Rejected(rejection) if !self.may_split_earlier(&rejection) => {
                self.drop_rejected(&blocks, rejection, None);
            }
            Settled::Rejected(_) if spans_targets(&blocks) => {
                for mut one in by_target(part) {
                    let mut blocks: Vec<_> = one.blocks().cloned().collect();
                    match self.settle(&mut blocks, Some(&mut one)).await {
                        Settled::Delivered => self.has_taken(&blocks),
                        Settled::Rejected(rejection) => self.rejects_earlier(blocks, rejection).await,
                        Settled::Nothing => {}
                    }
                    one.ack();
                }
                return;
            }
            Settled::Rejected(rejection) => self.rejects_earlier(blocks, rejection).await,
            Settled::Nothing => {}
        }
        part.ack();
    }

    /// It may have them already, or not want some of their series.
    async fn rejects_earlier(&self, blocks: Vec<Block>, rejection: Rejection) {
        let Some(target) = blocks.first().map(|block| block.target) else { return };
        if !self.may_split_earlier(&rejection) {
            return self.drop_rejected(&blocks, rejection, None);
        }
        let is_first = self.state().earlier.rejected.insert(target);
        let search = if is_first { Search::Again } else { Search::AgainBriefly };
        if self.search(blocks, Some(rejection), search).await {
            self.state().earlier.taken.insert(target);
        }
    }

    fn has_taken(&self, blocks: &[Block]) {
        self.state().earlier.taken.extend(blocks.iter().map(|block| block.target));
    }

    fn may_split_earlier(&self, rejection: &Rejection) -> bool {
        self.remote.queue.split_rejected && rejection.is_about_content()
    }
}
