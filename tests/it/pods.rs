//! Pods as they come and go under the eyes of a scraper: whose address it is, whether that is certain, and what is stored
//! under whose name.
//!
//! The test says what discovery would say; the pods are servers on loopback with certificates of one service account, so
//! that nothing but their keys tells them apart.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use meshscrape::config::{self, ScrapeConfig};
use meshscrape::label;
use meshscrape::model::{Candidate, Labels, Pod, Sample, TargetSet, TrustDomain, is_stale};
use meshscrape::scrape::{self, TargetSnapshot, Wanted};
use meshscrape::{series, wire};
use prometheus_client::registry::Registry;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::support::agent::eventually;
use crate::support::loopback;
use crate::support::mesh::{CART, Mesh, ONLY_13, SCRAPER};
use crate::support::tls_server::{Reply, Script, Server, Talk, always};

/// A scraper with one SPIFFE job, and everything that it has written.
struct Herd {
    mesh: Mesh,
    job: Arc<ScrapeConfig>,
    targets: watch::Sender<Arc<TargetSet>>,
    handle: scrape::Handle,
    stored: Arc<Mutex<Vec<(Labels, Sample)>>>,
    registry: Registry,
    _stop: DropGuard,
}

impl Herd {
    async fn new() -> Self {
        Self::every("1s").await
    }

    /// For who counts connections: a scrape that runs out of time costs one.
    async fn unhurried() -> Self {
        Self::every("2s").await
    }

    async fn every(interval: &str) -> Self {
        let mesh = Mesh::new(ONLY_13).await;
        let text = format!(
            "scrape_configs:\n- job_name: j\n  scrape_interval: {interval}\n  scrape_timeout: {interval}\n  require_complete: true\n  \
             scheme: https\n  tls_config: {{certs_dir: '{}', spiffe: {{}}}}\nremote_write:\n- url: http://127.0.0.1:9\n",
            mesh.certs.path().display()
        );
        let config = config::parse(Path::new("pods.yaml"), &text, &|_| None).config.expect("a good configuration");
        let mut job = ScrapeConfig::clone(&config.scrape_configs[0]);
        job.pod_cidrs = vec!["127.0.0.0/8".parse().expect("a range")];
        let job = Arc::new(job);
        let (targets, seen) = watch::channel(Arc::default());
        let (blocks, mut written) = mpsc::channel(256);
        let mut registry = Registry::default();
        let receivers = config.remote_write.iter().map(|receiver| &**receiver).enumerate();
        let views = series::views_of(receivers, &[], &series::Metrics::default());
        let setup = scrape::Setup {
            revision: 0,
            jobs: vec![scrape::Job {
                config: Arc::clone(&job),
                credentials: Some(mesh.identity.credentials()),
                tokens: None,
            }],
            views: views.into(),
            external: Arc::default(),
            memory_limit: u64::MAX,
        };
        let context = scrape::Context {
            blocks,
            clock: mesh.clock.clone(),
            host: "node".to_owned(),
            metrics: scrape::Metrics::new(&mut registry),
            catalogue: series::Catalogue::default(),
        };
        let stop = CancellationToken::new();
        let (handle, _) = scrape::spawn(context, setup, seen, stop.clone());
        let stored = Arc::new(Mutex::new(Vec::new()));
        let store = Arc::clone(&stored);
        tokio::spawn(async move {
            while let Some(block) = written.recv().await {
                store.lock().unwrap_or_else(PoisonError::into_inner).extend(samples(block));
            }
        });
        Self { mesh, job, targets, handle, stored, registry, _stop: stop.drop_guard() }
    }

    /// A pod's server, with an address and a key of its own.
    fn serve(&self, script: Script) -> Server {
        Server::start_at((loopback(), 0).into(), Talk::Tls(self.mesh.cart(), script))
    }

    /// What discovery says now, of pods and of addresses that are none.
    fn discover(&self, pods: &[(&Server, Pod)], others: &[&Server], unconfirmed: bool) {
        self.discover_since(pods, others, unconfirmed.then(Instant::now));
    }

    /// The same, where what is said has been uncertain since a moment.
    fn discover_since(&self, pods: &[(&Server, Pod)], others: &[&Server], unconfirmed: Option<Instant>) {
        let labels = |server: &Server, name: &str| -> Labels {
            let address = server.socket().to_string();
            [("__address__", &*address), ("__spiffe_id__", CART), ("pod", name)].into_iter().collect()
        };
        let pod = |(server, pod): &(&Server, Pod)| Candidate {
            labels: labels(server, &pod.name),
            source: "test".into(),
            pod: Some(Arc::new(pod.clone())),
        };
        let other = |server: &&Server| Candidate { labels: labels(server, "none"), source: "test".into(), pod: None };
        let candidates: Vec<_> = pods.iter().map(pod).chain(others.iter().map(other)).collect();
        let domain = TrustDomain::parse("cluster.local").expect("valid");
        let mut targets = label::targets_of(&self.job, &candidates, Some(&domain));
        targets.unconfirmed = unconfirmed;
        let mut set = TargetSet { jobs: vec![(Arc::clone(&self.job.job_name), targets)], revision: 0 };
        label::settle(&mut set, [&*self.job], candidates.iter().filter_map(|candidate| candidate.pod.as_ref()));
        self.targets.send_replace(Arc::new(set));
    }

    /// The target of this name.
    fn target(&self, name: &str) -> Option<TargetSnapshot> {
        let pools = self.handle.snapshot();
        let mut active = pools.into_iter().flat_map(|pool| pool.active);
        active.find(|snapshot| snapshot.target.labels.value("pod") == name)
    }

    /// Waits until this many more scrapes of the target have succeeded.
    async fn scraped(&self, name: &str, more: u64) {
        let count = || self.target(name).map_or(0, |target| target.status.succeeded);
        let before = count();
        eventually("scrapes that succeed", async || (count() >= before + more).then_some(())).await;
    }

    /// Waits until the target fails for this reason, and gives the detail.
    async fn fails(&self, name: &str, reason: &str) -> String {
        eventually(reason, async || {
            let failure = self.target(name)?.status.last?.failure?;
            (failure.reason.name() == reason).then_some(failure.detail)
        })
        .await
    }

    /// Everything that has been written under this name.
    fn stored(&self, name: &str) -> Vec<(String, f64)> {
        let stored = self.stored.lock().unwrap_or_else(PoisonError::into_inner);
        let own = stored.iter().filter(|(labels, _)| labels.value("pod") == name);
        own.map(|(labels, sample)| (labels.value("__name__").to_owned(), sample.value)).collect()
    }

    /// Waits until the series of this name end in a marker.
    async fn ended(&self, name: &str, metric: &str) {
        eventually("the end of a series", async || {
            let last = self.stored(name).into_iter().rfind(|(own, _)| own == metric)?;
            is_stale(last.1).then_some(())
        })
        .await;
    }

    fn metrics(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).expect("encoding");
        text
    }
}

fn samples(block: meshscrape::model::Block) -> Vec<(Labels, Sample)> {
    let request = wire::decode(&wire::join(&[&block]).expect("one format")).expect("a request");
    let mut samples = Vec::new();
    for series in request.timeseries {
        let labels: Labels = series.labels.iter().map(|label| (&label.name, &label.value)).collect();
        let own = |sample: &wire::proto::Sample| Sample { value: sample.value, timestamp_ms: sample.timestamp };
        samples.extend(series.samples.iter().map(|sample| (labels.clone(), own(sample))));
    }
    samples
}

/// A pod at the server's address; its UID and its name are the same word.
fn pod(server: &Server, name: &str) -> Pod {
    Pod {
        name: name.into(),
        uid: name.into(),
        ip: Some(server.socket().ip()),
        created: 0,
        host_network: false,
        finished: false,
        terminating: false,
    }
}

/// Ends a server and gives its address to another one.
async fn replaced(herd: &Herd, server: Server, script: Script) -> Server {
    let address = server.socket();
    drop(server);
    eventually("the address is free", async || std::net::TcpListener::bind(address).ok().map(drop)).await;
    Server::start_at(address, Talk::Tls(herd.mesh.cart(), script))
}

fn says(word: &str) -> Script {
    always(Reply::ok(&format!("{word} 1\n")))
}

#[tokio::test(flavor = "multi_thread")]
async fn while_pods_are_uncertain_a_live_scrape_shows_nobodys_text_under_their_name() {
    let herd = Herd::new().await;
    let (cart, other) = (herd.serve(says("beans")), herd.serve(says("none")));
    herd.discover(&[(&cart, pod(&cart, "shop/cart"))], &[&other], true);
    herd.fails("shop/cart", "discovery_stale").await;
    let probe = async |name: &str| {
        let id = herd.target(name).expect("listed").target.id;
        herd.handle.probe(id, Wanted::Exposed).await.expect("it is active")
    };
    let refused = probe("shop/cart").await;
    assert_eq!(refused.failure.map(|failure| failure.reason.name()), Some("discovery_stale"));
    assert_eq!((refused.text.as_str(), cart.requests().len()), ("", 0));
    let shown = probe("none").await;
    assert_eq!((shown.failure, shown.text.as_str()), (None, "none 1\n"), "what is no pod cannot be mistaken for one");
    herd.discover(&[(&cart, pod(&cart, "shop/cart"))], &[&other], false);
    herd.scraped("shop/cart", 1).await;
    let shown = probe("shop/cart").await;
    assert_eq!((shown.failure, shown.text.as_str()), (None, "beans 1\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn while_pods_are_uncertain_a_sibling_on_a_recycled_address_is_not_believed() {
    let herd = Herd::unhurried().await;
    let (old, steady) = (herd.serve(says("old")), herd.serve(says("steady")));
    let (of_old, of_steady) = (pod(&old, "shop/old"), pod(&steady, "shop/steady"));
    herd.discover(&[(&old, of_old.clone()), (&steady, of_steady.clone())], &[], false);
    herd.scraped("shop/old", 1).await;
    herd.scraped("shop/steady", 1).await;

    herd.discover(&[(&old, of_old.clone()), (&steady, of_steady.clone())], &[], true);
    herd.scraped("shop/old", 2).await;
    assert_eq!(old.connections(), 1, "a kept connection goes on");

    // The pod is replaced by one of the same service account, and nobody says so.
    let new = replaced(&herd, old, says("new")).await;
    let detail = herd.fails("shop/old", "discovery_stale").await;
    assert!(detail.contains("another key"), "{detail}");
    herd.scraped("shop/steady", 2).await;
    assert!(new.handshakes() >= 1, "it has proved the right identity");
    assert_eq!(new.requests().len(), 0, "and was asked nothing");
    assert_eq!(herd.target("shop/old").expect("listed").status.last.expect("tried").peer, None);

    // The truth comes out: what is there is scraped under its own name, and nothing of it is stored under the other.
    let of_new = pod(&new, "shop/new");
    herd.discover(&[(&new, of_new), (&steady, of_steady)], &[], false);
    herd.scraped("shop/new", 1).await;
    herd.ended("shop/old", "up").await;
    assert!(herd.stored("shop/old").iter().all(|(name, _)| name != "new"), "{:?}", herd.stored("shop/old"));
    let arrived = async || herd.stored("shop/new").iter().any(|(name, _)| name == "new").then_some(());
    eventually("what is there is stored", arrived).await;
    assert_eq!(steady.connections(), 1, "who has not changed is not disturbed");
}

/// It takes a while until silence is called one, and in that while a sibling can answer once.
#[tokio::test(flavor = "multi_thread")]
async fn a_sibling_that_came_before_the_silence_was_noticed_is_not_believed_for_ever() {
    let herd = Herd::new().await;
    let (old, young) = (herd.serve(says("old")), herd.serve(says("young")));
    let of_old = pod(&old, "shop/old");
    herd.discover(&[(&old, of_old.clone())], &[], false);
    herd.scraped("shop/old", 1).await;
    let silent_since = Instant::now();
    let new = replaced(&herd, old, says("new")).await;
    let of_young = pod(&young, "shop/young");
    let both = [(&new, of_old), (&young, of_young)];
    herd.discover(&both, &[], false);
    herd.scraped("shop/old", 1).await;
    herd.scraped("shop/young", 1).await;

    herd.discover_since(&both, &[], Some(silent_since));
    for name in ["shop/old", "shop/young"] {
        let detail = herd.fails(name, "discovery_stale").await;
        assert!(detail.contains("had counted before"), "neither a kept connection nor its key proves it: {detail}");
    }
    let asked = (new.requests().len(), young.requests().len());
    herd.fails("shop/old", "discovery_stale").await;
    assert_eq!((new.requests().len(), young.requests().len()), asked);
    herd.discover(&both, &[], false);
    herd.scraped("shop/young", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_pods_are_uncertain_the_same_key_is_the_same_pod() {
    let herd = Herd::unhurried().await;
    let server = herd.serve(says("beans"));
    let cart = pod(&server, "shop/cart");
    herd.discover(&[(&server, cart.clone())], &[], false);
    herd.scraped("shop/cart", 1).await;
    herd.discover(&[(&server, cart)], &[], true);
    // Our own certificate rotates, so the connection must be made anew.
    herd.mesh.reload(|certs| certs.write_leaf(&herd.mesh.ca.leaf(SCRAPER))).await;
    herd.scraped("shop/cart", 2).await;
    assert_eq!(server.connections(), 2);
    assert_eq!(herd.target("shop/cart").expect("listed").status.failed, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn uncertainty_ends_by_itself_and_a_new_key_is_learnt() {
    let herd = Herd::new().await;
    let server = herd.serve(says("beans"));
    let cart = pod(&server, "shop/cart");
    herd.discover(&[(&server, cart.clone())], &[], false);
    herd.scraped("shop/cart", 1).await;
    herd.discover(&[(&server, cart.clone())], &[], true);
    let server = replaced(&herd, server, says("beans")).await;
    herd.fails("shop/cart", "discovery_stale").await;
    // It was the same pod all the time, with a new certificate.
    herd.discover(&[(&server, cart.clone())], &[], false);
    herd.scraped("shop/cart", 1).await;
    herd.discover(&[(&server, cart)], &[], true);
    herd.mesh.reload(|certs| certs.write_leaf(&herd.mesh.ca.leaf(SCRAPER))).await;
    herd.scraped("shop/cart", 2).await;
    let ups: Vec<f64> =
        herd.stored("shop/cart").into_iter().filter(|(name, _)| name == "up").map(|(_, up)| up).collect();
    assert!(ups.contains(&0.0) && !ups.iter().any(|up| is_stale(*up)), "one target all the way: {ups:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_pods_are_uncertain_a_pod_nobody_knows_is_not_dialled_and_what_is_no_pod_is_scraped() {
    let herd = Herd::new().await;
    let (unknown, fixed) = (herd.serve(says("beans")), herd.serve(says("beans")));
    herd.discover(&[(&unknown, pod(&unknown, "shop/cart"))], &[&fixed], true);
    let detail = herd.fails("shop/cart", "discovery_stale").await;
    assert!(detail.contains("no answer of it had counted before"), "{detail}");
    herd.scraped("none", 1).await;
    let fixed = replaced(&herd, fixed, says("beans")).await;
    herd.scraped("none", 1).await;
    assert!(fixed.connections() >= 1 && unknown.connections() == 0);
    let failed = "meshscrape_scrape_failures_total{job=\"j\",reason=\"discovery_stale\"}";
    assert!(herd.metrics().contains(failed), "{}", herd.metrics());
}

/// An answer of which nothing was stored teaches nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_known_once_an_answer_has_counted() {
    let herd = Herd::new().await;
    let server = herd.serve(always(Reply::with("404 Not Found", &[], "")));
    let cart = pod(&server, "shop/cart");
    herd.discover(&[(&server, cart.clone())], &[], false);
    herd.fails("shop/cart", "http_status").await;
    herd.discover(&[(&server, cart)], &[], true);
    herd.fails("shop/cart", "discovery_stale").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_takes_the_name_of_another_begins_when_that_one_has_ended() {
    let herd = Herd::unhurried().await;
    let server = herd.serve(says("beans"));
    let first = pod(&server, "shop/cart-0");
    herd.discover(&[(&server, first.clone())], &[], false);
    herd.scraped("shop/cart-0", 2).await;
    let second = Pod { uid: "another".into(), created: 1, ..first.clone() };
    // For a moment both are there.
    herd.discover(&[(&server, first), (&server, second.clone())], &[], false);
    herd.ended("shop/cart-0", "beans").await;
    herd.discover(&[(&server, second)], &[], false);
    herd.scraped("shop/cart-0", 1).await;
    assert_eq!(server.connections(), 2, "the second has a connection of its own, and keeps it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminating_pod_is_scraped_on_and_fails_without_noise() {
    let herd = Herd::unhurried().await;
    let server = herd.serve(says("beans"));
    let cart = pod(&server, "shop/cart");
    herd.discover(&[(&server, cart.clone())], &[], false);
    herd.scraped("shop/cart", 1).await;
    let leaving = Pod { terminating: true, ..cart };
    herd.discover(&[(&server, leaving.clone())], &[], false);
    herd.scraped("shop/cart", 2).await;
    assert_eq!(server.connections(), 1, "that it is terminating does not disturb it");
    assert!(herd.stored("shop/cart").iter().all(|(_, value)| !is_stale(*value)));

    let address = server.socket();
    drop(server);
    let detail = herd.fails("shop/cart", "pod_terminating").await;
    assert!(detail.starts_with("connect_refused: ") || detail.starts_with("closed_after_handshake: "), "{detail}");
    let refused = eventually("it is refused", async || {
        let failure = herd.target("shop/cart")?.status.last?.failure?;
        failure.detail.starts_with("connect_refused: ").then_some(failure)
    })
    .await;
    assert!(refused.detail.contains(&address.to_string()), "{refused}");
    assert_eq!(refused.expected.as_deref(), Some(CART));
    let ups = || herd.stored("shop/cart").into_iter().filter(|(name, _)| name == "up").map(|(_, up)| up);
    eventually("it is down", async || (ups().next_back() == Some(0.0)).then_some(())).await;
    let metrics = herd.metrics();
    assert!(metrics.contains("{job=\"j\",reason=\"pod_terminating\"}"), "{metrics}");
    assert!(!metrics.contains("reason=\"connect_refused\""), "{metrics}");

    herd.discover(&[], &[], false);
    herd.ended("shop/cart", "up").await;
    herd.ended("shop/cart", "beans").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_answers_in_place_of_a_terminating_pod_is_named() {
    let herd = Herd::new().await;
    let impostor = Server::start(Talk::Tls(herd.mesh.tls(&herd.mesh.ca.leaf(SCRAPER)), says("beans")));
    let leaving = Pod { terminating: true, ..pod(&impostor, "shop/cart") };
    herd.discover(&[(&impostor, leaving)], &[], false);
    herd.fails("shop/cart", "identity_mismatch").await;
    assert!(impostor.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_target_of_a_pod_whose_address_has_a_newer_one_ends_before_that_one_begins() {
    let herd = Herd::new().await;
    let server = herd.serve(says("beans"));
    let old = pod(&server, "shop/old");
    herd.discover(&[(&server, old.clone())], &[], false);
    herd.scraped("shop/old", 1).await;
    let new = Pod { created: 1, ..pod(&server, "shop/new") };
    // The API server still lists the old one.
    herd.discover(&[(&server, old), (&server, new)], &[], false);
    herd.ended("shop/old", "beans").await;
    herd.scraped("shop/new", 1).await;
    assert!(herd.target("shop/old").is_none());
    let pools = herd.handle.snapshot();
    let dropped: Vec<_> = pools[0].dropped.iter().filter_map(|dropped| dropped.error.as_deref()).collect();
    assert!(dropped.len() == 1 && dropped[0].contains("shop/new"), "{dropped:?}");
}
