//! What a receiver rejects together, sent target by target.
//!
//! ```text
//! rejected ─▶ each target alone ─┬─ one is taken ─▶ the rejected ones are searched, and go alone for a while
//!                                └─ none ─▶ one is searched ─┬─ something is taken ─▶ so are the others
//!                                                            └─ nothing ─▶ dropped, and for a minute it goes so:
//! rejected ─▶ one target alone ─┬─ taken ─▶ the others as above
//!                               └─ rejected ─▶ all are dropped
//! ```
//! What always holds: a receiver that takes nothing costs one request more for each that it rejects, or one for each scrape in
//! it where there are several of a target, as in a backlog, and two searches a minute:
//! one by whoever comes first, and one of a target that was given up for a minute without being searched, so that no target
//! hides for ever what the receiver takes of another, whichever come together. The one that is searched or tried is that for
//! which it is longest ago. A receiver that took something within the minute is none that takes nothing. What is kept of all
//! this is kept of each tenant.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::delivery::{Delivery, Rejection, Settled};
use super::parts::{SeriesId, spans_series, tenant_of};
use crate::model::{Block, TargetId, Tenant};
use crate::spool::Lease;

/// How long no request is sent again in parts after that helped nobody. Not for ever: a receiver that came to its senses may
/// still get a bad target in each request, and would never take one as a whole.
pub(super) const TOGETHER_FOR: Duration = Duration::from_secs(60);

/// How long others wait behind a target that may have gone.
const WAITING_FOR: Duration = Duration::from_secs(10 * 60);

/// How long it is known when a target had its turn. Targets come and go.
const TURNS_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// A target with samples that the receiver does not want.
pub(super) struct Apart {
    pub(super) since: Instant,
    /// Its series that are at fault, as far as they are known, and when each was last rejected alone; `None` if that may have
    /// been for another reason.
    pub(super) series: HashMap<SeriesId, Option<Instant>>,
    /// When samples of others were last taken while its own were rejected: it is not the receiver that takes nothing.
    pub(super) others_taken: Option<Instant>,
}

impl Apart {
    /// From now on.
    pub(super) fn new() -> Self {
        Self { since: Instant::now(), series: HashMap::new(), others_taken: None }
    }
}

/// When targets were last searched, and last tried alone for several of them.
#[derive(Default)]
pub(super) struct Turns {
    searched: HashMap<TargetId, Instant>,
    tried: HashMap<TargetId, Instant>,
}

/// The receiver rejects each part alone of what a tenant sends.
pub(super) struct AllRejected {
    since: Instant,
    /// A target that was given up without being searched, and since when it is its turn to be next.
    waiting: Option<(TargetId, Instant)>,
}

/// The blocks of one target that were rejected together, with the lease of them.
type Rejected = (Lease, Vec<Block>, Rejection);

/// Which of these targets had its turn longest ago, or never; `None` if there are none.
fn next(turns: &HashMap<TargetId, Instant>, of: impl Iterator<Item = TargetId>) -> Option<(usize, TargetId)> {
    of.enumerate().min_by_key(|(_, target)| turns.get(target))
}

/// This target has its turn now.
fn has_turn(turns: &mut HashMap<TargetId, Instant>, target: TargetId) {
    turns.retain(|_, last| last.elapsed() < TURNS_FOR);
    turns.insert(target, Instant::now());
}

impl Delivery {
    /// The receiver has rejected these blocks together: one of the targets may be at fault. Which of its series it is is
    /// asked last, so that the others need not wait for that. If each target alone is rejected, too, either the receiver takes
    /// nothing, or each of them has a series that it does not want: that is asked of one of them, another one each time.
    /// `any_delivered` is whether it has taken another one of them.
    pub(super) async fn deliver_apart(&self, targets: Vec<Lease>, mut any_delivered: bool) {
        let (mut any_unsettled, mut rejected) = (false, Vec::new());
        for mut part in targets {
            let mut blocks: Vec<_> = part.blocks().cloned().collect();
            match self.settle(&mut blocks, Some(&mut part)).await {
                Settled::Delivered => any_delivered = true,
                Settled::Rejected(rejection) => {
                    rejected.push((part, blocks, rejection));
                    continue;
                }
                Settled::Nothing => any_unsettled = true,
            }
            part.ack();
        }
        let any_rejected = !rejected.is_empty();
        let tenant = rejected.first().and_then(|(_, blocks, _)| tenant_of(blocks).cloned());
        if !any_delivered && let Some((part, blocks, rejection)) = self.one_to_search(&mut rejected) {
            let first = blocks.first().cloned();
            any_delivered = self.narrow(blocks, Some(rejection)).await;
            if !any_delivered {
                self.forgive(first.as_slice());
            }
            part.ack();
        }
        if !any_delivered && any_unsettled && tenant.as_ref().is_some_and(|tenant| self.tenants.gives_back(tenant)) {
            // What was given back might have been taken: these wait with it, and nothing is known of the receiver.
            self.state().all_rejected.remove(&tenant);
            return;
        }
        let mut any_taken = any_delivered;
        for (part, blocks, rejection) in rejected {
            if any_delivered && let Some(first) = blocks.first() {
                self.set_apart(first.target, true);
            }
            match self.is_to_be_split(&rejection) && (any_delivered || rejection.is_about_size()) {
                true => any_taken |= self.narrow(blocks, Some(rejection)).await,
                false => any_taken |= self.scrape_by_scrape(blocks, rejection).await,
            }
            part.ack();
        }
        if any_rejected && !any_taken && !any_unsettled {
            self.all_rejected(tenant);
        }
    }

    /// Takes one of these targets out of which some series may be wanted.
    fn one_to_search(&self, rejected: &mut Vec<Rejected>) -> Option<Rejected> {
        let may_help = |(_, blocks, rejection): &Rejected| {
            !rejection.is_about_size() && self.may_split(rejection, blocks) && spans_series(blocks)
        };
        let several: Vec<_> = (0..rejected.len()).filter(|at| may_help(&rejected[*at])).collect();
        let targets = several.iter().filter_map(|at| rejected[*at].1.first()).map(|block| block.target);
        let (turn, _) = next(&self.state().turns.searched, targets)?;
        Some(rejected.remove(several[turn]))
    }

    /// What is rejected by a receiver that took nothing of late, or for what no splitting helps. There is nothing to be
    /// asked but whether it takes one of the targets again, another one each time, and what of a target is newer than what is
    /// at fault.
    pub(super) async fn give_up_rejected(&self, mut targets: Vec<Lease>, rejection: Rejection) {
        let may_help = targets.len() > 1 && self.is_to_be_split(&rejection);
        let turn = if may_help { self.next_to_try(&targets) } else { None };
        if let Some(turn) = turn {
            let mut blocks: Vec<_> = targets[turn].blocks().cloned().collect();
            match self.settle(&mut blocks, Some(&mut targets[turn])).await {
                Settled::Delivered => {
                    targets.remove(turn).ack();
                    self.forgive(&blocks);
                    return self.deliver_apart(targets, true).await;
                }
                Settled::Nothing => {
                    targets.remove(turn).ack();
                    let tenant = targets.first().and_then(|lease| lease.blocks().next()?.tenant.clone());
                    if tenant.is_some_and(|tenant| self.tenants.gives_back(&tenant)) {
                        // Nothing is known of these: they wait with it.
                        return;
                    }
                }
                Settled::Rejected(_) => {}
            }
        }
        let each: Vec<Vec<_>> = targets.iter().map(|lease| lease.blocks().cloned().collect()).collect();
        // Once for all: what of them was written is known of all together only.
        match !self.is_to_be_split(&rejection) || each.iter().all(|blocks| blocks.len() == 1) {
            true => self.drop_rejected(&each.concat(), rejection, None),
            false => {
                for blocks in each {
                    self.scrape_by_scrape(blocks, rejection.clone()).await;
                }
            }
        }
        targets.into_iter().for_each(Lease::ack);
    }

    /// Which of these is tried alone for all of them.
    fn next_to_try(&self, targets: &[Lease]) -> Option<usize> {
        let tried = &mut self.state().turns.tried;
        let of = targets.iter().filter_map(|lease| lease.blocks().next()).map(|block| block.target);
        let (turn, target) = next(tried, of)?;
        has_turn(tried, target);
        Some(turn)
    }

    /// The receiver rejects each part of what this tenant sends alone. If it took something of late, that is about these parts.
    pub(super) fn all_rejected(&self, tenant: Option<Tenant>) {
        let mut state = self.state();
        if state.taken.was_of(&tenant) {
            return;
        }
        // Once in a while only: there may be many tenants.
        if state.swept.elapsed() >= TOGETHER_FOR {
            state.all_rejected.retain(|_, known| known.since.elapsed() < WAITING_FOR);
            state.swept = Instant::now();
        }
        let new = AllRejected { since: Instant::now(), waiting: None };
        state.all_rejected.entry(tenant).or_insert(new).since = Instant::now();
    }

    /// The receiver has taken something of this tenant.
    pub(super) fn has_taken_of(&self, tenant: Option<Tenant>) {
        let mut state = self.state();
        state.all_rejected.remove(&tenant);
        state.taken.note(tenant);
    }

    /// Whether the receiver has taken something of others since the requests of this tenant fail, one of which just did.
    pub(super) fn fails_alone(&self, tenant: &Tenant) -> bool {
        let since = self.tenants.fails(tenant);
        self.state().taken.besides(tenant).is_some_and(|last| last > since)
    }

    /// One target of these blocks is searched from now on.
    pub(super) fn is_searched(&self, blocks: &[Block]) {
        blocks.first().into_iter().for_each(|block| has_turn(&mut self.state().turns.searched, block.target));
    }

    /// Whether these blocks, which the receiver rejects as others before, are to be sent in parts nevertheless: because it is
    /// long enough that one of their targets waits for that. If nobody waits who was searched longer ago, it does from now on.
    pub(super) fn has_waited(&self, rejection: &Rejection, blocks: &[Block]) -> bool {
        if !self.is_to_be_split(rejection) || !spans_series(blocks) {
            return false;
        }
        let tenant = tenant_of(blocks).cloned();
        let mut guard = self.state();
        let state = &mut *guard;
        let searched = &state.turns.searched;
        let Some(known) = state.all_rejected.get_mut(&tenant) else { return false };
        known.waiting = known.waiting.filter(|(_, since)| since.elapsed() < WAITING_FOR);
        if let Some((target, since)) = known.waiting
            && since.elapsed() >= TOGETHER_FOR
            && blocks.iter().any(|block| block.target == target)
        {
            state.all_rejected.remove(&tenant);
            return true;
        }
        if let Some((_, target)) = next(searched, blocks.iter().map(|block| block.target))
            && known.waiting.is_none_or(|(other, _)| searched.get(&target) < searched.get(&other))
        {
            known.waiting = Some((target, Instant::now()));
        }
        false
    }

    /// Whether sending these blocks in parts may help.
    pub(super) fn may_split(&self, rejection: &Rejection, blocks: &[Block]) -> bool {
        let tenant = tenant_of(blocks).cloned();
        let helps = || self.state().all_rejected.get(&tenant).is_none_or(|known| known.since.elapsed() >= TOGETHER_FOR);
        self.is_to_be_split(rejection) && (rejection.is_about_size() || helps())
    }

    /// Whether what is rejected so is sent in parts where it is known that the receiver takes something.
    pub(super) fn is_to_be_split(&self, rejection: &Rejection) -> bool {
        self.remote.queue.split_rejected && rejection.is_about_content()
    }

    /// From now on this target is sent alone.
    pub(super) fn set_apart(&self, target: TargetId, others_taken: bool) {
        let mut state = self.state();
        let apart = state.apart.entry(target).or_insert_with(Apart::new);
        apart.since = Instant::now();
        if others_taken {
            apart.others_taken = Some(Instant::now());
        }
    }

    /// Whoever is delivered alone may travel with the others again.
    pub(super) fn forgive(&self, blocks: &[Block]) {
        let apart = &mut self.state().apart;
        for block in blocks {
            apart.remove(&block.target);
        }
    }
}
