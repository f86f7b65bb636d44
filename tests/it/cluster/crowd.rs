//! A crowd of 500 pods on five nodes, of every kind that there is in a mesh: created, annotated, replaced elsewhere,
//! terminated, deleted, their addresses taken over by pods of other identities, while five agents scrape.
//!
//! What must hold: at every settled moment the targets are exactly the expected ones; no sample is ever stored under the
//! wrong pod; who is deleted is not asked again.

mod addresses;
mod pods;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use meshscrape::model::is_stale;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;
use tempfile::TempDir;

use self::addresses::Addresses;
use self::pods::{Kind, Town};
use crate::support::agent::{self, Running};
use crate::support::ca::{Ca, CertsDir};
use crate::support::kubernetes::Cluster;
use crate::support::mesh::SCRAPER;
use crate::support::receiver::{Answer, Receiver, always};
use crate::support::scale;

const NODES: usize = 5;
/// Pods that are there at any time; those that nobody scrapes among them.
const PODS: usize = 500;

/// From when a client of the API server sees the deletion to the last request: the bar is a second.
const BAR: Duration = Duration::from_secs(1);

struct Agents {
    running: Vec<Running>,
    _dirs: Vec<TempDir>,
}

impl Agents {
    async fn start(cluster: &Cluster, certs: &CertsDir, receiver: &Receiver) -> Self {
        let mut agents = Self { running: Vec::new(), _dirs: Vec::new() };
        for node in 0..NODES {
            let dir = tempfile::tempdir().expect("a directory");
            let token = dir.path().join("token");
            std::fs::write(&token, cluster.admin_token()).expect("a token");
            let text = format!(
                "global: {{ scrape_interval: 2s, scrape_timeout: 2s, require_identity: true }}
scrape_configs:
  - job_name: mesh
    pod_cidrs: [127.80.0.0/16]
    tls_config: {{ certs_dir: {certs}, spiffe: {{}} }}
    istio_sd_configs:
      - port: merged
        scope: node
        api_server: {url}
        authorization: {{ credentials_file: {token} }}
        tls_config: {{ ca_file: {ca} }}
remote_write:
  - url: {receiver}
    queue_config: {{ batch_send_deadline: 200ms }}
",
                certs = certs.path().display(),
                url = cluster.url(),
                token = token.display(),
                ca = cluster.ca_file().display(),
                receiver = receiver.url(),
            );
            let name = pods::node(node);
            let env = move |variable: &str| (variable == "NODE_NAME").then(|| name.clone());
            agents.running.push(agent::start_with(dir.path(), &text, &env).await);
            agents._dirs.push(dir);
        }
        agents
    }

    /// Waits until the targets of every node are exactly the expected ones, all of them up.
    async fn settle(&self, town: &Town) {
        for (node, agent) in self.running.iter().enumerate() {
            let expected = town.expected_on(node);
            let seen = |targets: &[Value]| -> BTreeSet<Vec<String>> { targets.iter().map(shown).collect() };
            let up = |targets: &[Value]| targets.iter().all(|target| target["health"] == "up");
            agent
                .until(&format!("the targets of node {node} are {expected:#?}"), |targets| {
                    targets.len() == expected.len() && seen(targets) == expected && up(targets)
                })
                .await;
        }
    }
}

/// What must be right of a target.
fn shown(target: &Value) -> Vec<String> {
    let labels = &target["labels"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut shown: Vec<String> = ["namespace", "pod", "node", "service_account", "app", "instance", "job"]
        .iter()
        .map(|&name| text(&labels[name]))
        .collect();
    shown.extend([text(&target["expectedIdentity"]), text(&target["scrapeUrl"])]);
    shown
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_pods_come_and_go() {
    let mut random = StdRng::seed_from_u64(7);
    let cluster = Cluster::start().await;
    let dir = tempfile::tempdir().expect("a directory");
    let ca = Ca::new("cluster.local");
    let certs = CertsDir::at(dir.path());
    certs.write(&ca.leaf(SCRAPER), &[&ca]);
    let addresses = Addresses::new(ca, PODS - 40, PODS / 12).await;
    let receiver = Receiver::start(always(Answer::ok())).await;
    let mut town = Town::new(&cluster, addresses).await;
    town.populate(PODS, &mut random).await;
    let agents = Agents::start(&cluster, &certs, &receiver).await;
    agents.settle(&town).await;

    let mut late: Vec<(String, Duration)> = Vec::new();
    for round in 0..scale(4, 40) {
        let gone = town.change(PODS / 20, &mut random).await;
        agents.settle(&town).await;
        assert_eq!(town.len(), PODS, "after round {round}");
        // Who could still be asked would have been by now.
        tokio::time::sleep(Duration::from_secs(2)).await;
        for uid in gone {
            let at = town.saw_deleted(&uid).await;
            late.extend(town.last_asked(&uid).filter(|last| *last > at).map(|last| (uid, last - at)));
        }
    }
    let slowest = late.iter().map(|(_, delay)| *delay).max().unwrap_or_default();
    println!("{} of all deleted pods were asked after their deletion, the last {slowest:?} later", late.len());
    assert!(slowest < BAR, "{late:?}");

    for agent in agents.running {
        assert_eq!(agent.stop().await.undelivered, 0);
    }
    let stored = check_stored(&town, &receiver);
    println!("{stored} samples, each under its own pod");
    assert!(stored > PODS, "{stored}");
}

/// Compares who answered with whom it was stored for; returns the number of samples that say who answered.
fn check_stored(town: &Town, receiver: &Receiver) -> usize {
    let mut count = 0;
    let mut ended: BTreeMap<String, bool> = BTreeMap::new();
    for (labels, sample) in receiver.recorded().into_iter().flat_map(|request| request.samples) {
        if labels.value("__name__") != "who" {
            continue;
        }
        let uid = labels.value("uid");
        ended.insert(uid.to_owned(), is_stale(sample.value));
        let pod = town.history(uid);
        let stored: Vec<&str> =
            ["namespace", "pod", "service_account", "node"].iter().map(|name| labels.value(name)).collect();
        assert_eq!(stored, [&*pod.namespace, &*pod.name, &*pod.account, &*pod.node], "{labels}");
        assert_eq!(labels.value("instance"), pod.slot.expect("it has answered").to_string(), "{labels}");
        assert_eq!(labels.value("id"), pod.id(), "{labels}");
        count += 1;
    }
    for (uid, stale) in ended {
        let scraped = town.history(&uid).is_target();
        assert_eq!(
            stale, !scraped,
            "the series of {uid} ends with a staleness marker once its pod is no target any more"
        );
    }
    count
}

#[test]
fn every_kind_takes_part() {
    let kinds: BTreeSet<Kind> = (0..PODS).map(Kind::of).collect();
    assert_eq!(kinds.len(), Kind::ALL.len());
}

/// A number below `end`.
fn below(random: &mut StdRng, end: usize) -> usize {
    random.random_range(0..end)
}
