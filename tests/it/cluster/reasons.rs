//! Reasons that the API server has a part in, told alike wherever people look; their hints ask for nothing to be done, and
//! nothing is.

use std::net::SocketAddr;
use std::time::Duration;

use meshscrape::model::Reason;
use serde_json::json;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::monitoring::watcher::{DISCOVERY_STALE, Watcher};
use crate::reasons::faces::Agent;
use crate::reasons::stage::placed;
use crate::support::agent::eventually;
use crate::support::ca::{Ca, CertsDir};
use crate::support::envoy::{Envoy, ListenerSpec};
use crate::support::http;
use crate::support::kubernetes::{Cluster, Namespace, Proxy, READ, pod};
use crate::support::mesh::SCRAPER;

/// A pod of a mesh under an agent that follows it through a way that can be cut.
struct Scene {
    ca: Ca,
    shop: Namespace,
    proxy: Proxy,
    envoy: Envoy,
    address: SocketAddr,
    agent: Agent,
    _dir: TempDir,
}

impl Scene {
    /// With one pod in the job of a reason, and another one, `first`, that nobody scrapes for an hour.
    async fn of(reason: Reason) -> Self {
        let cluster = Cluster::shared().await;
        let shop = cluster.own_namespace("shop").await;
        let account = shop.account("meshscrape").await;
        shop.allow(cluster, &account, json!([{"apiGroups": [""], "resources": ["pods"], "verbs": READ}])).await;
        let (dir, ca) = (TempDir::new().expect("a directory"), Ca::new("cluster.local"));
        std::fs::write(dir.path().join("token"), shop.token(&account).await).expect("a token");
        CertsDir::at(dir.path()).write(&ca.leaf(SCRAPER), &[&ca]);
        let (spec, address) = placed(spec(&ca, &shop));
        let envoy = Envoy::start_many(&[spec]).await;
        let name = crate::reasons::job::pod(reason);
        let meshed = pod(&name).account("cart").on("n1").running(&address.ip().to_string()).label("scraped", "yes");
        shop.create_pod(meshed.port("metrics", address.port())).await;
        shop.create_pod(pod("first").running("10.9.0.1").port("metrics", 80).label("scraped", "no")).await;

        let proxy = cluster.proxy().await;
        let found = |scraped: &str| {
            format!(
                "  kubernetes_sd_configs:\n  - role: pod\n    api_server: {}\n    authorization: {{credentials_file: token}}\n    \
                 tls_config: {{ca_file: '{}'}}\n    namespaces: {{names: [{}]}}\n    selectors: [{{role: pod, label: scraped={scraped}}}]\n",
                proxy.url(),
                cluster.ca_file().display(),
                shop.name(),
            )
        };
        let text = format!(
            "scrape_configs:\n- job_name: {reason}\n  scrape_interval: 3s\n  scrape_timeout: 3s\n  scheme: https\n  \
             metrics_path: /stats/prometheus\n  pod_cidrs: [127.64.0.0/10]\n  pod_ports: [{}]\n  tls_config: \
             {{certs_dir: '{}', spiffe: {{}}}}\n{}- job_name: others\n  scrape_interval: 1h\n{}",
            address.port(),
            dir.path().display(),
            found("yes"),
            found("no"),
        );
        let agent = Agent::start(dir.path(), &text).await;
        agent.is_well(reason).await;
        Self { ca, shop, proxy, envoy, address, agent, _dir: dir }
    }

    /// The pod's listener with a key of its own.
    fn anew(&self) -> ListenerSpec {
        let std::net::IpAddr::V4(ip) = self.address.ip() else { panic!("loopback of version 4") };
        spec(&self.ca, &self.shop).on_ip(ip).on_port(self.address.port())
    }

    /// How many targets the job without certificates has.
    async fn others(&self) -> usize {
        let path = "/api/v1/targets?state=active&scrapePool=others";
        let answer = eventually("the API answers", async || http::get(self.agent.api, path).await.ok()).await;
        answer.json()["data"]["activeTargets"].as_array().map_or(0, Vec::len)
    }

    async fn unconfirmed(&self, reason: Reason) -> bool {
        let answer = eventually("the metrics", async || http::get(self.agent.listen, "/metrics").await.ok()).await;
        answer.text().contains(&format!("meshscrape_discovery_unconfirmed{{config=\"{reason}\"}} 1\n"))
    }

    /// Waits until the readiness probe says this.
    async fn is_ready(&self, words: &str) {
        let ready = async || {
            let answer = http::get(self.agent.listen, "/-/ready").await.ok()?;
            (answer.status == 200 && answer.text().contains(words)).then_some(())
        };
        eventually(words, ready).await;
    }
}

fn spec(ca: &Ca, shop: &Namespace) -> ListenerSpec {
    let leaf = ca.leaf(&format!("spiffe://cluster.local/ns/{}/sa/cart", shop.name()));
    ListenerSpec::stats("pod", &leaf, &[ca])
}

#[tokio::test]
async fn a_terminating_pod_that_answers_no_more_says_so_everywhere_and_goes_by_itself() {
    const REASON: Reason = Reason::PodTerminating;
    let mut scene = Scene::of(REASON).await;
    scene.shop.terminate_pod("pod-terminating").await;
    scene.agent.until(REASON, "it terminates", |targets| (targets[0]["podTerminating"] == true).then_some(())).await;
    // Its proxy ends.
    scene.envoy.relist(&[]).await;
    let target = scene.agent.shows(REASON).await;
    assert!(target["hint"].as_str().is_some_and(|hint| hint.starts_with("nothing to do")), "{target:#}");
    scene.agent.says_alike(REASON, &target).await;
    // Its kubelet says that it has ended.
    scene.shop.delete_pod("pod-terminating").await;
    scene.agent.until(REASON, "it goes", |targets| targets.is_empty().then_some(())).await;
}

#[tokio::test]
async fn silence_without_an_end_is_noticed() {
    const REASON: Reason = Reason::DiscoveryStale;
    let mut scene = Scene::of(REASON).await;
    assert!(!scene.unconfirmed(REASON).await);
    let watcher = Watcher::of(&[scene.agent.listen]).await;

    // No reset, no end: only bookmarks that do not come tell of it.
    scene.proxy.fall_silent();
    scene.shop.delete_pod("first").await;
    let deadline = Instant::now() + Duration::from_secs(180);
    while !scene.unconfirmed(REASON).await {
        assert!(Instant::now() < deadline, "the agent does not doubt");
        sleep(Duration::from_millis(200)).await;
    }
    scene.is_ready("pods may have changed unseen").await;
    watcher.until(scene.agent.listen, &[DISCOVERY_STALE], true).await;
    assert_eq!(scene.others().await, 1, "what was known is kept");
    // Another key, as a new pod would have it that got the address unseen.
    scene.envoy.relist(&[scene.anew()]).await;
    let target = scene.agent.shows(REASON).await;
    assert!(target["hint"].as_str().is_some_and(|hint| hint.contains("it ends by itself")), "{target:#}");
    scene.agent.says_alike(REASON, &target).await;

    scene.proxy.pass();
    eventually("the deleted one goes", async || (scene.others().await == 0).then_some(())).await;
    // It was the same pod all the time.
    scene.agent.is_well(REASON).await;
    assert!(!scene.unconfirmed(REASON).await);
    scene.is_ready("meshscrape is ready.\n").await;
    watcher.until(scene.agent.listen, &[DISCOVERY_STALE], false).await;
}
