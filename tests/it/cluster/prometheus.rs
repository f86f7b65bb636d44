//! Discovery beside a real Prometheus: both watch the same API server with the same configuration, and what they discovered
//! must be the same labels, object by object. Every job drops its targets by a rule, so nobody connects to them, and
//! also those are compared that no address could be made for.

mod objects;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::support::kubernetes::{Cluster, READ};
use crate::support::prometheus::Prometheus;
use crate::support::stored::{LabelMap, labels_from_json};
use crate::support::{agent, http};

/// Each job, what it asks for besides access to the server, and how many targets Prometheus makes of [`objects`] at first and
/// after the change. The server itself has one service, `kubernetes`. A pod whose node is not there is left out of the
/// job that attaches nodes: Prometheus keeps it in 3.5 and has dropped it since.
const JOBS: &[(&str, &str, [usize; 2])] = &[
    ("pod", "role: pod", [25, 26]),
    (
        "pod-with-node",
        "role: pod, attach_metadata: {node: true}, \
         selectors: [{role: pod, field: 'spec.nodeName!=,spec.nodeName!=no-such-node'}]",
        [23, 24],
    ),
    (
        "pod-selected",
        "role: pod, namespaces: {names: [shop]}, \
         selectors: [{role: pod, label: app.kubernetes.io/name, field: spec.nodeName=n1}]",
        [6, 7],
    ),
    ("node", "role: node", [4, 5]),
    ("service", "role: service", [12, 9]),
    ("endpoints", "role: endpoints", [21, 20]),
    (
        "endpoints-with-node",
        "role: endpoints, namespaces: {names: [shop, bank]}, attach_metadata: {node: true}",
        [21, 20],
    ),
    ("endpointslice", "role: endpointslice", [29, 28]),
    ("endpointslice-with-node", "role: endpointslice, attach_metadata: {node: true}", [29, 28]),
    ("ingress", "role: ingress", [10, 11]),
];

/// Labels, or how they begin, that ours may have where Prometheus knows none of that name.
const OURS: &[&str] = &[
    "__meta_kubernetes_pod_service_account_name",
    "__meta_kubernetes_pod_host_network",
    "__spiffe_id__",
    // Since Prometheus 3.14.
    "__scrape_native_histograms__",
    "__always_scrape_classic_histograms__",
    "__convert_classic_histograms_to_nhcb__",
    // Since Prometheus 3.12.
    "__meta_kubernetes_node_condition_",
];

/// How long anything may take on a loaded machine. Prometheus alone hands on what changed within ten seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// What one side discovered, by job, sorted.
type Discovered = BTreeMap<String, Vec<LabelMap>>;

#[tokio::test]
async fn every_role_discovers_what_prometheus_does() {
    let cluster = Cluster::start().await;
    let namespaces = objects::create(&cluster).await;
    let dir = TempDir::new().expect("a directory");
    let config = config(&cluster, dir.path()).await;
    let prometheus = Prometheus::with_config(&config).await;
    let agent = agent::start(dir.path(), &config).await;

    let ours = agreed(prometheus.address(), agent.api(), 0).await;
    let of_pods = ours["pod"].iter().map(|labels| {
        let label = |name: &str| labels.get(&format!("__meta_kubernetes_pod_{name}")).map(String::as_str);
        (label("service_account_name"), label("host_network"))
    });
    let of_pods: BTreeSet<_> = of_pods.collect();
    let accounts = ["cart", "default", "ledger"].map(|account| (Some(account), Some("false")));
    assert_eq!(of_pods, accounts.into_iter().chain([(Some("default"), Some("true"))]).collect());

    objects::change(&cluster, namespaces).await;
    agreed(prometheus.address(), agent.api(), 1).await;
    agent.stop().await;
}

#[test]
fn ours_may_only_add_what_is_listed() {
    let judge = |theirs: &[&str], ours: &[&str]| {
        let side = |targets: &[&str]| {
            let labels = targets.iter().map(|pairs| {
                let pairs = pairs.split(' ').filter_map(|pair| pair.split_once('='));
                pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
            });
            Discovered::from([("pod".to_owned(), labels.collect())])
        };
        same(&side(theirs), side(ours)).is_ok()
    };
    assert!(judge(&["a=1", "a=2"], &["a=2", "a=1 __spiffe_id__=x"]));
    assert!(judge(&["a=1"], &["a=1 __meta_kubernetes_node_condition_ready=true"]));
    assert!(!judge(&["a=1"], &["a=1 __meta_kubernetes_pod_surprise=x"]));
    assert!(!judge(&["a=1 __spiffe_id__=x"], &["a=1 __spiffe_id__=y"]), "where both know it, it counts");
    assert!(!judge(&["a=1 b=1"], &["a=1"]));
    assert!(!judge(&["a=1"], &["a=2"]));
    assert!(!judge(&["a=1", "a=1"], &["a=1"]), "each target counts");
    assert!(!judge(&[], &["a=1"]));
    assert!(!judge(&["a=1"], &[]));
}

/// Waits until Prometheus has made the expected number of targets of the objects in this state and ours are the same, and
/// gives ours.
async fn agreed(prometheus: SocketAddr, agent: SocketAddr, state: usize) -> Discovered {
    until("both have discovered the same", async || {
        let theirs = discovered(prometheus).await;
        let wrong = JOBS.iter().filter_map(|(job, _, expected)| {
            let count = theirs.get(*job).map_or(0, Vec::len);
            (count != expected[state]).then(|| format!("{job}: {count} of Prometheus instead of {}", expected[state]))
        });
        let wrong: Vec<String> = wrong.collect();
        if wrong.is_empty() { same(&theirs, discovered(agent).await) } else { Err(wrong.join("\n")) }
    })
    .await
}

/// Ours, if they equal theirs but for what [`OURS`] allows; else every target that only one side has.
fn same(theirs: &Discovered, ours: Discovered) -> Result<Discovered, String> {
    let mut differences = String::new();
    for (job, ..) in JOBS {
        let side = |discovered: &Discovered| discovered.get(*job).cloned().unwrap_or_default();
        let (theirs, mut ours) = (side(theirs), side(&ours));
        let known: BTreeSet<&String> = theirs.iter().flat_map(BTreeMap::keys).collect();
        for labels in &mut ours {
            labels.retain(|name, _| known.contains(name) || !OURS.iter().any(|allowed| name.starts_with(allowed)));
        }
        ours.sort();
        for (side, some, others) in [("only Prometheus", &theirs, &ours), ("only ours", &ours, &theirs)] {
            for labels in without(some, others) {
                differences.push_str(&format!("{job}, {side}: {labels:#?}\n"));
            }
        }
    }
    if differences.is_empty() { Ok(ours) } else { Err(differences) }
}

/// Those of `some` that have no equal of their own among `others`.
fn without<'a>(some: &'a [LabelMap], others: &[LabelMap]) -> Vec<&'a LabelMap> {
    let mut others: Vec<&LabelMap> = others.iter().collect();
    let has_no_equal = |labels: &&LabelMap| match others.iter().position(|other| other == labels) {
        Some(at) => {
            others.swap_remove(at);
            false
        }
        None => true,
    };
    some.iter().filter(has_no_equal).collect()
}

/// A configuration for both, of an account that may read what discovery needs and nothing else.
async fn config(cluster: &Cluster, dir: &Path) -> String {
    let home = cluster.namespace("monitoring").await;
    let account = home.account("scraper").await;
    let rules = json!([
        {"apiGroups": [""], "resources": ["pods", "nodes", "services", "endpoints"], "verbs": READ},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": READ},
        {"apiGroups": ["networking.k8s.io"], "resources": ["ingresses"], "verbs": READ},
    ]);
    cluster.allow(&account, rules).await;
    let token = dir.join("token");
    std::fs::write(&token, home.token(&account).await).expect("a token");
    let access = format!(
        "api_server: '{}', authorization: {{credentials_file: '{}'}}, tls_config: {{ca_file: '{}'}}",
        cluster.url(),
        token.display(),
        cluster.ca_file().display()
    );
    let job = |(name, asks, _): &(&str, &str, [usize; 2])| {
        format!(
            "- job_name: {name}\n  kubernetes_sd_configs: [{{{access}, {asks}}}]\n  \
             relabel_configs: [{{action: drop}}]\n"
        )
    };
    format!("scrape_configs:\n{}", JOBS.iter().map(job).collect::<String>())
}

/// The targets of every job as the API of either side shows them.
async fn discovered(address: SocketAddr) -> Discovered {
    let answer = http::get(address, "/api/v1/targets?state=any").await.expect("the API answers");
    let document = answer.json();
    let mut discovered = Discovered::new();
    for list in ["activeTargets", "droppedTargets"] {
        for target in document["data"][list].as_array().into_iter().flatten() {
            let labels = labels_from_json(&target["discoveredLabels"]);
            discovered.entry(labels["job"].clone()).or_default().push(labels);
        }
    }
    discovered.values_mut().for_each(|targets| targets.sort());
    discovered
}

/// Asks until there is an answer; what was last in its way is said when there is none.
async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(hindrance) => assert!(Instant::now() < deadline, "waited in vain: {what}\n{hindrance}"),
        }
        sleep(Duration::from_millis(100)).await;
    }
}
