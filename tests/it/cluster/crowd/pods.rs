//! The pods of the crowd: what each kind looks like on the API server, and what a scraper is to make of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

use rand::rngs::StdRng;
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::addresses::{Addresses, Slot};
use super::{NODES, below};
use crate::support::agent::eventually;
use crate::support::kubernetes::{Cluster, Namespace, Watch, pod};

const SECURE: &str = "prometheus.istio.io/secure-port";
const SECURE_ENVOY: &str = "prometheus.istio.io/secure-envoy-port";
const NAMESPACES: [&str; 6] = ["shop", "bank", "search", "istio-system", "mail", "ops"];
const ACCOUNTS: [&str; 5] = ["default", "api", "web", "worker", "store"];

/// The kinds of pods in a mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// A sidecar with the merged port, as the injector annotates it.
    Sidecar,
    /// The same, its proxy a native sidecar.
    NativeSidecar,
    /// The same with both ports announced, and a path of the application's that the port does not route.
    BothPorts,
    /// Its plain ports closed to the outside.
    Hardened,
    /// A gateway: no application, merged port announced by a patch.
    Gateway,
    /// A waypoint.
    Waypoint,
    /// Before Istio 1.31: a listener on 15091, the same annotation, a path that it does route.
    Legacy,
    /// In the mesh, its secure port not announced.
    Unannounced,
    /// Not in the mesh.
    Foreign,
    /// Only the proxy's own port is announced.
    EnvoyOnly,
    /// On the network of its node.
    HostNetwork,
    /// Announced as no port is written.
    Malformed,
    /// Announced on a port that nobody may be sent to.
    ForbiddenPort,
    /// It has ended and still has its address.
    Finished,
    /// It has no address yet.
    Pending,
}

impl Kind {
    pub(super) const ALL: [Kind; 15] = [
        Kind::Sidecar,
        Kind::NativeSidecar,
        Kind::BothPorts,
        Kind::Hardened,
        Kind::Gateway,
        Kind::Waypoint,
        Kind::Legacy,
        Kind::Unannounced,
        Kind::Foreign,
        Kind::EnvoyOnly,
        Kind::HostNetwork,
        Kind::Malformed,
        Kind::ForbiddenPort,
        Kind::Finished,
        Kind::Pending,
    ];

    /// The kind of the pod with this number: every kind in turn, most of them sidecars.
    pub(super) fn of(number: usize) -> Self {
        Self::ALL.get(number % 22).copied().unwrap_or(Kind::Sidecar)
    }

    fn is_target(self) -> bool {
        self <= Kind::Legacy
    }

    fn port(self) -> u16 {
        if self == Kind::Legacy { 15091 } else { 15092 }
    }

    /// Whether somebody answers on its address, whatever is announced.
    fn answers(self) -> bool {
        !matches!(self, Kind::Pending | Kind::HostNetwork)
    }
}

/// A pod that is or was there.
#[derive(Clone, Debug)]
pub(super) struct Pod {
    kind: Kind,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) account: String,
    pub(super) node: String,
    uid: String,
    /// Where it answers.
    pub(super) slot: Option<Slot>,
    announced: bool,
    there: bool,
}

impl Pod {
    pub(super) fn id(&self) -> String {
        format!("spiffe://cluster.local/ns/{}/sa/{}", self.namespace, self.account)
    }

    fn app(&self) -> String {
        format!("app-{}", self.account)
    }

    /// Whether it is to be scraped now.
    pub(super) fn is_target(&self) -> bool {
        self.there && self.announced && self.kind.is_target()
    }

    /// As the API of an agent shows it.
    fn shown(&self) -> Vec<String> {
        let slot = self.slot.expect("a target has an address").to_string();
        let path = if self.kind == Kind::Legacy { "/metrics" } else { "/stats/prometheus" };
        let url = format!("https://{slot}{path}");
        let (namespace, name, node) = (self.namespace.clone(), self.name.clone(), self.node.clone());
        vec![namespace, name, node, self.account.clone(), self.app(), slot, "mesh".to_owned(), self.id(), url]
    }
}

/// The name of a node.
pub(super) fn node(number: usize) -> String {
    format!("node-{number}")
}

pub(super) struct Town {
    namespaces: BTreeMap<String, Namespace>,
    addresses: Addresses,
    /// All pods that ever were, by their UID.
    pods: BTreeMap<String, Pod>,
    /// Pods that have been created and do not run yet, by their UIDs.
    starting: Vec<String>,
    created: usize,
    deletions: Deletions,
}

/// When a watch of our own saw that a pod was deleted, by its UID. An agent cannot know before; and what keeps this process
/// from hearing of it in time keeps the agents in it as well.
struct Deletions {
    seen: Arc<Mutex<HashMap<String, Instant>>>,
    _watching: DropGuard,
}

impl Deletions {
    async fn watch(cluster: &Cluster) -> Self {
        let path = "/api/v1/pods?watch=true&timeoutSeconds=7200";
        let mut watch = Watch::open(&cluster.admin(), path).await.expect("a watch");
        let seen = Arc::<Mutex<HashMap<_, _>>>::default();
        let (end, noted) = (CancellationToken::new(), Arc::clone(&seen));
        tokio::spawn(end.clone().run_until_cancelled_owned(async move {
            while let Some(event) = watch.next().await {
                if event["type"] == "DELETED" {
                    let uid = event["object"]["metadata"]["uid"].as_str().expect("a UID").to_owned();
                    noted.lock().unwrap_or_else(PoisonError::into_inner).insert(uid, Instant::now());
                }
            }
        }));
        Self { seen, _watching: end.drop_guard() }
    }

    async fn of(&self, uid: &str) -> Instant {
        let seen = async || self.seen.lock().unwrap_or_else(PoisonError::into_inner).get(uid).copied();
        eventually("the watch sees the deletion", seen).await
    }
}

impl Town {
    pub(super) async fn new(cluster: &Cluster, addresses: Addresses) -> Self {
        let mut namespaces = BTreeMap::new();
        for name in NAMESPACES {
            namespaces.insert(name.to_owned(), cluster.namespace(name).await);
        }
        let deletions = Deletions::watch(cluster).await;
        Self { namespaces, addresses, pods: BTreeMap::new(), starting: Vec::new(), created: 0, deletions }
    }

    pub(super) async fn populate(&mut self, count: usize, random: &mut StdRng) {
        for _ in 0..count {
            self.create(random).await;
        }
        self.run().await;
    }

    /// How many pods are there.
    pub(super) fn len(&self) -> usize {
        self.pods.values().filter(|pod| pod.there).count()
    }

    pub(super) fn history(&self, uid: &str) -> &Pod {
        self.pods.get(uid).unwrap_or_else(|| panic!("{uid} was never there"))
    }

    pub(super) fn last_asked(&self, uid: &str) -> Option<Instant> {
        self.addresses.last_asked(uid)
    }

    /// When a client of the API server saw that it was deleted.
    pub(super) async fn saw_deleted(&self, uid: &str) -> Instant {
        self.deletions.of(uid).await
    }

    /// The targets of the agent on a node.
    pub(super) fn expected_on(&self, number: usize) -> BTreeSet<Vec<String>> {
        self.pods.values().filter(|pod| pod.is_target() && pod.node == node(number)).map(Pod::shown).collect()
    }

    /// Changes about so many pods in each of the ways in which pods change; returns whom it has deleted.
    pub(super) async fn change(&mut self, count: usize, random: &mut StdRng) -> Vec<String> {
        let mut gone = Vec::new();
        for at in 0..count {
            let there: Vec<String> = self.pods.values().filter(|pod| pod.there).map(|pod| pod.uid.clone()).collect();
            let uid = there[below(random, there.len())].clone();
            match at % 4 {
                // Its address is free at once, and the next pod may have it.
                0 => {
                    gone.push(self.delete(&uid).await);
                    self.create(random).await;
                }
                // Another node, the same name, as a StatefulSet does it.
                1 => {
                    let pod = self.pods[&uid].clone();
                    gone.push(self.delete(&uid).await);
                    self.place(pod.kind, pod.namespace, pod.name, pod.account, random).await;
                }
                // Its deletion begins and takes a while; it answers until it is gone.
                // One that has finished has nothing to end, and is gone at once.
                2 if self.pods[&uid].kind == Kind::Finished => {
                    gone.push(self.delete(&uid).await);
                    self.create(random).await;
                }
                2 => {
                    let pod = self.pods[&uid].clone();
                    self.namespaces[&pod.namespace].terminate_pod(&pod.name).await;
                }
                // Announced, or no longer so.
                _ => self.announce(&uid).await,
            }
        }
        self.run().await;
        gone
    }

    async fn create(&mut self, random: &mut StdRng) {
        let number = self.created;
        self.created += 1;
        let namespace = NAMESPACES[below(random, NAMESPACES.len())].to_owned();
        let account = ACCOUNTS[below(random, ACCOUNTS.len())].to_owned();
        self.place(Kind::of(number), namespace, format!("pod-{number}"), account, random).await;
    }

    async fn place(&mut self, kind: Kind, namespace: String, name: String, account: String, random: &mut StdRng) {
        let node = node(below(random, NODES));
        let slot = kind.answers().then(|| self.addresses.take(kind.port(), below(random, 1 << 16)));
        let mut made = pod(&name).on(&node).account(&account).label("app", &format!("app-{account}"));
        for (key, value) in annotations(kind) {
            made = made.annotation(key, value);
        }
        made = match kind {
            Kind::NativeSidecar => made.init_container(proxy(&json!("Always"))),
            Kind::Foreign | Kind::Pending => made.port("http", 8080),
            Kind::HostNetwork => made.with(json!({"spec": {"hostNetwork": true}})),
            _ => made.port("http", 8080).container(proxy(&json!(null))),
        };
        let created = self.namespaces[&namespace].create_pod(made.clone()).await;
        let uid = created.metadata.uid.expect("the API server gives it one");
        let pod = Pod { kind, namespace, name, account, node, uid: uid.clone(), slot, announced: true, there: true };
        self.starting.push(uid.clone());
        self.pods.insert(uid, pod);
    }

    /// The pods that were created get their addresses and run, as kubelets tell it.
    async fn run(&mut self) {
        let starting: Vec<Pod> =
            self.starting.drain(..).map(|uid| self.pods[&uid].clone()).filter(|pod| pod.there).collect();
        let taken: Vec<_> = starting.iter().filter_map(|pod| Some((pod.slot?, pod.uid.clone(), pod.id()))).collect();
        self.addresses.give(&taken).await;
        for pod in starting {
            let phase = if pod.kind == Kind::Finished { "Succeeded" } else { "Running" };
            let ip = pod.slot.map_or(Ipv4Addr::new(127, 80, 255, 1), |slot| slot.ip);
            let status = match pod.kind {
                Kind::Pending => json!({"phase": "Pending"}),
                _ => json!({"phase": phase, "podIP": ip, "podIPs": [{"ip": ip}]}),
            };
            self.namespaces[&pod.namespace].set_pod_status(&pod.name, status).await;
        }
    }

    async fn delete(&mut self, uid: &str) -> String {
        let pod = self.pods.get_mut(uid).expect("it is there");
        pod.there = false;
        let pod = pod.clone();
        self.namespaces[&pod.namespace].delete_pod(&pod.name).await;
        if let Some(slot) = pod.slot {
            // A moment later, in a cluster; here a scrape that is under way may still be answered.
            self.addresses.free(slot);
        }
        uid.to_owned()
    }

    /// Takes the announcement of the secure port away, or gives it back.
    async fn announce(&mut self, uid: &str) {
        let pod = self.pods.get_mut(uid).expect("it is there");
        if !pod.kind.is_target() {
            return;
        }
        pod.announced = !pod.announced;
        let value = pod.announced.then(|| pod.kind.port().to_string());
        let pod = pod.clone();
        let change = json!({"metadata": {"annotations": {SECURE: value}}});
        self.namespaces[&pod.namespace].change_pod(&pod.name, change).await;
    }
}

fn proxy(restart_policy: &serde_json::Value) -> serde_json::Value {
    let ports = json!([{"name": "http-envoy-prom", "containerPort": 15090}]);
    json!({"name": "istio-proxy", "image": "registry.example/proxyv2:1", "ports": ports, "restartPolicy": restart_policy})
}

fn annotations(kind: Kind) -> Vec<(&'static str, &'static str)> {
    let path = ("prometheus.io/path", "/stats/prometheus");
    match kind {
        Kind::Sidecar | Kind::NativeSidecar | Kind::Hardened => vec![(SECURE, "15092"), path],
        Kind::BothPorts => {
            vec![(SECURE, "15092"), (SECURE_ENVOY, "15091"), ("prometheus.io/path", "/actuator/prometheus")]
        }
        Kind::Gateway | Kind::HostNetwork | Kind::Finished | Kind::Pending => vec![(SECURE, "15092")],
        Kind::Waypoint => vec![(SECURE, "15092"), ("sidecar.istio.io/inject", "false")],
        Kind::Legacy => vec![(SECURE, "15091"), ("prometheus.io/path", "/metrics")],
        Kind::EnvoyOnly => vec![(SECURE_ENVOY, "15091")],
        Kind::Malformed => vec![(SECURE, "15092abc")],
        Kind::ForbiddenPort => vec![(SECURE, "15020")],
        Kind::Unannounced | Kind::Foreign => vec![],
    }
}
