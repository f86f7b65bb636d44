//! The tenants of one receiver that have something under way or are refused, each with a gate of its own.
//!
//! A receiver that answers 429 means the tenant: he has sent more than he may. So that answer closes his [`Gate`] and not that
//! of the receiver. What is under way for him goes back into the queue, and when his pause is over one lease of his is tried;
//! the others go on meanwhile. Anything else that is tried again may be the receiver's own trouble, or his only, as where the
//! parts of it are down that have his samples: it closes his gate as well, and that of the receiver unless others are taken
//! since. How long such an answer wants him to wait counts for the others only if nothing of theirs was taken of late.
//!
//! What always holds: a refused tenant, or one whose requests fail, takes nobody's place for longer than one request; what of
//! his goes back does so before anything newer of his is sent; no more than [`MOST`] tenants are remembered that have nothing
//! under way, whoever makes up tenants.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::backoff::Backoff;
use super::gate::Gate;
use crate::model::Tenant;
use crate::spool::Refused;

/// What a lease takes of the memory for leases aside, whatever is in it.
const LEASE_BYTES: u64 = 16 << 10;

/// How many refused tenants are remembered. Of more, those are tried anew whose turn is next.
const MOST: usize = 1024;

/// How long a tenant is refused, without anything of his being taken, before the others need not wait behind him any more.
const PATIENCE: Duration = Duration::from_secs(30 * 60);

/// The tenants that have leases or are refused.
pub(super) struct Tenants {
    policy: Backoff,
    /// So many bytes of leases of refused tenants take nobody's place. They are for those in the middle of a search for what
    /// the receiver does not want, which cannot go back; those beyond them wait in the places of the others.
    aside_bytes: u64,
    known: Mutex<HashMap<Tenant, Known>>,
    /// Somebody is refused now, or is not any more, or has a lease less.
    pub(super) changed: Notify,
}

struct Known {
    gate: Arc<Gate>,
    leases: usize,
    /// What these take of the memory for leases aside.
    bytes: u64,
    /// Something of his goes back into the queue, and so does all that is under way, until he has no lease left: it may be
    /// newer.
    returns: bool,
    /// Since when he has been refused without anything being taken.
    since: Option<Instant>,
    /// When he was last.
    refused: Option<Instant>,
    /// Since when his requests fail for another reason.
    fails_since: Option<Instant>,
    /// He has been refused once more for too long, and nothing was given up since.
    is_overdue: bool,
    /// What the receiver said when it refused him last.
    words: String,
}

/// A lease of one tenant, until it is dropped.
pub(super) struct Presence {
    tenants: Arc<Tenants>,
    tenant: Tenant,
    bytes: u64,
}

impl Known {
    fn new(policy: Backoff) -> Self {
        Self {
            gate: Arc::new(Gate::new(policy)),
            leases: 0,
            bytes: 0,
            returns: false,
            since: None,
            refused: None,
            fails_since: None,
            is_overdue: false,
            words: String::new(),
        }
    }

    /// Whether nothing is to be taken out for him now.
    fn has_to_wait(&self, now: Instant) -> bool {
        self.returns || self.gate.closed_until().is_some_and(|until| self.leases > 0 || until > now)
    }
}

impl Tenants {
    /// Of a receiver with these pauses, for which leases of so many bytes may be aside.
    pub(super) fn new(policy: Backoff, aside_bytes: u64) -> Self {
        Self { policy, aside_bytes, known: Mutex::default(), changed: Notify::new() }
    }

    /// A lease of this tenant begins, of so many bytes.
    pub(super) fn enter(self: &Arc<Self>, tenant: &Tenant, bytes: u64) -> Presence {
        let bytes = bytes + LEASE_BYTES;
        let mut all = self.known();
        let known = all.entry(tenant.clone()).or_insert_with(|| Known::new(self.policy));
        known.leases += 1;
        known.bytes += bytes;
        Presence { tenants: Arc::clone(self), tenant: tenant.clone(), bytes }
    }

    /// The gate of a tenant that has a lease.
    pub(super) fn gate_of(&self, tenant: &Tenant) -> Option<Arc<Gate>> {
        self.known().get(tenant).map(|known| Arc::clone(&known.gate))
    }

    /// Whom the receiver refuses now, so that nothing more is to be taken out for them, and when that changes for one of them
    /// though nothing else happens.
    pub(super) fn refused(&self) -> (Refused, Option<Instant>) {
        let (now, known) = (Instant::now(), self.known());
        let (mut refused, mut next) = (Refused::default(), None::<Instant>);
        for (tenant, one) in known.iter().filter(|(_, one)| one.has_to_wait(now)) {
            refused.tenants.insert(tenant.clone());
            if one.leases > 0 {
                continue;
            }
            if one.is_overdue {
                refused.overdue.insert(tenant.clone());
            }
            next = [next, one.gate.closed_until()].into_iter().flatten().min();
        }
        (refused, next)
    }

    /// The receiver has refused this tenant with these words.
    pub(super) fn refuses(&self, tenant: &Tenant, words: &str) {
        if let Some(known) = self.known().get_mut(tenant) {
            // Long before is another matter.
            known.since = known.since.filter(|_| known.refused.is_some_and(|last| last.elapsed() < PATIENCE / 2));
            known.refused = Some(Instant::now());
            let since = *known.since.get_or_insert_with(Instant::now);
            known.is_overdue = since.elapsed() >= PATIENCE;
            words.clone_into(&mut known.words);
        }
        self.changed.notify_one();
    }

    /// A request of his has failed. Gives since when they do.
    pub(super) fn fails(&self, tenant: &Tenant) -> Instant {
        let now = Instant::now();
        let since = self.known().get_mut(tenant).map_or(now, |known| {
            // Nothing of his is taken now, either.
            known.refused = known.refused.map(|_| now);
            *known.fails_since.get_or_insert(now)
        });
        self.changed.notify_one();
        since
    }

    /// The receiver does not refuse him now. If something `was_taken`, that is over; what he sends beside may only be worth no
    /// refusal.
    pub(super) fn hears(&self, tenant: &Tenant, was_taken: bool) {
        if let Some(known) = self.known().get_mut(tenant) {
            (known.fails_since, known.is_overdue) = (None, false);
            known.since = known.since.filter(|_| !was_taken);
        }
        self.changed.notify_one();
    }

    /// What is under way for him goes back into the queue from now on.
    pub(super) fn give_back(&self, tenant: &Tenant) {
        if let Some(known) = self.known().get_mut(tenant) {
            known.returns = true;
        }
    }

    /// Whether it is so.
    pub(super) fn gives_back(&self, tenant: &Tenant) -> bool {
        self.known().get(tenant).is_some_and(|known| known.returns)
    }

    /// Some of his was given up; nothing more is until he is refused again. Gives what the receiver said then.
    pub(super) fn given_up(&self, tenant: &Tenant) -> String {
        let mut known = self.known();
        known.get_mut(tenant).map_or_else(String::new, |known| {
            known.is_overdue = false;
            known.words.clone()
        })
    }

    /// How many leases of refused tenants need not be counted among those that are under way.
    pub(super) fn aside(&self) -> usize {
        let known = self.known();
        let refused = known.values().filter(|known| known.leases > 0 && !known.gate.is_open());
        let mut refused: Vec<_> = refused.map(|known| (known.bytes, known.leases)).collect();
        refused.sort_unstable();
        let mut left = self.aside_bytes;
        let fits = |(bytes, _): &(u64, usize)| left.checked_sub(*bytes).inspect(|rest| left = *rest).is_some();
        refused.into_iter().take_while(fits).map(|(_, leases)| leases).sum()
    }

    /// How many are known.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.known().len()
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Tenant, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        let mut known = self.tenants.known();
        if let Some(one) = known.get_mut(&self.tenant) {
            one.leases -= 1;
            one.bytes -= self.bytes;
            if one.leases == 0 {
                one.returns = false;
                // Whose patience has begun is remembered as one who is refused: he may be so again.
                if one.gate.is_open() && one.since.is_none() {
                    known.remove(&self.tenant);
                }
            }
        }
        if known.len() > MOST {
            let idle = known.iter().filter(|(_, one)| one.leases == 0);
            let first = idle.min_by_key(|(_, one)| one.gate.closed_until()).map(|(tenant, _)| tenant.clone());
            first.map(|tenant| known.remove(&tenant));
        }
        drop(known);
        self.tenants.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_secs(1);

    /// With a memory for four leases with nothing in them.
    fn tenants() -> Arc<Tenants> {
        Arc::new(Tenants::new(Backoff::new(PAUSE, PAUSE).expect("in order"), 4 * LEASE_BYTES))
    }

    fn tenant(name: &str) -> Tenant {
        Tenant::parse(name).expect("a tenant")
    }

    fn refuse(tenants: &Tenants, tenant: &Tenant) {
        let gate = tenants.gate_of(tenant).expect("he has leases");
        gate.failed(gate.try_enter().expect("there is no pause"), None);
        tenants.refuses(tenant, "no");
    }

    fn answer(tenants: &Tenants, tenant: &Tenant, was_taken: bool) {
        tenants.hears(tenant, was_taken);
        let gate = tenants.gate_of(tenant).expect("he has leases");
        gate.answered(gate.try_enter().expect("there is no pause"));
    }

    fn is_refused(tenants: &Tenants, tenant: &Tenant) -> bool {
        tenants.refused().0.tenants.contains(tenant)
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_refused_waits_for_his_leases_to_end_and_his_pause_to_be_over_and_has_one_then() {
        let tenants = tenants();
        let (shop, bank) = (tenant("shop"), tenant("bank"));
        let (first, second, other) = (tenants.enter(&shop, 0), tenants.enter(&shop, 0), tenants.enter(&bank, 0));
        refuse(&tenants, &shop);
        tenants.give_back(&shop);
        assert!(is_refused(&tenants, &shop) && !is_refused(&tenants, &bank));
        assert_eq!((tenants.aside(), tenants.refused().1), (2, None), "his leases end first");
        drop(first);
        assert!(tenants.gives_back(&shop));
        drop(second);
        assert!(!tenants.gives_back(&shop) && is_refused(&tenants, &shop));
        assert_eq!(tenants.aside(), 0);
        tokio::time::sleep_until(tenants.refused().1.expect("his pause is known")).await;
        assert!(!is_refused(&tenants, &shop));
        let probe = tenants.enter(&shop, 0);
        assert!(is_refused(&tenants, &shop), "one at a time");
        answer(&tenants, &shop, true);
        assert!(!is_refused(&tenants, &shop));
        drop((probe, other));
        assert!(tenants.known().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn leases_of_refused_tenants_are_aside_as_long_as_there_is_memory_for_them() {
        let tenants = tenants();
        let mut leases = Vec::new();
        for (name, bytes, aside) in
            [("large", 4 * LEASE_BYTES, 0), ("a", 0, 1), ("b", LEASE_BYTES, 2), ("c", LEASE_BYTES, 2), ("d", 0, 3)]
        {
            leases.push(tenants.enter(&tenant(name), bytes));
            refuse(&tenants, &tenant(name));
            assert_eq!(tenants.aside(), aside, "{name}");
        }
        leases.truncate(2);
        assert_eq!(tenants.aside(), 1);
        leases.clear();
        assert!(tenants.known().values().all(|one| one.bytes == 0));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_overdue_is_told_once_for_each_pause_after_a_long_time() {
        let tenants = tenants();
        let shop = tenant("shop");
        let is_overdue = || tenants.refused().0.overdue.contains(&shop);
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            let _lease = tenants.enter(&shop, 0);
            refuse(&tenants, &shop);
            assert!(!tenants.known()[&shop].is_overdue);
            tokio::time::advance(PAUSE).await;
        }
        for _ in 0..3 {
            let lease = tenants.enter(&shop, 0);
            refuse(&tenants, &shop);
            drop(lease);
            assert!(is_overdue());
            assert_eq!(tenants.given_up(&shop), "no");
            assert!(!is_overdue());
            tokio::time::advance(PAUSE).await;
        }
        let lease = tenants.enter(&shop, 0);
        answer(&tenants, &shop, false);
        drop(lease);
        let lease = tenants.enter(&shop, 0);
        refuse(&tenants, &shop);
        assert!(tenants.known()[&shop].is_overdue, "something was rejected instead");
        drop(lease);
        tokio::time::advance(PAUSE).await;
        answer(&tenants, &shop, false);
        tokio::time::advance(PATIENCE).await;
        let lease = tenants.enter(&shop, 0);
        refuse(&tenants, &shop);
        assert!(!tenants.known()[&shop].is_overdue, "what was long before is another matter");
        drop(lease);
        tokio::time::advance(PAUSE).await;
        tenants.hears(&shop, true);
        let _lease = tenants.enter(&shop, 0);
        refuse(&tenants, &shop);
        assert!(!tenants.known()[&shop].is_overdue, "something was taken");
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_makes_up_tenants_is_not_remembered_without_bound() {
        let tenants = tenants();
        for number in 0..2 * MOST {
            let shop = tenant(&format!("shop-{number}"));
            let _lease = tenants.enter(&shop, 0);
            refuse(&tenants, &shop);
        }
        assert_eq!(tenants.len(), MOST);
    }
}
