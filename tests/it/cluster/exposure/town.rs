//! A namespace with a pod of every kind that a mesh has, each on an address of its own, where a real Envoy listens as that
//! kind of pod does. Beside Envoy a small server stands for Istio's agent on 15020. Which kinds there are stands in `kinds`.

mod kinds;

use std::net::{Ipv4Addr, SocketAddr};

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use crate::support::ca::Leaf;
use crate::support::envoy::{Envoy, ListenerSpec};
use crate::support::kubernetes::{Cluster, Namespace, PodManifest, pod};
use crate::support::mesh::{Mesh, ONLY_13};
use crate::support::tls_server::{Reply, Server, Talk, always};

pub(super) const MERGED: &str = "prometheus.istio.io/secure-port";
pub(super) const ENVOY: &str = "prometheus.istio.io/secure-envoy-port";
const MERGED_ON: (&str, &str) = ("ENVOY_SECURE_MERGED_METRICS_PORT", "15092");
const ENVOY_ON: (&str, &str) = ("ENVOY_SECURE_METRICS_PORT", "15091");
const HARDENED: (&str, &str) = ("METRICS_LOCALHOST_ACCESS_ONLY", "true");

pub(super) struct Town {
    pub(super) cluster: &'static Cluster,
    pub(super) shop: Namespace,
    pub(super) mesh: Mesh,
    listeners: Vec<ListenerSpec>,
    pods: Vec<PodManifest>,
    servers: Vec<Server>,
    /// Answers on a port to which nobody may be sent.
    pub(super) bystander: Option<Server>,
    /// What Istio's agent answers behind a merged port.
    agent: Server,
    _envoy: Option<Envoy>,
    next: u32,
}

/// What the proxy is told to be.
enum Proxy {
    Sidecar,
    Native,
    Router,
    Waypoint,
    Ztunnel,
}

impl Town {
    pub(super) async fn new() -> Self {
        let cluster = Cluster::shared().await;
        let mut town = Self {
            cluster,
            shop: cluster.own_namespace("shop").await,
            mesh: Mesh::new(ONLY_13).await,
            listeners: Vec::new(),
            pods: Vec::new(),
            servers: Vec::new(),
            bystander: None,
            agent: Server::start(Talk::Plain(always(Reply::ok("merged 1\n")))),
            _envoy: None,
            // 127.112.0.0/12, which nothing else in the tests uses, from somewhere in it.
            next: 0x7f70_0000 | rand::random_range(1..0xf_0000),
        };
        town.good();
        town.open();
        town.unannounced();
        town.older();
        town.captured();
        town.captured_and_let_through();
        town.listed();
        town.other_numbers();
        town.silent();
        town.strangers();
        town.without_ports();
        town._envoy = Some(Envoy::start_many(&town.listeners).await);
        town.shop.create_pods(town.pods.drain(..)).await;
        town.shop.terminate_pod("leaving").await;
        town
    }

    /// The address of a pod.
    pub(super) async fn ip(&self, name: &str) -> String {
        let pod: Pod = self.shop.api().get(name).await.expect("it is there");
        pod.status.and_then(|status| status.pod_ip).expect("an address")
    }

    pub(super) fn id(&self, account: &str) -> String {
        format!("spiffe://cluster.local/ns/{}/sa/{account}", self.shop.name())
    }

    /// The pod that was made last, changed.
    fn last(&mut self, change: impl FnOnce(PodManifest) -> PodManifest) {
        let made = self.pods.pop().expect("the one just made");
        self.pods.push(change(made));
    }

    /// Adds a pod with this proxy, which runs on an address of its own.
    fn proxied(&mut self, name: &str, role: &Proxy, env: &[(&str, &str)], annotations: &[(&str, &str)]) -> Ipv4Addr {
        self.proxied_as(name, role, proxy(role, env), annotations)
    }

    fn proxied_as(&mut self, name: &str, role: &Proxy, proxy: Value, annotations: &[(&str, &str)]) -> Ipv4Addr {
        let ip = self.address();
        let mut made = pod(name).account(name).owned_by("apps/v1", "StatefulSet", name);
        made = match role {
            Proxy::Native => made.init_container(proxy),
            Proxy::Sidecar => made.container(proxy),
            Proxy::Router | Proxy::Waypoint | Proxy::Ztunnel => made.with(json!({"spec": {"containers": [proxy]}})),
        };
        for (key, value) in annotations {
            made = made.annotation(key, value);
        }
        self.pods.push(made.running(&ip.to_string()));
        ip
    }

    fn leaf(&self, account: &str) -> Leaf {
        self.mesh.ca.leaf(&self.id(account))
    }

    fn merged(&mut self, name: &str, ip: Ipv4Addr, port: u16, leaf: &Leaf) {
        let listener = ListenerSpec::merged(name, leaf, &[&self.mesh.ca], self.agent.socket());
        self.listeners.push(listener.on_ip(ip).on_port(port));
    }

    fn stats(&mut self, name: &str, ip: Ipv4Addr, leaf: &Leaf) {
        let listener = ListenerSpec::stats(name, leaf, &[&self.mesh.ca]);
        self.listeners.push(listener.on_ip(ip).on_port(15091));
    }

    /// Both plaintext ports answer everybody.
    fn plaintext(&mut self, name: &str, ip: Ipv4Addr) {
        let listener = ListenerSpec::plain_stats(&format!("{name}-plain"), &self.leaf(name));
        self.listeners.push(listener.on_ip(ip).on_port(15090));
        self.servers.push(plain_agent(ip, Reply::ok("merged 1\n")));
    }

    /// Istio's agent as METRICS_LOCALHOST_ACCESS_ONLY makes it.
    fn forbidding(&mut self, ip: Ipv4Addr) {
        self.servers.push(plain_agent(ip, Reply::with("403 Forbidden", &[], "")));
    }

    fn address(&mut self) -> Ipv4Addr {
        self.next += 1;
        Ipv4Addr::from(self.next)
    }
}

fn plain_agent(ip: Ipv4Addr, reply: Reply) -> Server {
    Server::start_at(SocketAddr::from((ip, 15020)), Talk::Plain(always(reply)))
}

fn proxy(role: &Proxy, env: &[(&str, &str)]) -> Value {
    let word = match role {
        Proxy::Sidecar | Proxy::Native => "sidecar",
        Proxy::Router => "router",
        Proxy::Waypoint => "waypoint",
        Proxy::Ztunnel => "ztunnel",
    };
    let env: Vec<Value> = env.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
    proxy_with(role, word, &json!(env))
}

/// With variables as Kubernetes writes them.
fn proxy_with(role: &Proxy, word: &str, env: &Value) -> Value {
    let mut proxy =
        json!({"name": "istio-proxy", "image": "registry.example/proxyv2:1", "args": ["proxy", word], "env": env});
    if matches!(role, Proxy::Native) {
        proxy["restartPolicy"] = json!("Always");
    }
    proxy
}
