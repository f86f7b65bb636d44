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
//!                                                         └─ rejected ─▶ some of its series, each alone
//!       ┌────────────────────────────────────────────────────────────────────┘
//!       ├─ one is taken: the others are searched, as long as something of them is taken; the rest is sent as ever
//!       └─ none: it has had it, or takes nothing; then its next scrape
//! ```
//! What always holds: the scrapes of a target go in their order. Of a scrape that a receiver has already it takes no series,
//! and of any other it takes all but those at fault: so a few series tell the two apart, wherever those at fault stand, and
//! however many targets have such. They are others each time. Only what is equal to the newest that it has it takes again: then
//! little of what is searched is taken, and that is no fault of the series.

use std::collections::{HashMap, HashSet};

use tokio::time::sleep;

use super::delivery::{Delivery, Rejection, Settled};
use super::parts::{by_format, by_target, some_series, spans_targets, without};
use super::search::After;
use crate::model::{Block, TargetId};
use crate::spool::Lease;

/// How many series of a scrape are asked alone. That all of these are at fault, though it is new, would take a receiver that
/// does not want a good part of it.
const ASKED_ALONE: usize = 3;

/// What is known of the targets of which an earlier run left something.
#[derive(Default)]
pub(super) struct Earlier {
    /// Something of them was taken since.
    taken: HashSet<TargetId>,
    /// So many of their series were asked alone, and none was taken.
    asked: HashMap<TargetId, usize>,
}

impl Delivery {
    /// Settles of a lease what the receiver may have already; the rest stays in it.
    pub(super) async fn deliver_earlier(&self, lease: &mut Lease) {
        if !lease.has_earlier() {
            // Other leases may have what this one has not.
            if !lease.is_earlier_left() {
                self.state().earlier = Earlier::default();
            }
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
            Settled::Rejected(rejection) if !self.is_to_be_split(&rejection) => {
                self.drop_rejected(&blocks, rejection, None);
            }
            Settled::Rejected(_) if spans_targets(&blocks) => {
                let mut rejected = Vec::new();
                for mut one in by_target(part) {
                    let mut blocks: Vec<_> = one.blocks().cloned().collect();
                    match self.settle(&mut blocks, Some(&mut one)).await {
                        Settled::Delivered => self.has_taken(&blocks),
                        Settled::Rejected(rejection) => {
                            rejected.push((one, blocks, rejection));
                            continue;
                        }
                        Settled::Nothing => {}
                    }
                    one.ack();
                }
                for (one, blocks, rejection) in rejected {
                    self.rejects_earlier(blocks, rejection).await;
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
    async fn rejects_earlier(&self, mut blocks: Vec<Block>, rejection: Rejection) {
        if !self.is_to_be_split(&rejection) {
            return self.drop_rejected(&blocks, rejection, None);
        }
        let asked = match some_series(&blocks, self.next_asked(&blocks), ASKED_ALONE) {
            Ok(series) => series,
            Err(error) => return self.drop_damaged(&blocks, &error),
        };
        for series in asked {
            let [others, mut alone] = match without(&blocks, |one| *one == series) {
                Ok(parts) => parts,
                Err(error) => return self.drop_damaged(&blocks, &error),
            };
            match self.settle(&mut alone, None).await {
                Settled::Delivered => {
                    self.has_taken(&blocks);
                    self.search(others, Some(rejection), After::Restart).await;
                    return;
                }
                Settled::Rejected(_) => sleep(self.backoff.pauses().next(None)).await,
                Settled::Nothing => blocks = others,
            }
        }
        self.drop_rejected(&blocks, rejection, None);
    }

    /// How many series of this target were asked alone so far; from now on it is some more.
    fn next_asked(&self, blocks: &[Block]) -> usize {
        let mut state = self.state();
        let Some(block) = blocks.first() else { return 0 };
        let asked = state.earlier.asked.entry(block.target).or_default();
        std::mem::replace(asked, asked.wrapping_add(ASKED_ALONE))
    }

    fn has_taken(&self, blocks: &[Block]) {
        self.state().earlier.taken.extend(blocks.iter().map(|block| block.target));
    }
}
