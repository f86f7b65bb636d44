//! The tenants of one receiver that have something under way, each with a gate of its own.
//!
//! A receiver that answers 429 means the tenant: he has sent more than he may. So that answer closes his [`Gate`] and not that
//! of the receiver, one request of his at a time is tried, and the others go on meanwhile. Anything else that is tried again
//! is the receiver's own trouble.
//!
//! What always holds: a tenant is known as long as he has a lease, so that there are never more than leases, whoever makes up
//! tenants.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::backoff::Backoff;
use super::gate::Gate;
use crate::model::Tenant;

/// How many leases of refused tenants take nobody's place. Those beyond it wait in the places of the others.
const ASIDE: usize = 32;

/// The tenants that have leases.
pub(super) struct Tenants {
    policy: Backoff,
    known: Mutex<HashMap<Tenant, Known>>,
    /// A gate was closed or opened.
    pub(super) changed: Notify,
}

struct Known {
    gate: Arc<Gate>,
    leases: usize,
    /// What the receiver said when it refused him last.
    words: String,
}

/// A lease of one tenant, until it is dropped.
pub(super) struct Presence<'t> {
    tenants: &'t Tenants,
    tenant: Tenant,
}

impl Tenants {
    pub(super) fn new(policy: Backoff) -> Self {
        Self { policy, known: Mutex::default(), changed: Notify::new() }
    }

    /// A lease of this tenant begins.
    pub(super) fn enter(&self, tenant: &Tenant) -> Presence<'_> {
        let new = || Known { gate: Arc::new(Gate::new(self.policy)), leases: 0, words: String::new() };
        self.known().entry(tenant.clone()).or_insert_with(new).leases += 1;
        Presence { tenants: self, tenant: tenant.clone() }
    }

    /// The gate of a tenant that has a lease.
    pub(super) fn gate_of(&self, tenant: &Tenant) -> Option<Arc<Gate>> {
        self.known().get(tenant).map(|known| Arc::clone(&known.gate))
    }

    /// Whether this tenant is refused now: he has to wait, and nothing more is to be taken out for him.
    pub(super) fn refuses(&self, tenant: &Tenant) -> bool {
        self.known().get(tenant).is_some_and(|known| !known.gate.is_open())
    }

    /// The receiver has refused this tenant with these words.
    pub(super) fn heard(&self, tenant: &Tenant, words: &str) {
        if let Some(known) = self.known().get_mut(tenant) {
            words.clone_into(&mut known.words);
        }
    }

    /// What it said then.
    pub(super) fn words(&self, tenant: &Tenant) -> String {
        self.known().get(tenant).map(|known| known.words.clone()).unwrap_or_default()
    }

    /// How many leases of refused tenants need not be counted among those that are under way.
    pub(super) fn aside(&self) -> usize {
        let known = self.known();
        let refused = known.values().filter(|known| !known.gate.is_open());
        refused.map(|known| known.leases).sum::<usize>().min(ASIDE)
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Tenant, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Presence<'_> {
    fn drop(&mut self) {
        let mut known = self.tenants.known();
        if let Some(one) = known.get_mut(&self.tenant) {
            one.leases -= 1;
            if one.leases == 0 {
                known.remove(&self.tenant);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_tenant_is_known_as_long_as_he_has_a_lease() {
        let pause = Duration::from_secs(1);
        let tenants = Tenants::new(Backoff::new(pause, pause).expect("in order"));
        let [shop, bank] = ["shop", "bank"].map(|name| Tenant::parse(name).expect("a tenant"));
        let (first, second, other) = (tenants.enter(&shop), tenants.enter(&shop), tenants.enter(&bank));
        let gate = tenants.gate_of(&shop).expect("he has leases");
        gate.failed(gate.enter().await, None);
        assert!(tenants.refuses(&shop) && !tenants.refuses(&bank));
        assert_eq!(tenants.aside(), 2);
        drop(first);
        assert!(tenants.refuses(&shop), "he has another one");
        drop(second);
        assert!(!tenants.refuses(&shop) && tenants.gate_of(&shop).is_none());
        assert_eq!(tenants.aside(), 0);
        drop(other);
        assert!(tenants.known().is_empty());
    }
}
