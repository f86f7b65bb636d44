//! What a lease gets: the blocks of one tenant whose turn it is, and when it is nobody's.
//!
//! What always holds: nothing is taken before it is known which older blocks are on disk; of a target of which another lease
//! has something, and of what is behind the gap and not fresh, nothing is taken; whose oldest block has waited long enough goes
//! before all that came later. One lease is of the front or of what is fresh.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;

use super::lanes::Lanes;
use super::{Leased, Waiting, Window};
use crate::model::Tenant;

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

/// The tenants that the receiver refuses for now.
#[derive(Clone, Debug, Default)]
pub struct Refused {
    /// All of them.
    pub tenants: HashSet<Tenant>,
    /// Those of them of which one lease may be given up now, if others wait behind them.
    pub overdue: HashSet<Tenant>,
}

/// How long a lease is out before it is said not to end, where others wait for its end.
const STUCK_AFTER: Duration = Duration::from_secs(10);

impl Refused {
    /// Whether a lease may be of this tenant, or of none.
    fn may_have(&self, tenant: Option<&Tenant>) -> bool {
        tenant.is_none_or(|tenant| !self.tenants.contains(tenant))
    }
}

/// What an outlet finds.
pub(in crate::spool) enum Take {
    Blocks(Vec<Waiting>),
    /// The oldest blocks of a refused tenant, for which others would have to wait too long.
    Overdue(Vec<Waiting>),
    /// Blocks wait, but may wait for more until then.
    Until(Instant),
    Nothing,
    Over,
}

/// Whose turn it is of those that wait in some lanes.
enum Turn {
    Of(Option<Tenant>),
    /// Nobody's before then.
    Until(Instant),
    Nobodys,
}

impl Window {
    /// Takes blocks out for a lease: the oldest of targets that no other lease has anything of, all of one tenant that is
    /// not `refused`: the one whose oldest block has waited longest, and for longer than it has to, else the first of those
    /// that can fill a lease. Where the newest go first, of those if it is anybody's turn among them.
    pub(in crate::spool) fn take(&mut self, limits: LeaseLimits, refused: &Refused) -> Take {
        if let Some(until) = self.waits_for_disk() {
            return Take::Until(until);
        }
        self.let_old_go(limits);
        self.refused_bytes = self.lanes.bytes_of(&refused.tenants);
        self.stuck_bytes = self.stuck_bytes.min(self.lanes.unready_bytes(&refused.tenants));
        // What waits in vain on one side holds up nothing on the other.
        let is_held = self.is_held();
        let mut until: Option<Instant> = None;
        for of_fresh in [!is_held, is_held] {
            match self.turn(of_fresh, limits, refused) {
                Turn::Of(tenant) => return Take::Blocks(self.take_of(of_fresh, &tenant, limits)),
                Turn::Until(then) => until = Some(until.map_or(then, |until| until.min(then))),
                Turn::Nobodys => {}
            }
        }
        if let Some(overdue) = self.overdue(refused) {
            return Take::Overdue(self.take_of(false, &overdue, limits));
        }
        let until = [until, self.pass_over_stuck(refused)].into_iter().flatten().min();
        // A lease that is still out may come back.
        let over = self.closed && self.waiting.is_empty() && self.leased.is_empty() && self.gap().is_none();
        let none = if over { Take::Over } else { Take::Nothing };
        until.map_or(none, Take::Until)
    }

    /// Whose turn it is of those in the front, or of those that have something fresh.
    fn turn(&mut self, of_fresh: bool, limits: LeaseLimits, refused: &Refused) -> Turn {
        // Beside something else there is no point in waiting for more of the front.
        let is_last = self.closed || !of_fresh && (self.gap().is_some() || self.fresh.is_some());
        match (&mut self.fresh, of_fresh) {
            (Some(fresh), true) => turn(&mut fresh.lanes, &self.waiting, limits, refused, is_last),
            (None, true) => Turn::Nobodys,
            (_, false) => turn(&mut self.lanes, &self.waiting, limits, refused, is_last),
        }
    }

    /// The oldest blocks of this tenant there, as many as one lease may have.
    fn take_of(&mut self, of_fresh: bool, tenant: &Option<Tenant>, limits: LeaseLimits) -> Vec<Waiting> {
        let fresh = self.fresh.as_ref().filter(|_| of_fresh).map(|fresh| &fresh.lanes);
        let picked = fresh.unwrap_or(&self.lanes).pick(tenant, limits, &self.waiting);
        self.take_out(&picked)
    }

    /// Which of the refused tenants is to give up something, because others wait behind the gap and nothing more is read:
    /// the front is full, however little of the memory it may have, and of nobody else.
    fn overdue(&self, refused: &Refused) -> Option<Option<Tenant>> {
        let gap = self.gap().filter(|_| !refused.overdue.is_empty() && self.next_to_read().is_none())?;
        if self.lanes.has_others(&refused.tenants) || !self.holds_others_from(gap.start, refused) {
            return None;
        }
        let is_overdue = |tenant: Option<&Tenant>| tenant.is_some_and(|tenant| refused.overdue.contains(tenant));
        self.lanes.first(is_overdue).map(|(_, tenant)| tenant)
    }

    /// It is nobody's turn, though somebody could be sent for. If that is because the front is full of what waits behind leases
    /// that do not end, more of the others is to be read beside that. Gives until when it is too early to say.
    fn pass_over_stuck(&mut self, refused: &Refused) -> Option<Instant> {
        let gap = self.gap().filter(|_| self.next_to_read().is_none())?;
        let stuck_bytes = self.lanes.unready_bytes(&refused.tenants);
        let can_go = |target, tenant: Option<&Tenant>| !self.lanes.is_leased(target) && refused.may_have(tenant);
        let can_go_of = |one: &Waiting| can_go(one.block.target, one.block.tenant.as_ref());
        if stuck_bytes <= self.stuck_bytes || !self.behind.any_target(gap.start, can_go) && !self.tail().any(can_go_of)
        {
            return None;
        }
        let waited_for = self.leased.values().filter(|one| self.lanes.has_any_of(one.target));
        let until = waited_for.map(|one| one.since).min()? + STUCK_AFTER;
        if Instant::now() < until {
            return Some(until);
        }
        self.stuck_bytes = stuck_bytes;
        None
    }

    /// Whether anything of others than these is in the gap, which begins at `from`, or behind it. What was on disk before is
    /// not known.
    fn holds_others_from(&self, from: u64, refused: &Refused) -> bool {
        let is_other = |tenant: &Tenant| !refused.tenants.contains(tenant);
        let in_tail = |one: &Waiting| one.block.tenant.as_ref().is_some_and(is_other);
        self.behind.any_tenant(from, is_other) || self.tail().any(in_tail)
    }

    /// What waits behind the gap. What is fresh waits behind nobody.
    fn tail(&self) -> impl Iterator<Item = &Waiting> {
        self.waiting.range(self.reach..).map(|(_, one)| one).filter(|_| self.fresh.is_none())
    }

    /// Until when nothing is handed out, because there may be older blocks on disk.
    fn waits_for_disk(&mut self) -> Option<Instant> {
        let most_bytes = self.capacity_bytes / 4 * 3;
        let disk = self.disk.as_mut().filter(|disk| !disk.settled)?;
        // What is in memory only would be dropped before long, or lost at the end.
        let is_out_of_room = disk.unwritten_bytes > most_bytes;
        disk.settled = Instant::now() >= disk.settled_by || is_out_of_room || self.closed && disk.fails;
        (!disk.settled).then_some(disk.settled_by)
    }

    fn take_out(&mut self, picked: &[u64]) -> Vec<Waiting> {
        let taken: Vec<_> = picked.iter().filter_map(|number| self.take_away(*number)).collect();
        let since = Instant::now();
        for one in &taken {
            self.leased_sum += one.count();
            let leased = Leased { target: one.block.target, since, min_ms: one.block.min_ms, count: one.count() };
            self.leased.insert(one.number, leased);
            self.lanes.lease(one.block.target);
            if let Some(fresh) = &mut self.fresh {
                fresh.lanes.lease(one.block.target);
            }
        }
        taken
    }
}

/// Whose turn it is in these lanes; `is_last`: more is not waited for.
fn turn(
    lanes: &mut Lanes,
    waiting: &BTreeMap<u64, Waiting>,
    limits: LeaseLimits,
    refused: &Refused,
    is_last: bool,
) -> Turn {
    let may_have = |tenant: Option<&Tenant>| refused.may_have(tenant);
    let Some((oldest, first)) = lanes.first(may_have) else { return Turn::Nobodys };
    let arrived = waiting.get(&oldest).and_then(|oldest| oldest.arrived);
    let until = arrived.map(|arrived| arrived + limits.linger).filter(|until| Instant::now() < *until);
    match until {
        None => Turn::Of(first),
        Some(until) => match lanes.first_full(limits, may_have) {
            Some(full) => Turn::Of(full),
            None if is_last => Turn::Of(first),
            None => Turn::Until(until),
        },
    }
}
