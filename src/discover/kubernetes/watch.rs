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
//! word does; an object that says the same as before is no change; a list is put in place whole.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http_body_util::BodyExt;
use kube::client::Body;
use memchr::memchr;
use rand::RngExt;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{info, warn};
use url::form_urlencoded::Serializer;

use super::access::{Api, ApiError};
use super::metrics::Metrics;
use super::object::{Object, ObjectKey, Store};
use crate::clock::Clock;
use crate::config::KubernetesAccess;

/// A watch without a word for so long is made anew: a bookmark is due every minute.
const SILENCE: Duration = Duration::from_secs(70);
/// What was last heard so long ago may no longer be so. Longer than [`SILENCE`], so that a server that answers is never
/// doubted.
const UNCONFIRMED: Duration = Duration::from_secs(80);
/// A watch that ends by itself after less than this has not really begun.
const SHORT: Duration = Duration::from_secs(1);
/// How long a page of a list may take.
const PAGE_TIMEOUT: Duration = Duration::from_secs(60);
/// Objects on a page.
const PAGE: u32 = 500;
/// The largest event or page: etcd takes objects of up to 1.5 MiB.
const MAX_EVENT_BYTES: usize = 16 << 20;
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

/// What a watch has brought, for those who make targets of it.
pub(super) struct Cache<T> {
    state: Mutex<State<T>>,
    listeners: Mutex<Vec<Arc<Notify>>>,
}

/// What is known at a moment. Taking a copy costs nothing.
pub(super) struct State<T> {
    /// The objects.
    pub(super) store: Arc<Store<T>>,
    /// How often the objects have changed.
    pub(super) version: u64,
    /// Whether a whole list has been there: what is not in the store does not exist.
    pub(super) synced: bool,
    /// Why the server cannot be asked now.
    pub(super) problem: Option<String>,
    /// Nothing was heard for so long that what is known may be wrong.
    pub(super) unconfirmed: bool,
    heard: Instant,
}

impl<T> Clone for State<T> {
    fn clone(&self) -> Self {
        Self { store: Arc::clone(&self.store), problem: self.problem.clone(), ..*self }
    }
}

impl<T> Cache<T> {
    fn new() -> Self {
        let state = State {
            store: Arc::default(),
            version: 0,
            synced: false,
            problem: None,
            unconfirmed: false,
            heard: Instant::now(),
        };
        Self { state: Mutex::new(state), listeners: Mutex::default() }
    }

    /// What is known now.
    pub(super) fn state(&self) -> State<T> {
        self.lock().clone()
    }

    /// Has `listener` woken at every change of any part of the state.
    pub(super) fn tell(&self, listener: &Arc<Notify>) {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(listener));
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Applies `change` and wakes the listeners if it says that something is different.
    fn update(&self, change: impl FnOnce(&mut State<T>) -> bool) {
        let changed = change(&mut self.lock());
        if changed {
            let listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
            listeners.iter().for_each(|listener| listener.notify_one());
        }
    }

    /// The server has spoken.
    fn heard(&self) {
        self.update(|state| {
            state.heard = Instant::now();
            let changed = state.unconfirmed || state.problem.is_some();
            state.unconfirmed = false;
            state.problem = None;
            changed
        });
    }

    /// Says when too long nothing was heard; never returns.
    async fn doubt(&self) {
        loop {
            let due = self.lock().heard + UNCONFIRMED;
            sleep_until(due).await;
            self.update(|state| {
                let doubtful = state.synced && state.heard.elapsed() >= UNCONFIRMED;
                doubtful && !std::mem::replace(&mut state.unconfirmed, true)
            });
            // What was due may stay so for long.
            sleep(UNCONFIRMED / 8).await;
        }
    }
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
            let before = self.cache.lock().heard;
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
            let heard = self.cache.lock().heard > before;
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
                    failures = if heard { 1 } else { failures + 1 };
                    self.failed(&error, failures);
                    api = None;
                    self.pause(failures).await;
                }
            }
        }
    }

    /// Lists if need be, and watches until the watch ends. `position` is right whatever the outcome.
    async fn step(&mut self, api: &Api, position: &mut Position) -> Result<(), ApiError> {
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
            self.cache.heard();
            store.extend(
                list.items.unwrap_or_default().into_iter().map(|object| (object.metadata().key(), Arc::new(object))),
            );
            token = list.metadata.r#continue;
            if token.is_empty() {
                self.replace(store);
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
        let mut events =
            Events { body: self.get(api, "watch", parameters).await?.into_body(), buffer: BytesMut::new() };
        // Nothing is known of the new list until it is whole; what was known before stays until then.
        let mut initial: Option<Store<T>> = from.is_none().then(Store::default);
        if initial.is_none() {
            self.cache.heard();
        }
        loop {
            let line = match timeout(SILENCE, events.next(|bytes| self.metrics.received(T::PLURAL, bytes))).await {
                Err(_) => return Err(ApiError::Slow(SILENCE)),
                Ok(Ok(Some(line))) => line,
                Ok(Ok(None)) => return Ok(()),
                Ok(Err(error)) => return Err(error),
            };
            let event: Event<T> = Event::read(&line)?;
            self.cache.heard();
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
                }
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

/// The lines of a watch.
struct Events {
    body: Body,
    buffer: BytesMut,
}

impl Events {
    /// The next line; `None` at the end. `count` is told of all bytes that arrive.
    async fn next(&mut self, count: impl Fn(usize)) -> Result<Option<Bytes>, ApiError> {
        loop {
            if let Some(end) = memchr(b'\n', &self.buffer) {
                let line = self.buffer.split_to(end).freeze();
                self.buffer.advance(1);
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                return Ok(Some(line));
            }
            if self.buffer.len() > MAX_EVENT_BYTES {
                return Err(ApiError::Broken(format!("has an event of more than {} MiB", MAX_EVENT_BYTES >> 20)));
            }
            match self.body.frame().await {
                // Half an event at the end was cut off; it comes again.
                None => return Ok(None),
                Some(Err(error)) => return Err(ApiError::Broken(format!("broke off: {error}"))),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        count(data.len());
                        self.buffer.extend_from_slice(&data);
                    }
                }
            }
        }
    }
}

/// An event of a watch.
enum Event<T> {
    /// The object is there, as new or otherwise than before.
    Changed { key: ObjectKey, version: String, object: T },
    /// The object is gone.
    Deleted { key: ObjectKey, version: String },
    /// Nothing happened up to this version; the first list may be whole with it.
    Bookmark { version: String, ends_initial: bool },
}

/// The annotation of the bookmark behind the last of the initial events (KEP-3157).
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

impl<T: Object> Event<T> {
    fn read(line: &[u8]) -> Result<Self, ApiError> {
        #[derive(Deserialize)]
        struct Line<'l> {
            r#type: &'l str,
            #[serde(borrow)]
            object: &'l RawValue,
        }
        /// What every object has besides what we keep of it.
        #[derive(Deserialize)]
        struct Versioned {
            metadata: VersionedMeta,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct VersionedMeta {
            resource_version: String,
            #[serde(default)]
            annotations: Option<HashMap<String, String>>,
        }
        #[derive(Deserialize)]
        struct Status {
            #[serde(default)]
            code: u16,
            #[serde(default)]
            message: String,
        }
        let Line { r#type, object } = serde_json::from_slice(line).map_err(|error| broken(&error))?;
        if r#type == "ERROR" {
            let Status { code, message } = serde_json::from_str(object.get()).map_err(|error| broken(&error))?;
            return Err(match code {
                410 => ApiError::Gone,
                code => ApiError::Refused { code, message: crate::model::clean(&message).into_owned() },
            });
        }
        let Versioned { metadata } = serde_json::from_str(object.get()).map_err(|error| broken(&error))?;
        let version = metadata.resource_version;
        if r#type == "BOOKMARK" {
            let annotations = metadata.annotations.unwrap_or_default();
            let ends_initial = annotations.get(INITIAL_EVENTS_END).is_some_and(|value| value == "true");
            return Ok(Event::Bookmark { version, ends_initial });
        }
        let object: T = serde_json::from_str(object.get()).map_err(|error| broken(&error))?;
        let key = object.metadata().key();
        match r#type {
            "ADDED" | "MODIFIED" => Ok(Event::Changed { key, version, object }),
            "DELETED" => Ok(Event::Deleted { key, version }),
            other => Err(ApiError::Broken(format!("has an event of type {:?}", crate::model::clean(other)))),
        }
    }
}

fn broken(error: &serde_json::Error) -> ApiError {
    ApiError::Broken(format!("cannot be read: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discover::kubernetes::object::Pod;

    fn read(line: &str) -> Result<String, String> {
        Event::<Pod>::read(line.as_bytes()).map_err(|error| error.to_string()).map(|event| match event {
            Event::Changed { key, version, .. } => format!("changed {}/{} at {version}", key.namespace, key.name),
            Event::Deleted { key, version } => format!("deleted {}/{} at {version}", key.namespace, key.name),
            Event::Bookmark { version, ends_initial } => format!("bookmark at {version}, ends_initial {ends_initial}"),
        })
    }

    #[test]
    fn events_of_every_type() {
        let pod = r#"{"kind":"Pod","metadata":{"name":"n","namespace":"ns","resourceVersion":"7"}}"#;
        let event = |kind: &str, object: &str| read(&format!(r#"{{"type":"{kind}","object":{object}}}"#));
        for (kind, expected) in [
            ("ADDED", "changed ns/n at 7"),
            ("MODIFIED", "changed ns/n at 7"),
            ("DELETED", "deleted ns/n at 7"),
            ("BOOKMARK", "bookmark at 7, ends_initial false"),
        ] {
            assert_eq!(event(kind, pod).expect(kind), expected);
        }
        let last = r#"{"metadata":{"resourceVersion":"9","annotations":{"k8s.io/initial-events-end":"true"}}}"#;
        assert_eq!(event("BOOKMARK", last).expect("a bookmark"), "bookmark at 9, ends_initial true");
        for (kind, object, words) in [
            ("ERROR", r#"{"code":410,"message":"too old resource version"}"#, "no longer remembers"),
            ("ERROR", r#"{"code":500,"message":"etc\u001b[1md"}"#, "refuses (500): etc\\u{1b}[1md"),
            ("RENAMED", pod, "has an event of type \"RENAMED\""),
            ("ADDED", "{}", "cannot be read: missing field `metadata`"),
            ("ADDED", r#"{"metadata":{"name":7,"resourceVersion":"7"}}"#, "cannot be read"),
        ] {
            let error = event(kind, object).expect_err(kind);
            assert!(error.contains(words), "{kind}: {error}");
        }
    }

    async fn lines(pieces: &[&str]) -> Vec<String> {
        let mut events = Events { body: Body::from(pieces.concat().into_bytes()), buffer: BytesMut::new() };
        let mut lines = Vec::new();
        while let Some(line) = events.next(|_| {}).await.expect("lines") {
            lines.push(String::from_utf8(line.to_vec()).expect("text"));
        }
        lines
    }

    #[tokio::test]
    async fn what_is_cut_off_at_the_end_is_no_event() {
        assert_eq!(lines(&["{\"a\":1}\n", "\n", "{\"b\":2}\r\n{\"c\""]).await, ["{\"a\":1}", "{\"b\":2}\r"]);
    }

    #[tokio::test]
    async fn an_endless_event_is_an_error() {
        let body = Body::from(vec![b'x'; MAX_EVENT_BYTES + 1]);
        let mut events = Events { body, buffer: BytesMut::new() };
        let error = events.next(|_| {}).await.expect_err("too long").to_string();
        assert!(error.contains("more than 16 MiB"), "{error}");
    }

    /// A watch that never runs; its cache is filled by hand.
    fn watch() -> (Watch<Pod>, Arc<Cache<Pod>>, Arc<Notify>) {
        let query = Query { namespace: None, label: String::new(), field: String::new() };
        let metrics = Metrics::new(&mut prometheus_client::registry::Registry::default());
        let (watch, cache) = Watch::new(KubernetesAccess::InCluster, true, query, Clock::system(), metrics);
        let woken = Arc::new(Notify::new());
        cache.tell(&woken);
        (watch, cache, woken)
    }

    fn pod(name: &str, ip: &str) -> (ObjectKey, Pod) {
        let json = serde_json::json!({ "metadata": { "name": name, "namespace": "ns" }, "status": { "podIP": ip } });
        let pod: Pod = serde_json::from_value(json).expect("a pod");
        (pod.metadata().key(), pod)
    }

    /// Whether the listener was woken since the last time.
    async fn woken(notify: &Notify) -> bool {
        timeout(Duration::ZERO, notify.notified()).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn an_object_that_says_the_same_is_no_change() {
        let (mut watch, cache, notify) = watch();
        watch.replace(Store::from_iter([pod("a", "10.0.0.1")].map(|(key, pod)| (key, Arc::new(pod)))));
        assert!(woken(&notify).await && cache.state().synced);
        let before = cache.state();
        let (key, same) = pod("a", "10.0.0.1");
        watch.set(key.clone(), same);
        watch.replace(Store::from_iter([pod("a", "10.0.0.1")].map(|(key, pod)| (key, Arc::new(pod)))));
        assert!(!woken(&notify).await, "nothing has changed");
        assert!(Arc::ptr_eq(&before.store[&key], &cache.state().store[&key]));
        watch.set(key.clone(), pod("a", "10.0.0.2").1);
        assert!(woken(&notify).await);
        watch.remove(&key);
        assert!(woken(&notify).await);
        watch.remove(&key);
        assert!(!woken(&notify).await, "it was gone already");
        assert_eq!(before.store.len(), 1, "who looked before still sees what was there");
    }

    #[tokio::test(start_paused = true)]
    async fn silence_makes_what_is_known_doubtful_and_a_word_heals_it() {
        let (mut watch, cache, notify) = watch();
        let doubting = Arc::clone(&cache);
        tokio::spawn(async move { doubting.doubt().await });
        sleep(UNCONFIRMED * 2).await;
        assert!(!cache.state().unconfirmed, "nothing is known yet, so nothing can be wrong");
        watch.replace(Store::default());
        cache.heard();
        woken(&notify).await;
        sleep(UNCONFIRMED - Duration::from_secs(1)).await;
        assert!(!cache.state().unconfirmed);
        sleep(UNCONFIRMED / 4).await;
        assert!(cache.state().unconfirmed && woken(&notify).await);
        cache.heard();
        assert!(!cache.state().unconfirmed && woken(&notify).await);
        sleep(UNCONFIRMED * 2).await;
        assert!(cache.state().unconfirmed, "and again");
    }

    #[tokio::test(start_paused = true)]
    async fn trouble_is_told_and_takes_nothing_away() {
        let (mut watch, cache, notify) = watch();
        watch.replace(Store::from_iter([pod("a", "10.0.0.1")].map(|(key, pod)| (key, Arc::new(pod)))));
        woken(&notify).await;
        let refused = ApiError::Refused { code: 403, message: "pods is forbidden".to_owned() };
        watch.failed(&refused, 1);
        assert!(woken(&notify).await);
        let state = cache.state();
        assert_eq!(state.store.len(), 1);
        let problem = state.problem.expect("told");
        assert!(
            problem.contains("(403): pods is forbidden") && problem.contains("grant get, list and watch"),
            "{problem}"
        );
        watch.failed(&refused, 2);
        assert!(!woken(&notify).await, "the same again is not news");
        cache.heard();
        assert!(cache.state().problem.is_none());
    }
}
