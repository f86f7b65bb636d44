//! What a lease gets: the blocks of one tenant whose turn it is, and when it is nobody's.
//!
//! What always holds: nothing is taken before it is known which older blocks are on disk; of a target of which another lease
//! has something, and of what is behind the gap, nothing is taken; whose oldest block has waited long enough goes before all
//! who came later.

use tokio::time::Instant;

use super::{Leased, Waiting, Window};
use crate::model::Tenant;
use crate::spool::queue::{LeaseLimits, Refused};

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

impl Window {
    /// Takes blocks out for a lease: the oldest of targets that no other lease has anything of, all of one tenant that is
    /// not `refused`. He is the one whose oldest block has waited longest, and for longer than it has to, else the first of
    /// those who can fill a lease.
    pub(in crate::spool) fn take(&mut self, limits: LeaseLimits, refused: &Refused) -> Take {
        if let Some(until) = self.waits_for_disk() {
            return Take::Until(until);
        }
        self.refused_bytes = self.lanes.bytes_of(&refused.tenants);
        let may_have = |tenant: Option<&Tenant>| tenant.is_none_or(|tenant| !refused.tenants.contains(tenant));
        let is_last = self.closed || self.gap().is_some();
        let Some((oldest, first)) = self.lanes.first(may_have) else {
            if let Some(overdue) = self.overdue(refused) {
                let picked = self.lanes.pick(&overdue, limits, &self.waiting);
                return Take::Overdue(self.take_out(&picked));
            }
            // A lease that is still out may come back.
            let over = self.closed && self.waiting.is_empty() && self.leased.is_empty() && self.gap().is_none();
            return if over { Take::Over } else { Take::Nothing };
        };
        let arrived = self.waiting.get(&oldest).and_then(|oldest| oldest.arrived);
        let until = arrived.map(|arrived| arrived + limits.linger).filter(|until| Instant::now() < *until);
        let tenant = match until {
            None => first,
            Some(until) => match self.lanes.first_full(limits, may_have) {
                Some(full) => full,
                // There is no point in waiting for more.
                None if is_last => first,
                None => return Take::Until(until),
            },
        };
        let picked = self.lanes.pick(&tenant, limits, &self.waiting);
        Take::Blocks(self.take_out(&picked))
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

    /// Whether anything of others than these has come in with the number `from` or a higher one. What was on disk before is
    /// not known.
    fn holds_others_from(&self, from: u64, refused: &Refused) -> bool {
        self.newest.iter().any(|(tenant, newest)| *newest >= from && !refused.tenants.contains(tenant))
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
        for one in &taken {
            self.leased_sum += one.count();
            self.leased.insert(one.number, Leased { min_ms: one.block.min_ms, count: one.count() });
            self.lanes.lease(one.block.target);
        }
        taken
    }
}
