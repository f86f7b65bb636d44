//! What a watch has brought, and how sure it is.
//!
//! Sources look at it and are woken when it changes. What always holds: what is known is called unconfirmed when for too
//! long nothing proved that all that happened has been told, and is certain again only when something does.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

use crate::discover::kubernetes::object::Store;

/// What was last confirmed so long ago may no longer be so. Longer than the minute between two bookmarks and than
/// [`SILENCE`](super::SILENCE), so that a server that answers is never doubted.
pub(super) const UNCONFIRMED: Duration = Duration::from_secs(80);

/// What a watch has brought, for those who make targets of it.
pub(in crate::discover::kubernetes) struct Cache<T> {
    state: Mutex<State<T>>,
    listeners: Mutex<Vec<Weak<Notify>>>,
}

/// What is known at a moment. Taking a copy costs nothing.
pub(in crate::discover::kubernetes) struct State<T> {
    /// The objects.
    pub(in crate::discover::kubernetes) store: Arc<Store<T>>,
    /// How often the objects have changed.
    pub(in crate::discover::kubernetes) version: u64,
    /// Whether a whole list has been there: what is not in the store does not exist.
    pub(in crate::discover::kubernetes) synced: bool,
    /// Why the server cannot be asked now.
    pub(in crate::discover::kubernetes) problem: Option<String>,
    /// For so long nothing has confirmed what is known that it may be wrong.
    pub(in crate::discover::kubernetes) unconfirmed: bool,
    /// When all that was known was surely so.
    pub(in crate::discover::kubernetes) confirmed: Instant,
}

impl<T> Clone for State<T> {
    fn clone(&self) -> Self {
        Self { store: Arc::clone(&self.store), problem: self.problem.clone(), ..*self }
    }
}

impl<T> Cache<T> {
    /// Nothing is known yet.
    pub(super) fn new() -> Self {
        let state = State {
            store: Arc::default(),
            version: 0,
            synced: false,
            problem: None,
            unconfirmed: false,
            confirmed: Instant::now(),
        };
        Self { state: Mutex::new(state), listeners: Mutex::default() }
    }

    /// What is known now.
    pub(in crate::discover::kubernetes) fn state(&self) -> State<T> {
        self.lock().clone()
    }

    /// Has `listener` woken at every change of any part of the state, as long as it is there.
    pub(in crate::discover::kubernetes) fn tell(&self, listener: &Arc<Notify>) {
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.retain(|listener| listener.strong_count() > 0);
        listeners.push(Arc::downgrade(listener));
    }

    /// When all that was known was surely so.
    pub(super) fn confirmed_at(&self) -> Instant {
        self.lock().confirmed
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Applies `change` and wakes the listeners if it says that something is different.
    pub(super) fn update(&self, change: impl FnOnce(&mut State<T>) -> bool) {
        let changed = change(&mut self.lock());
        if changed {
            let listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
            listeners.iter().filter_map(Weak::upgrade).for_each(|listener| listener.notify_one());
        }
    }

    /// The server answers: there is no trouble with it any more. Of what was missed before it says nothing yet.
    pub(super) fn answered(&self) {
        self.update(|state| state.problem.take().is_some());
    }

    /// Everything that is known was so at `moment`, because the server has told all that had happened until then.
    pub(super) fn confirm(&self, moment: Instant) {
        self.update(|state| {
            state.confirmed = state.confirmed.max(moment);
            let sure = state.confirmed.elapsed() < UNCONFIRMED;
            let changed = state.problem.take().is_some();
            (sure && std::mem::replace(&mut state.unconfirmed, false)) || changed
        });
    }

    /// Says when too long nothing was confirmed; never returns.
    pub(super) async fn doubt(&self) {
        loop {
            let due = self.confirmed_at() + UNCONFIRMED;
            sleep_until(due).await;
            self.update(|state| {
                let doubtful = state.synced && state.confirmed.elapsed() >= UNCONFIRMED;
                doubtful && !std::mem::replace(&mut state.unconfirmed, true)
            });
            // What was due may stay so for long.
            sleep(UNCONFIRMED / 8).await;
        }
    }
}
