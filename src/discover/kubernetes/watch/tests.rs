//! Events, what they change, and what confirms it: against a server whose every word a test chooses.

use std::collections::VecDeque;
use std::sync::Mutex;

use http::StatusCode;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

use super::cache::UNCONFIRMED;
use super::events::MAX_EVENT_BYTES;
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
    let mut events = Events::of(Body::from(pieces.concat().into_bytes()));
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
    let mut events = Events::of(body);
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

type Words = mpsc::UnboundedSender<String>;

/// An API server whose answers a test speaks, one a request, and what it was asked.
fn spoken(statuses: &[u16]) -> (Api, Vec<Words>, Arc<Mutex<Vec<String>>>) {
    let (words, heard): (Vec<Words>, Vec<_>) = statuses.iter().map(|_| mpsc::unbounded_channel()).unzip();
    let answers = Arc::new(Mutex::new(statuses.iter().copied().zip(heard).collect::<VecDeque<_>>()));
    let asked = Arc::new(Mutex::new(Vec::new()));
    let written = Arc::clone(&asked);
    let answer = move |request: axum::extract::Request| {
        written.lock().expect("nobody panicked").push(request.uri().to_string());
        let (status, heard) = answers.lock().expect("nobody panicked").pop_front().expect("an answer");
        let body = futures_util::stream::unfold(heard, async |mut heard| {
            let word: String = heard.recv().await?;
            Some((Ok::<_, std::convert::Infallible>(word), heard))
        });
        std::future::ready((StatusCode::from_u16(status).expect("a status"), axum::body::Body::from_stream(body)))
    };
    let router = axum::Router::new().fallback(answer);
    (Api::through(kube::Client::new(router, "default")), words, asked)
}

/// A running step, from this version or from the start.
fn step(
    mut watch: Watch<Pod>,
    api: Api,
    from: Option<&str>,
) -> JoinHandle<(Watch<Pod>, Position, Result<(), ApiError>)> {
    let mut position = from.map_or(Position::Start, |version| Position::At(version.to_owned()));
    tokio::spawn(async move {
        let ended = watch.step(&api, &mut position).await;
        (watch, position, ended)
    })
}

/// Says something, and waits until it has been heard.
async fn say(words: &Words, text: &str) {
    words.send(text.to_owned()).expect("somebody listens");
    sleep(Duration::from_millis(1)).await;
}

fn added(name: &str) -> String {
    let pod = format!(r#"{{"metadata":{{"name":"{name}","namespace":"ns","resourceVersion":"8"}}}}"#);
    format!("{{\"type\":\"ADDED\",\"object\":{pod}}}\n")
}

const BOOKMARK: &str = "{\"type\":\"BOOKMARK\",\"object\":{\"metadata\":{\"resourceVersion\":\"9\"}}}\n";
const LIST_ENDS: &str = "{\"type\":\"BOOKMARK\",\"object\":{\"metadata\":{\"resourceVersion\":\"9\",\
                         \"annotations\":{\"k8s.io/initial-events-end\":\"true\"}}}}\n";

/// A watch that knows one pod and was in doubt about it before anything more happened.
async fn doubtful() -> (Watch<Pod>, Arc<Cache<Pod>>) {
    let (mut watch, cache, _) = watch();
    watch.replace(Store::from_iter([pod("old", "10.0.0.1")].map(|(key, pod)| (key, Arc::new(pod)))));
    let doubting = Arc::clone(&cache);
    tokio::spawn(async move { doubting.doubt().await });
    sleep(UNCONFIRMED * 2).await;
    assert!(cache.state().unconfirmed);
    (watch, cache)
}

fn names(cache: &Cache<Pod>) -> Vec<String> {
    let mut names: Vec<_> = cache.state().store.keys().map(|key| key.name.to_string()).collect();
    names.sort();
    names
}

#[tokio::test(start_paused = true)]
async fn a_watch_ends_a_doubt_when_all_that_was_missed_has_come() {
    let (mut watch, cache) = doubtful().await;
    watch.pages_only = true;
    let (api, words, _) = spoken(&[200]);
    let _running = step(watch, api, Some("7"));
    sleep(Duration::from_secs(1)).await;
    assert!(cache.state().unconfirmed, "that the watch is open says nothing of what was missed");
    say(&words[0], &added("new")).await;
    assert_eq!(names(&cache), ["new", "old"]);
    assert!(cache.state().unconfirmed, "this was missed, and who knows what more");
    say(&words[0], BOOKMARK).await;
    assert!(!cache.state().unconfirmed);
}

#[tokio::test(start_paused = true)]
async fn a_list_ends_a_doubt_when_it_is_whole() {
    let (watch, cache) = doubtful().await;
    let (api, words, asked) = spoken(&[200]);
    let _running = step(watch, api, Some("7"));
    say(&words[0], &added("new")).await;
    assert!(cache.state().unconfirmed && names(&cache) == ["old"]);
    say(&words[0], LIST_ENDS).await;
    assert!(!cache.state().unconfirmed && names(&cache) == ["new"]);
    let asked = asked.lock().expect("nobody panicked").concat();
    assert!(asked.contains("sendInitialEvents=true"), "in doubt nothing is waited for: {asked}");

    let (mut watch, cache) = doubtful().await;
    watch.pages_only = true;
    let (api, mut words, _) = spoken(&[200, 200, 200]);
    let _running = step(watch, api, None);
    let page = |name: &str, next: &str| {
        let meta = format!(r#"{{"resourceVersion":"9","continue":"{next}"}}"#);
        format!(r#"{{"metadata":{meta},"items":[{{"metadata":{{"name":"{name}","namespace":"ns"}}}}]}}"#)
    };
    for (name, next, whole) in [("a", "next", false), ("b", "", true)] {
        say(&words[0], &page(name, next)).await;
        words.remove(0);
        sleep(Duration::from_millis(1)).await;
        assert_eq!(cache.state().unconfirmed, !whole, "{name}");
    }
    assert_eq!(names(&cache), ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_opens_watches_and_says_nothing_is_doubted() {
    let (mut watch, cache, _) = watch();
    watch.replace(Store::default());
    let doubting = Arc::clone(&cache);
    tokio::spawn(async move { doubting.doubt().await });
    for _ in 0..2 {
        let (api, _words, _) = spoken(&[200]);
        let (kept, _, ended) = step(watch, api, Some("7")).await.expect("a step");
        assert!(matches!(ended, Err(ApiError::Slow(SILENCE))));
        watch = kept;
    }
    assert!(cache.state().unconfirmed);
}

#[tokio::test(start_paused = true)]
async fn a_list_that_ends_before_it_is_whole_is_a_failure() {
    let (watch, cache, _) = watch();
    let (api, mut words, _) = spoken(&[200]);
    let running = step(watch, api, None);
    say(&words[0], &added("a")).await;
    words.clear();
    let (_, position, ended) = running.await.expect("a step");
    let error = ended.expect_err("not whole").to_string();
    assert!(error.contains("before the list was whole"), "{error}");
    assert!(matches!(position, Position::Start) && !cache.state().synced);
}

#[tokio::test(start_paused = true)]
async fn events_confirm_only_behind_a_bookmark_and_then_each_does() {
    let (mut watch, cache, _) = watch();
    watch.replace(Store::default());
    let (api, words, _) = spoken(&[200]);
    let _running = step(watch, api, Some("7"));
    let before = cache.confirmed_at();
    sleep(Duration::from_secs(5)).await;
    say(&words[0], &added("a")).await;
    assert_eq!(cache.confirmed_at(), before, "it may have happened before the watch was opened");
    say(&words[0], BOOKMARK).await;
    let at_bookmark = cache.confirmed_at();
    assert!(at_bookmark > before);
    sleep(Duration::from_secs(5)).await;
    say(&words[0], &added("b")).await;
    assert!(cache.confirmed_at() > at_bookmark);
}

#[tokio::test(start_paused = true)]
async fn a_list_in_pages_says_how_things_were_when_it_was_begun() {
    let (mut watch, cache) = doubtful().await;
    watch.pages_only = true;
    let (api, mut words, _) = spoken(&[200, 200, 200]);
    let _running = step(watch, api, None);
    for next in ["more", ""] {
        sleep(PAGE_TIMEOUT - Duration::from_secs(1)).await;
        say(&words[0], &format!(r#"{{"metadata":{{"resourceVersion":"9","continue":"{next}"}},"items":null}}"#)).await;
        words.remove(0);
        sleep(Duration::from_millis(1)).await;
    }
    assert!(names(&cache).is_empty() && cache.state().unconfirmed, "two minutes ago it was so");
    say(&words[0], BOOKMARK).await;
    assert!(!cache.state().unconfirmed);
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
    cache.confirm(Instant::now());
    woken(&notify).await;
    sleep(UNCONFIRMED - Duration::from_secs(1)).await;
    assert!(!cache.state().unconfirmed);
    sleep(UNCONFIRMED / 4).await;
    assert!(cache.state().unconfirmed && woken(&notify).await);
    cache.confirm(Instant::now());
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
    assert!(problem.contains("(403): pods is forbidden") && problem.contains("grant get, list and watch"), "{problem}");
    watch.failed(&refused, 2);
    assert!(!woken(&notify).await, "the same again is not news");
    cache.answered();
    assert!(cache.state().problem.is_none());
}
