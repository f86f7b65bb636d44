//! Which watches run: one for each question to an API server, for as long as somebody needs its answers.
//!
//! A watch is not ended and begun anew where one source takes the place of another that asked the same: who comes takes
//! hold of it before who goes lets go.

use std::ops::Deref;
use std::sync::{Arc, Weak};

use tokio_util::sync::{CancellationToken, DropGuard};

use super::metrics::Metrics;
use super::object::Object;
use super::watch::{Cache, Query, Watch};
use crate::clock::Clock;
use crate::config::KubernetesAccess;

/// A question to an API server.
#[derive(Clone, PartialEq)]
pub(super) struct Asked {
    pub(super) access: KubernetesAccess,
    pub(super) https_only: bool,
    pub(super) query: Query,
}

/// The watches of one kind of object.
pub(super) struct Shared<T>(Vec<(Asked, Weak<Held<T>>)>);

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

/// What a watch has brought. The watch ends when nobody holds this any more.
pub(super) struct Held<T> {
    cache: Arc<Cache<T>>,
    _stop: DropGuard,
}

impl<T> Held<T> {
    /// `stop` ends the watch.
    pub(super) fn new(cache: Arc<Cache<T>>, stop: DropGuard) -> Self {
        Self { cache, _stop: stop }
    }
}

impl<T> Deref for Held<T> {
    type Target = Cache<T>;

    fn deref(&self) -> &Cache<T> {
        &self.cache
    }
}

/// What a new watch needs besides its question.
pub(super) struct Starter<'w> {
    pub(super) clock: &'w Clock,
    pub(super) metrics: &'w Metrics,
}

impl Starter<'_> {
    /// The cache of a watch that asks this: one that runs, or a new one.
    pub(super) fn get<T: Object>(&self, shared: &mut Shared<T>, asked: Asked) -> Arc<Held<T>> {
        shared.0.retain(|(_, held)| held.strong_count() > 0);
        let known = shared.0.iter().find(|(known, _)| *known == asked);
        if let Some(held) = known.and_then(|(_, held)| held.upgrade()) {
            return held;
        }
        let Asked { access, https_only, query } = asked.clone();
        let (watch, cache) = Watch::<T>::new(access, https_only, query, self.clock.clone(), self.metrics.clone());
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        tokio::spawn(async move { stopped.run_until_cancelled(watch.run()).await });
        let held = Arc::new(Held::new(cache, stop.drop_guard()));
        shared.0.push((asked, Arc::downgrade(&held)));
        held
    }
}
