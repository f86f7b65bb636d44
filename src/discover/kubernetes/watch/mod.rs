//! One list-and-watch: a kind of object, narrowed by namespace and selectors, and all of it that is known now.
//!
//! ```text
//!   ┌───────┐ streaming list, or pages   ┌───────────┐
//!   │ List  │ ─────────────────────────▶ │ Watch(rv) │ ─┐ events, bookmarks
//!   └───────┘ ◀───────────────────────── └───────────┘ ◀┘
//!              410: no longer remembered       any other end: again from the last version, after a pause if it failed
//! ```
//!
//! It is our own, on top of kube's client, for what kube's watcher does not tell: that a bookmark came. A bookmark is due
//! every minute and proves that the silence before it was one; without that, nobody knows whether an address still
//! belongs to the pod that had it. What always holds: no error and no silence removes an object, only the server's own
//! word does; an object that says the same as before is no change; a list is put in place whole. What is known is
//! confirmed by a whole list, by a bookmark, and by events behind one: a watch that was just opened first tells what was
//! missed, and until a bookmark ends that, nobody knows how much is still to come.

mod cache;
mod events;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use kube::client::Body;
use rand::RngExt;
use serde::Deserialize;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};
use url::form_urlencoded::Serializer;

pub(super) use self::cache::{Cache, State};
use self::events::{Event, Events, broken};
use super::access::{Api, ApiError};
use super::metrics::Metrics;
use super::object::{Object, ObjectKey, Store};
use crate::clock::Clock;
use crate::config::KubernetesAccess;

/// A watch without a word for so long is made anew: a bookmark is due every minute.
const SILENCE: Duration = Duration::from_secs(70);
/// A watch that ends by itself after less than this has not really begun.
const SHORT: Duration = Duration::from_secs(1);
/// How long a page of a list may take.
const PAGE_TIMEOUT: Duration = Duration::from_secs(60);
/// Objects on a page.
const PAGE: u32 = 500;
/// The largest page: etcd takes objects of up to 1.5 MiB.
const MAX_PAGE_BYTES: usize = 1 << 30;
/// The first and the longest pause after failures in a row. Each is doubled from the one before and shortened by up to a
/// half at random, so that the agents of a cluster do not all come back at once.
const FIRST_PAUSE: Duration = Duration::from_millis(800);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What is listed and watched. Equal queries to the same server are one watch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Query {
    /// `None`: all namespaces, or a kind that has none.
    pub(super) namespace: Option<String>,
    /// Label selector; empty: any.
    pub(super) label: String,
    /// Field selector; empty: any.
    pub(super) field: String,
}

/// Where a watch stands.
enum Position {
    /// Everything must be listed.
    Start,
    /// Everything up to this version is known.
    At(String),
}

/// Runs one watch until it is dropped.
pub(super) struct Watch<T> {
    pub(super) access: KubernetesAccess,
    pub(super) https_only: bool,
    pub(super) query: Query,
    pub(super) clock: Clock,
    pub(super) metrics: Metrics,
    cache: Arc<Cache<T>>,
    /// The server refuses streaming lists.
    pages_only: bool,
    /// A list has been there, so a cached one could be older than what is known.
    listed: bool,
}

impl<T: Object> Watch<T> {
    /// A watch that has not begun, and where its objects will be found.
    pub(super) fn new(
        access: KubernetesAccess,
        https_only: bool,
        query: Query,
        clock: Clock,
        metrics: Metrics,
    ) -> (Self, Arc<Cache<T>>) {
        let cache = Arc::new(Cache::new());
        let watch = Self {
            access,
            https_only,
            query,
            clock,
            metrics,
            cache: Arc::clone(&cache),
            pages_only: false,
            listed: false,
        };
        (watch, cache)
    }

    /// Lists, watches, and tries again for ever.
    pub(super) async fn run(mut self) {
        let cache = Arc::clone(&self.cache);
        tokio::select! {
            () = cache.doubt() => {}
            () = self.follow() => {}
        }
    }

    async fn follow(&mut self) {
        let mut position = Position::Start;
        let mut api = None;
        let mut failures = 0;
        loop {
            let began = Instant::now();
            let before = self.cache.confirmed_at();
            let ended = match &api {
                Some(api) => self.step(api, &mut position).await,
                None => match Api::new(&self.access, self.https_only, &self.clock).await {
                    Ok(made) => {
                        api = Some(made);
                        continue;
                    }
                    Err(error) => Err(error),
                },
            };
            // A server that answers and breaks off at once, again and again, is left alone for longer and longer.
            let progress = self.cache.confirmed_at() > before || began.elapsed() >= LONGEST_PAUSE;
            match ended {
                Ok(()) if began.elapsed() >= SHORT => failures = 0,
                // Ended as it began: somebody in between accepts and closes.
                Ok(()) => self.pause(1).await,
                Err(ApiError::Gone) => {
                    info!(resource = T::PLURAL, "the API server no longer remembers what we have seen, listing anew");
                    position = Position::Start;
                    // Once at once; if it happens in a row, with pauses.
                    if std::mem::replace(&mut failures, 1) > 0 {
                        self.pause(failures).await;
                    }
                }
                Err(error) => {
                    failures = if progress { 1 } else { failures + 1 };
                    self.failed(&error, failures);
                    api = None;
                    self.pause(failures).await;
                }
            }
        }
    }

    /// Lists if need be, and watches until the watch ends. `position` is right whatever the outcome.
    async fn step(&mut self, api: &Api, position: &mut Position) -> Result<(), ApiError> {
        // A bookmark is overdue. A streaming list comes from the server's memory and says at once how things are, where a
        // watch says it within a minute. Pages come from the database, and all agents of a cluster would want them in the
        // moment when it is back.
        if !self.pages_only && self.cache.confirmed_at().elapsed() >= SILENCE {
            *position = Position::Start;
        }
        if let Position::Start = position {
            if !self.pages_only {
                match self.watch(api, None, position).await {
                    // An older server, or one that has the feature switched off.
                    Err(ApiError::Refused { code: 400 | 422, .. }) => self.pages_only = true,
                    other => return other,
                }
            }
            *position = Position::At(self.list(api).await?);
        }
        let Position::At(from) = position else { return Ok(()) };
        let from = from.clone();
        self.watch(api, Some(&from), position).await
    }

    /// Everything, page by page; returns the version to watch from.
    async fn list(&mut self, api: &Api) -> Result<String, ApiError> {
        #[derive(Deserialize)]
        #[serde(bound = "T: serde::de::DeserializeOwned")]
        struct List<T> {
            metadata: ListMeta,
            items: Option<Vec<T>>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct ListMeta {
            resource_version: String,
            #[serde(default)]
            r#continue: String,
        }
        // A list narrowed to a node is small, and the server's cache is indexed for it; the whole of a large cluster comes
        // in pages, which only the database behind the cache can make.
        let narrowed = !self.query.field.is_empty() && !self.listed;
        let began = Instant::now();
        let mut store = Store::default();
        let mut token = String::new();
        loop {
            let mut parameters = vec![("limit", PAGE.to_string())];
            if narrowed {
                parameters.push(("resourceVersion", "0".to_owned()));
            }
            if !token.is_empty() {
                parameters.push(("continue", token.clone()));
            }
            let body = self.get(api, "list", parameters).await?.into_body();
            let page = timeout(PAGE_TIMEOUT, self.whole(body)).await.map_err(|_| ApiError::Slow(PAGE_TIMEOUT))??;
            let list: List<T> = serde_json::from_slice(&page).map_err(|error| broken(&error))?;
            self.cache.answered();
            store.extend(
                list.items.unwrap_or_default().into_iter().map(|object| (object.metadata().key(), Arc::new(object))),
            );
            token = list.metadata.r#continue;
            if token.is_empty() {
                self.replace(store);
                // All its pages show what was there when the first one was made.
                self.cache.confirm(began);
                return Ok(list.metadata.resource_version);
            }
        }
    }

    /// Watches from a version on, or, without one, from everything that there is on.
    async fn watch(&mut self, api: &Api, from: Option<&str>, position: &mut Position) -> Result<(), ApiError> {
        // Different for each, so that the watches of many agents do not end together.
        let seconds = rand::rng().random_range(300..600_u32);
        let mut parameters = vec![
            ("watch", "true".to_owned()),
            ("allowWatchBookmarks", "true".to_owned()),
            ("timeoutSeconds", seconds.to_string()),
        ];
        match from {
            Some(version) => parameters.push(("resourceVersion", version.to_owned())),
            None => parameters.extend([
                ("sendInitialEvents", "true".to_owned()),
                ("resourceVersionMatch", "NotOlderThan".to_owned()),
            ]),
        }
        let mut events = Events::of(self.get(api, "watch", parameters).await?.into_body());
        self.cache.answered();
        // Nothing is known of the new list until it is whole; what was known before stays until then.
        let mut initial: Option<Store<T>> = from.is_none().then(Store::default);
        // What comes before the first bookmark may have happened long ago.
        let mut caught_up = false;
        loop {
            let line = match timeout(SILENCE, events.next(|bytes| self.metrics.received(T::PLURAL, bytes))).await {
                Err(_) => return Err(ApiError::Slow(SILENCE)),
                Ok(Ok(Some(line))) => line,
                Ok(Ok(None)) if initial.is_some() => {
                    return Err(ApiError::Broken("ended before the list was whole".to_owned()));
                }
                Ok(Ok(None)) => return Ok(()),
                Ok(Err(error)) => return Err(error),
            };
            let event: Event<T> = Event::read(&line)?;
            match event {
                Event::Changed { key, version, object } => match &mut initial {
                    Some(store) => {
                        store.insert(key, Arc::new(object));
                    }
                    None => {
                        self.set(key, object);
                        *position = Position::At(version);
                    }
                },
                Event::Deleted { key, version } => {
                    if let Some(store) = &mut initial {
                        store.remove(&key);
                    } else {
                        self.remove(&key);
                        *position = Position::At(version);
                    }
                }
                Event::Bookmark { version, ends_initial } => {
                    match initial.take() {
                        Some(store) if ends_initial => self.replace(store),
                        // A server that does not know streaming lists has sent some events and goes on as if it did.
                        Some(_) => return Err(ApiError::Refused { code: 400, message: String::new() }),
                        None => {}
                    }
                    *position = Position::At(version);
                    caught_up = true;
                }
            }
            if caught_up {
                self.cache.confirm(Instant::now());
            }
        }
    }

    async fn get(
        &self,
        api: &Api,
        verb: &'static str,
        mut parameters: Vec<(&str, String)>,
    ) -> Result<http::Response<Body>, ApiError> {
        for (name, selector) in [("labelSelector", &self.query.label), ("fieldSelector", &self.query.field)] {
            if !selector.is_empty() {
                parameters.push((name, selector.clone()));
            }
        }
        let query = Serializer::new(String::new()).extend_pairs(parameters).finish();
        let path = match &self.query.namespace {
            Some(namespace) => format!("{}/namespaces/{namespace}/{}?{query}", T::API, T::PLURAL),
            None => format!("{}/{}?{query}", T::API, T::PLURAL),
        };
        let answer = api.get(&path).await;
        let code = match &answer {
            Ok(_) => 200,
            Err(ApiError::Gone) => 410,
            Err(ApiError::Refused { code, .. }) => *code,
            Err(_) => 0,
        };
        self.metrics.requested(T::PLURAL, verb, code);
        answer
    }

    /// A whole body, bounded.
    async fn whole(&self, mut body: Body) -> Result<Bytes, ApiError> {
        let mut bytes = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| ApiError::Broken(format!("broke off: {error}")))?;
            if let Ok(data) = frame.into_data() {
                self.metrics.received(T::PLURAL, data.len());
                bytes.extend_from_slice(&data);
            }
            if bytes.len() > MAX_PAGE_BYTES {
                return Err(ApiError::Broken(format!("has a page of more than {} MiB", MAX_PAGE_BYTES >> 20)));
            }
        }
        Ok(bytes.freeze())
    }

    /// Puts a whole list in place. Objects that say what they said before stay the same ones.
    fn replace(&mut self, mut store: Store<T>) {
        self.listed = true;
        let mut events = HashMap::from([("add", 0), ("update", 0), ("delete", 0)]);
        self.cache.update(|state| {
            let mut changed = !state.synced;
            for (key, object) in &mut store {
                match state.store.get(key) {
                    Some(known) if known == object => *object = Arc::clone(known),
                    Some(_) => *events.entry("update").or_default() += 1,
                    None => *events.entry("add").or_default() += 1,
                }
            }
            let gone = state.store.keys().filter(|key| !store.contains_key(*key)).count();
            *events.entry("delete").or_default() += gone;
            if events.values().any(|count| *count > 0) {
                state.store = Arc::new(store);
                state.version += 1;
                changed = true;
            }
            state.synced = true;
            changed
        });
        for (event, count) in events {
            self.metrics.happened::<T>(event, count);
        }
    }

    fn set(&self, key: ObjectKey, object: T) {
        let mut event = "update";
        self.cache.update(|state| match state.store.get(&key) {
            Some(known) if **known == object => false,
            known => {
                if known.is_none() {
                    event = "add";
                }
                Arc::make_mut(&mut state.store).insert(key, Arc::new(object));
                state.version += 1;
                true
            }
        });
        self.metrics.happened::<T>(event, 1);
    }

    fn remove(&self, key: &ObjectKey) {
        self.cache.update(|state| {
            let known = state.store.contains_key(key);
            if known {
                Arc::make_mut(&mut state.store).remove(key);
                state.version += 1;
            }
            known
        });
        self.metrics.happened::<T>("delete", 1);
    }

    fn failed(&self, error: &ApiError, failures: u32) {
        self.metrics.failed();
        let next_step = error.next_step().unwrap_or_default();
        let message = match next_step {
            "" => error.to_string(),
            step => format!("{error}; {step}"),
        };
        let mut kept = 0;
        let mut new = false;
        self.cache.update(|state| {
            kept = state.store.len();
            new = state.problem.as_ref() != Some(&message);
            state.problem = Some(message.clone());
            new
        });
        // The same trouble again is on the page and in the metrics; the log hears of it when it changes.
        if new || failures == 1 {
            warn!(resource = T::PLURAL, kept, error = message, "cannot follow the cluster, what is known is kept");
        }
    }

    async fn pause(&self, failures: u32) {
        let doubled = FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(10));
        let part: f64 = rand::rng().random_range(0.5..=1.0);
        sleep(doubled.min(LONGEST_PAUSE).mul_f64(part)).await;
    }
}

#[cfg(test)]
mod tests;
