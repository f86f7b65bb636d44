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
//! What always holds: the scrapes of a target go in their order. A scrape that a receiver has looks as if all its series were
//! at fault: for those that are, the 1st, 2nd, 4th, 8th and so on of the scrapes of a target are searched at length, the
//! others only if a quarter is taken. Where nothing was taken of many targets, one after the other, either the receiver has
//! all of that or it takes nothing: what is rejected is not searched until something is taken. Whether that is so is known of
//! each round before anything in it is searched.

use std::collections::{HashMap, HashSet};

use super::delivery::{Delivery, Rejection, Settled};
use super::narrow::Search;
use super::parts::{by_format, by_target, spans_targets, tenant_of};
use crate::model::{Block, TargetId, Tenant};
use crate::spool::Lease;

/// After how many targets of which nothing was taken, one after the other, no other is searched.
const MANY: usize = 10;

/// What is known of the targets of which an earlier run left something.
#[derive(Default)]
pub(super) struct Earlier {
    /// Something of them was taken since.
    taken: HashSet<TargetId>,
    /// So many scrapes of them were searched, and nothing was taken.
    rejected: HashMap<TargetId, u32>,
    /// Targets that were searched, of each tenant, since something of his was taken.
    fruitless: HashMap<Option<Tenant>, HashSet<TargetId>>,
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
            Settled::Rejected(rejection) if !self.may_split_earlier(&rejection) => {
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
    async fn rejects_earlier(&self, blocks: Vec<Block>, rejection: Rejection) {
        let Some(target) = blocks.first().map(|block| block.target) else { return };
        let tenant = tenant_of(&blocks).cloned();
        if !self.may_split_earlier(&rejection) || self.takes_nothing_earlier(&tenant) {
            return self.drop_rejected(&blocks, rejection, None);
        }
        let search = {
            let mut state = self.state();
            let times = state.earlier.rejected.entry(target).or_default();
            *times += 1;
            if times.is_power_of_two() { Search::Again } else { Search::AgainBriefly }
        };
        let first = blocks.first().cloned();
        match self.search(blocks, Some(rejection), search).await {
            true => self.has_taken(first.as_slice()),
            false => {
                self.state().earlier.fruitless.entry(tenant).or_default().insert(target);
            }
        }
    }

    fn has_taken(&self, blocks: &[Block]) {
        let mut state = self.state();
        state.earlier.taken.extend(blocks.iter().map(|block| block.target));
        if let Some(block) = blocks.first() {
            state.earlier.fruitless.remove(&block.tenant);
        }
    }

    /// Whether nothing was taken of many targets of this tenant, one after the other.
    fn takes_nothing_earlier(&self, tenant: &Option<Tenant>) -> bool {
        self.state().earlier.fruitless.get(tenant).is_some_and(|targets| targets.len() >= MANY)
    }

    fn may_split_earlier(&self, rejection: &Rejection) -> bool {
        self.remote.queue.split_rejected && rejection.is_about_content()
    }
}
