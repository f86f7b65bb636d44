//! What leases may have next: the waiting blocks by their tenants and targets.
//!
//! ```text
//!  heads       lanes, of one tenant each            strands, of one target each
//!  7 ▶ shop    ready: 7 ▶ T1, 9 ▶ T4; their sum     T1: 7 8 12
//!  8 ▶ bank    ready: 8 ▶ T2; its sum               T4: 9
//! ```
//! A lease has blocks of one lane, and strands of a target of which another lease has something are not ready. So who takes a
//! lease looks at the first lanes and at the blocks that it takes, however many wait behind them.
//!
//! What always holds: a strand is in `ready` of its lane, and in its sum, if and only if nothing of its target is leased; each
//! lane with anything ready has its oldest such number in `heads`, and in `full` if all that is ready reaches the limits of a
//! lease; what is empty is not there; `unready_bytes` is what is in no lane's sum. It knows numbers and sums, and neither where blocks are nor what time it is.

use std::collections::btree_set;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::LeaseLimits;
use super::{Sum, Waiting};
use crate::model::{TargetId, Tenant};

#[derive(Default)]
pub(super) struct Lanes {
    lanes: HashMap<Option<Tenant>, Lane>,
    targets: HashMap<TargetId, OfTarget>,
    heads: BTreeMap<u64, Option<Tenant>>,
    full: BTreeSet<u64>,
    /// The samples and bytes of a message that make a lane full.
    limits: (u64, u64),
    /// The bytes of what is not ready.
    unready_bytes: u64,
}

#[derive(Default)]
struct Lane {
    ready: BTreeMap<u64, TargetId>,
    /// Of what is ready.
    sum: Sum,
    /// Of all of it in memory.
    bytes: u64,
}

#[derive(Default)]
struct OfTarget {
    /// How many of its blocks are.
    leased: u64,
    /// By their tenants: more than one only if that was changed.
    strands: Vec<(Option<Tenant>, Strand)>,
}

#[derive(Default)]
struct Strand {
    numbers: BTreeSet<u64>,
    sum: Sum,
}

impl Lane {
    fn unready_bytes(&self) -> u64 {
        self.bytes - self.sum.bytes
    }

    fn head(&self) -> Option<u64> {
        self.ready.first_key_value().map(|(head, _)| *head)
    }

    /// The strand of this target begins elsewhere.
    fn moved(&mut self, target: TargetId, before: Option<u64>, after: Option<u64>) {
        if before != after {
            before.and_then(|before| self.ready.remove(&before));
            after.and_then(|after| self.ready.insert(after, target));
        }
    }
}

impl Strand {
    fn head(&self) -> Option<u64> {
        self.numbers.first().copied()
    }
}

impl OfTarget {
    fn strand(&self, tenant: &Option<Tenant>) -> Option<&Strand> {
        self.strands.iter().find(|(of, _)| of == tenant).map(|(_, strand)| strand)
    }
}

impl Lanes {
    /// None, of targets of which as much is leased as of these.
    pub(super) fn leased_alike(&self) -> Self {
        let leased = self.targets.iter().filter(|(_, of)| of.leased > 0);
        let targets = leased.map(|(target, of)| (*target, OfTarget { leased: of.leased, strands: Vec::new() }));
        Self { targets: targets.collect(), ..Self::default() }
    }

    /// A block waits.
    pub(super) fn add(&mut self, one: &Waiting) {
        let (target, tenant) = (one.block.target, &one.block.tenant);
        let of = self.targets.entry(target).or_default();
        let is_ready = of.leased == 0;
        let at = of.strands.iter().position(|(known, _)| known == tenant).unwrap_or_else(|| {
            of.strands.push((tenant.clone(), Strand::default()));
            of.strands.len() - 1
        });
        let strand = &mut of.strands[at].1;
        let before = strand.head();
        strand.numbers.insert(one.number);
        strand.sum.add(one);
        let after = strand.head();
        self.change(tenant, |lane| {
            lane.bytes += one.bytes();
            if is_ready {
                lane.moved(target, before, after);
                lane.sum.add(one);
            }
        });
    }

    /// It waits no more; it was added before.
    pub(super) fn remove(&mut self, one: &Waiting) {
        let (target, tenant) = (one.block.target, &one.block.tenant);
        let Some(of) = self.targets.get_mut(&target) else { return };
        let is_ready = of.leased == 0;
        let Some(at) = of.strands.iter().position(|(known, _)| known == tenant) else { return };
        let strand = &mut of.strands[at].1;
        let before = strand.head();
        strand.numbers.remove(&one.number);
        strand.sum.remove(one);
        let after = strand.head();
        if after.is_none() {
            of.strands.swap_remove(at);
            self.drop_if_empty(target);
        }
        self.change(tenant, |lane| {
            lane.bytes -= one.bytes();
            if is_ready {
                lane.moved(target, before, after);
                lane.sum.remove(one);
            }
        });
    }

    /// A block of this target is leased: the others are not to be.
    pub(super) fn lease(&mut self, target: TargetId) {
        let of = self.targets.entry(target).or_default();
        of.leased += 1;
        if of.leased == 1 {
            self.set_ready(target, false);
        }
    }

    /// That is over.
    pub(super) fn unlease(&mut self, target: TargetId) {
        let Some(of) = self.targets.get_mut(&target) else { return };
        of.leased -= 1;
        if of.leased == 0 {
            self.set_ready(target, true);
            self.drop_if_empty(target);
        }
    }

    /// The oldest block that a lease may have of any tenant who `may_have` one: its number and whose it is.
    pub(super) fn first(&self, may_have: impl Fn(Option<&Tenant>) -> bool) -> Option<(u64, Option<Tenant>)> {
        let (head, tenant) = self.heads.iter().find(|(_, tenant)| may_have(tenant.as_ref()))?;
        Some((*head, tenant.clone()))
    }

    /// The same of those who have enough for a lease.
    pub(super) fn first_full(
        &mut self,
        limits: LeaseLimits,
        may_have: impl Fn(Option<&Tenant>) -> bool,
    ) -> Option<Option<Tenant>> {
        let known = (limits.max_samples, limits.max_message_bytes);
        if self.limits != known {
            self.limits = known;
            let is_full = |lane: &&Lane| reaches(&lane.sum, known);
            self.full = self.lanes.values().filter(is_full).filter_map(Lane::head).collect();
        }
        let mut full = self.full.iter().filter_map(|head| self.heads.get(head));
        full.find(|tenant| may_have(tenant.as_ref())).cloned()
    }

    /// The oldest blocks of this tenant, as many as one lease may have.
    pub(super) fn pick(
        &self,
        tenant: &Option<Tenant>,
        limits: LeaseLimits,
        waiting: &BTreeMap<u64, Waiting>,
    ) -> Vec<u64> {
        let Some(lane) = self.lanes.get(tenant) else { return Vec::new() };
        let mut strands = lane.ready.iter().peekable();
        // The rest of those that were come to, by the next of each.
        let mut begun: BTreeMap<u64, btree_set::Range<'_, u64>> = BTreeMap::new();
        let (mut picked, mut sum) = (Vec::new(), Sum::default());
        loop {
            while let Some((head, target)) =
                strands.next_if(|(head, _)| begun.first_key_value().is_none_or(|(next, _)| *head < next))
            {
                let strand = self.targets.get(target).and_then(|of| of.strand(tenant));
                begun.extend(strand.map(|strand| (*head, strand.numbers.range(head + 1..))));
            }
            let Some((number, mut rest)) = begun.pop_first() else { return picked };
            begun.extend(rest.next().copied().map(|next| (next, rest)));
            let Some(one) = waiting.get(&number) else { continue };
            sum.add(one);
            if sum.exceeds(limits) && !picked.is_empty() {
                return picked;
            }
            picked.push(number);
            if sum.reaches(limits) {
                return picked;
            }
        }
    }

    /// How many bytes wait for these tenants.
    pub(super) fn bytes_of(&self, tenants: &HashSet<Tenant>) -> u64 {
        tenants.iter().filter_map(|tenant| self.lanes.get(&Some(tenant.clone()))).map(|lane| lane.bytes).sum()
    }

    /// How many bytes wait behind a lease of their target, besides those for these tenants.
    pub(super) fn unready_bytes(&self, besides: &HashSet<Tenant>) -> u64 {
        let theirs = besides.iter().filter_map(|tenant| self.lanes.get(&Some(tenant.clone())));
        self.unready_bytes - theirs.map(Lane::unready_bytes).sum::<u64>()
    }

    /// Whether a lease has something of this target.
    pub(super) fn is_leased(&self, target: TargetId) -> bool {
        self.targets.get(&target).is_some_and(|of| of.leased > 0)
    }

    /// Whether anything of this target waits.
    pub(super) fn has_any_of(&self, target: TargetId) -> bool {
        self.targets.get(&target).is_some_and(|of| !of.strands.is_empty())
    }

    /// Whether anything waits for anybody else.
    pub(super) fn has_others(&self, than: &HashSet<Tenant>) -> bool {
        self.lanes.keys().any(|tenant| tenant.as_ref().is_none_or(|tenant| !than.contains(tenant)))
    }

    /// All of a target may be leased, or nothing of it.
    fn set_ready(&mut self, target: TargetId, is_ready: bool) {
        let Some(of) = self.targets.get(&target) else { return };
        let strands: Vec<_> =
            of.strands.iter().map(|(tenant, strand)| (tenant.clone(), strand.head(), strand.sum)).collect();
        for (tenant, head, sum) in strands {
            self.change(&tenant, |lane| {
                if is_ready {
                    lane.moved(target, None, head);
                    lane.sum.add_all(&sum);
                } else {
                    lane.moved(target, head, None);
                    lane.sum.remove_all(&sum);
                }
            });
        }
    }

    /// Changes a lane, and what is known of all of them by that.
    fn change(&mut self, tenant: &Option<Tenant>, change: impl FnOnce(&mut Lane)) {
        let lane = self.lanes.entry(tenant.clone()).or_default();
        let before = lane.head();
        self.unready_bytes -= lane.unready_bytes();
        change(lane);
        self.unready_bytes += lane.unready_bytes();
        let (after, is_full) = (lane.head(), reaches(&lane.sum, self.limits));
        let is_empty = lane.bytes == 0;
        if before != after {
            before.and_then(|before| self.heads.remove(&before));
            before.map(|before| self.full.remove(&before));
            after.and_then(|after| self.heads.insert(after, tenant.clone()));
        }
        if let Some(after) = after {
            if is_full {
                self.full.insert(after);
            } else {
                self.full.remove(&after);
            }
        }
        // What waits costs memory, whatever is in it.
        if is_empty {
            self.lanes.remove(tenant);
        }
    }

    /// Whether nothing is known of anything.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.lanes.is_empty()
            && self.targets.is_empty()
            && self.heads.is_empty()
            && self.full.is_empty()
            && self.unready_bytes == 0
    }

    fn drop_if_empty(&mut self, target: TargetId) {
        if self.targets.get(&target).is_some_and(|of| of.leased == 0 && of.strands.is_empty()) {
            self.targets.remove(&target);
        }
    }
}

fn reaches(sum: &Sum, (max_samples, max_message_bytes): (u64, u64)) -> bool {
    sum.count.samples >= max_samples || sum.message_bytes >= max_message_bytes
}
