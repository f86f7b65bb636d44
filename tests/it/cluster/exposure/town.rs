//! A namespace with a pod of every kind that a mesh has, each on an address of its own, where a real Envoy listens as that
//! kind of pod does. Beside Envoy a small server stands for Istio's agent on 15020.

use std::net::{Ipv4Addr, SocketAddr};

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use crate::support::ca::{HOUR, Leaf, LeafSpec};
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
            // 127.96.0.0/11, which nothing else in the tests uses, from somewhere in it.
            next: 0x7f60_0000 | rand::random_range(1..0x1f_0000),
        };
        town.good();
        town.open();
        town.unannounced();
        town.older();
        town.captured();
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

    /// In order: what a hardened pod of each kind is.
    fn good(&mut self) {
        let named = [(MERGED, "15092")];
        // Inbound capture passes TLS on to the listener as it is.
        let ip = self.proxied("hardened", &Proxy::Sidecar, &[MERGED_ON, HARDENED], &named);
        let inner = self.address();
        self.merged("hardened-inner", inner, 15092, &self.leaf("hardened"));
        let hop = ListenerSpec::permissive("hardened", &self.leaf("hardened"), (inner, 15092).into());
        self.listeners.push(hop.on_ip(ip).on_port(15092));
        self.forbidding(ip);
        let ip = self.proxied(
            "native",
            &Proxy::Native,
            &[MERGED_ON, ENVOY_ON, HARDENED],
            &[(MERGED, "15092"), (ENVOY, "15091")],
        );
        self.merged("native", ip, 15092, &self.leaf("native"));
        self.stats("native-envoy", ip, &self.leaf("native"));
        self.forbidding(ip);
        for (name, proxy) in [("ingress", Proxy::Router), ("waypoint", Proxy::Waypoint)] {
            let ip = self.proxied(
                name,
                &proxy,
                &[MERGED_ON, HARDENED],
                &[(MERGED, "15092"), ("sidecar.istio.io/inject", "false")],
            );
            self.merged(name, ip, 15092, &self.leaf(name));
            self.forbidding(ip);
        }
        let ip = self.proxied("envoy-only", &Proxy::Sidecar, &[ENVOY_ON, HARDENED], &[(ENVOY, "15091")]);
        self.stats("envoy-only", ip, &self.leaf("envoy-only"));
        self.forbidding(ip);
    }

    /// Their plaintext ports are open.
    fn open(&mut self) {
        let scraped = [(MERGED, "15092"), ("prometheus.io/scrape", "true"), ("prometheus.io/port", "15020")];
        let ip = self.proxied("open", &Proxy::Sidecar, &[MERGED_ON], &scraped);
        self.merged("open", ip, 15092, &self.leaf("open"));
        self.plaintext("open", ip);
        let ip = self.proxied("off", &Proxy::Sidecar, &[], &[]);
        self.plaintext("off", ip);
        let ip = self.proxied("ztunnel", &Proxy::Ztunnel, &[], &[]);
        self.servers.push(plain_agent(ip, Reply::ok("ztunnel 1\n")));
    }

    fn unannounced(&mut self) {
        let ip = self.proxied("edge", &Proxy::Router, &[MERGED_ON, HARDENED], &[("sidecar.istio.io/inject", "false")]);
        let made = self.pods.pop().expect("the one just made");
        self.pods.push(made.label("gateway.networking.k8s.io/gateway-name", "edge"));
        self.merged("edge", ip, 15092, &self.leaf("edge"));
        self.forbidding(ip);
        for (name, text) in [("odd", "15092abc"), ("elsewhere", "15093")] {
            let ip = self.proxied(name, &Proxy::Sidecar, &[MERGED_ON, HARDENED], &[(MERGED, text)]);
            self.merged(name, ip, 15092, &self.leaf(name));
            self.forbidding(ip);
            if text == "15093" {
                self.bystander = Some(Server::start_at((ip, 15093).into(), Talk::Plain(always(Reply::ok("x 1\n")))));
            }
        }
        let ip = self.proxied("stale", &Proxy::Sidecar, &[HARDENED], &[(MERGED, "15092")]);
        self.forbidding(ip);
        // Announced, not opened by the proxy, and somebody answers in plain text.
        let ip = self.proxied("makeshift", &Proxy::Sidecar, &[HARDENED], &[(MERGED, "15092")]);
        self.servers.push(Server::start_at((ip, 15092).into(), Talk::Plain(always(Reply::ok("x 1\n")))));
        self.forbidding(ip);
    }

    /// Listeners from before Istio 1.31.
    fn older(&mut self) {
        let named = [(MERGED, "15091")];
        let ip = self.proxied("legacy", &Proxy::Sidecar, &[HARDENED], &named);
        let listener = ListenerSpec::legacy("legacy", &self.leaf("legacy"), &[&self.mesh.ca]);
        self.listeners.push(listener.and_plain().on_ip(ip).on_port(15091));
        self.forbidding(ip);
        let ip = self.proxied("legacy-edge", &Proxy::Router, &[HARDENED], &named);
        self.stats("legacy-edge", ip, &self.leaf("legacy-edge"));
        self.forbidding(ip);
    }

    /// Under STRICT: inbound capture ends the TLS, unless the port is taken out of it.
    fn captured(&mut self) {
        let named = [(MERGED, "15092")];
        let ip = self.proxied("strict", &Proxy::Sidecar, &[MERGED_ON, HARDENED], &named);
        let inner = self.address();
        self.merged("strict-inner", inner, 15092, &self.leaf("strict"));
        let capture = ListenerSpec::capture("strict", &self.leaf("strict"), &[&self.mesh.ca], (inner, 15092).into());
        self.listeners.push(capture.on_ip(ip).on_port(15092));
        self.forbidding(ip);
        let excluded = [(MERGED, "15092"), ("traffic.sidecar.istio.io/excludeInboundPorts", "15091,15092")];
        let ip = self.proxied("excluded", &Proxy::Sidecar, &[MERGED_ON, HARDENED], &excluded);
        self.merged("excluded", ip, 15092, &self.leaf("excluded"));
        self.forbidding(ip);
    }

    /// Nobody answers on the secure port, or lets us in.
    fn silent(&mut self) {
        let named = [(MERGED, "15092")];
        let ip = self.proxied("closed", &Proxy::Sidecar, &[MERGED_ON, HARDENED], &named);
        self.forbidding(ip);
        let ip = self.proxied("starting", &Proxy::Sidecar, &[MERGED_ON, HARDENED], &named);
        self.servers.push(Server::start_at((ip, 15092).into(), Talk::CloseInHandshake));
        self.forbidding(ip);
        let ip = self.proxied("estranged", &Proxy::Sidecar, &[MERGED_ON, HARDENED], &named);
        let listener = ListenerSpec::stats("estranged", &self.leaf("estranged"), &[&self.mesh.other]);
        self.listeners.push(listener.on_ip(ip).on_port(15092));
        self.forbidding(ip);
    }

    /// Another answers, or with another certificate than a good one.
    fn strangers(&mut self) {
        let named = [(MERGED, "15092")];
        let own =
            |town: &Self, name: &str, from, until| town.mesh.ca.issue(&LeafSpec::of(&town.id(name)).valid(from, until));
        let leaves = [
            ("impostor", self.leaf("somebody-else")),
            ("foreign-mesh", self.mesh.other.leaf(&self.id("foreign-mesh"))),
            ("expired", own(self, "expired", -2 * HOUR, -HOUR)),
            ("overdue", own(self, "overdue", -5 * HOUR, HOUR)),
        ];
        for (name, leaf) in leaves {
            let ip = self.proxied(name, &Proxy::Sidecar, &[MERGED_ON, HARDENED], &named);
            self.merged(name, ip, 15092, &leaf);
            self.forbidding(ip);
        }
    }

    /// Those with no proxy, or no address, or no future.
    fn without_ports(&mut self) {
        let ip = self.address().to_string();
        let ambient = pod("ambient").account("ambient").annotation("ambient.istio.io/redirection", "enabled");
        self.pods.push(ambient.running(&ip));
        self.pods.push(pod("foreign").account("foreign").running(&ip));
        let proxied = |name: &str| {
            pod(name)
                .account(name)
                .container(proxy(&Proxy::Sidecar, &[MERGED_ON, HARDENED]))
                .annotation(MERGED, "15092")
        };
        self.pods.push(proxied("waiting"));
        self.pods.push(proxied("on-node").with(json!({"spec": {"hostNetwork": true}})).running(&ip));
        self.pods.push(proxied("over").running(&ip).with(json!({"status": {"phase": "Succeeded"}})));
        self.pods.push(proxied("leaving").on("n1").running(&ip));
    }

    /// Adds a pod with this proxy, which runs on an address of its own.
    fn proxied(&mut self, name: &str, role: &Proxy, env: &[(&str, &str)], annotations: &[(&str, &str)]) -> Ipv4Addr {
        let ip = self.address();
        let mut made = pod(name).account(name).owned_by("apps/v1", "StatefulSet", name);
        made = match role {
            Proxy::Native => made.init_container(proxy(role, env)),
            Proxy::Sidecar => made.container(proxy(role, env)),
            Proxy::Router | Proxy::Waypoint | Proxy::Ztunnel => {
                made.with(json!({"spec": {"containers": [proxy(role, env)]}}))
            }
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
    let mut proxy =
        json!({"name": "istio-proxy", "image": "registry.example/proxyv2:1", "args": ["proxy", word], "env": env});
    if matches!(role, Proxy::Native) {
        proxy["restartPolicy"] = json!("Always");
    }
    proxy
}
