//! The kinds of pods that a mesh has.

use serde_json::json;

use super::{ENVOY, ENVOY_ON, HARDENED, MERGED, MERGED_ON, Proxy, Town, plain_agent, proxy, proxy_with};
use crate::support::ca::{HOUR, LeafSpec};
use crate::support::envoy::ListenerSpec;
use crate::support::kubernetes::pod;
use crate::support::tls_server::{Reply, Server, Talk, always};

const EXCLUDED: &str = "traffic.sidecar.istio.io/excludeInboundPorts";
const LISTED: &str = "traffic.sidecar.istio.io/includeInboundPorts";

impl Town {
    /// In order: what a hardened pod of each kind is.
    pub(super) fn good(&mut self) {
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
    pub(super) fn open(&mut self) {
        let scraped = [(MERGED, "15092"), ("prometheus.io/scrape", "true"), ("prometheus.io/port", "15020")];
        let ip = self.proxied("open", &Proxy::Sidecar, &[MERGED_ON], &scraped);
        self.merged("open", ip, 15092, &self.leaf("open"));
        self.plaintext("open", ip);
        let ip = self.proxied("off", &Proxy::Sidecar, &[], &[]);
        self.plaintext("off", ip);
        let ip = self.proxied("ztunnel", &Proxy::Ztunnel, &[], &[]);
        self.servers.push(plain_agent(ip, Reply::ok("ztunnel 1\n")));
    }

    pub(super) fn unannounced(&mut self) {
        let ip = self.proxied("edge", &Proxy::Router, &[MERGED_ON, HARDENED], &[("sidecar.istio.io/inject", "false")]);
        self.last(|made| made.label("gateway.networking.k8s.io/gateway-name", "edge"));
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
        // Nobody patches the template of a job.
        self.last(|made| made.owned_by("batch/v1", "Job", "stale"));
        self.forbidding(ip);
        // Announced, not opened by the proxy, and somebody answers in plain text.
        let ip = self.proxied("makeshift", &Proxy::Sidecar, &[HARDENED], &[(MERGED, "15092")]);
        self.servers.push(Server::start_at((ip, 15092).into(), Talk::Plain(always(Reply::ok("x 1\n")))));
        self.forbidding(ip);
    }

    /// Listeners from before Istio 1.31.
    pub(super) fn older(&mut self) {
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
    pub(super) fn captured(&mut self) {
        let named = [(MERGED, "15092")];
        let ip = self.proxied("strict", &Proxy::Sidecar, &[MERGED_ON, HARDENED], &named);
        let inner = self.address();
        self.merged("strict-inner", inner, 15092, &self.leaf("strict"));
        let capture = ListenerSpec::capture("strict", &self.leaf("strict"), &[&self.mesh.ca], (inner, 15092).into());
        self.listeners.push(capture.on_ip(ip).on_port(15092));
        self.forbidding(ip);
        let excluded = [(MERGED, "15092"), (EXCLUDED, "15091,15092")];
        let ip = self.proxied("excluded", &Proxy::Sidecar, &[MERGED_ON, HARDENED], &excluded);
        self.merged("excluded", ip, 15092, &self.leaf("excluded"));
        self.forbidding(ip);
    }

    /// Behind inbound capture that passes TLS on: to a port that is off, or whatever comes, as `portLevelMtls` DISABLE has it.
    pub(super) fn captured_and_let_through(&mut self) {
        let named = [(MERGED, "15092")];
        let ip = self.proxied("shut", &Proxy::Sidecar, &[HARDENED], &named);
        let nobody = self.address();
        let hop = ListenerSpec::permissive("shut", &self.leaf("shut"), (nobody, 15092).into());
        self.listeners.push(hop.on_ip(ip).on_port(15092));
        self.forbidding(ip);
        let ip = self.proxied("disabled", &Proxy::Sidecar, &[MERGED_ON, HARDENED], &named);
        let inner = self.address();
        self.merged("disabled-inner", inner, 15092, &self.leaf("disabled"));
        let hop = ListenerSpec::through("disabled", &self.leaf("disabled"), (inner, 15092).into());
        self.listeners.push(hop.on_ip(ip).on_port(15092));
        self.forbidding(ip);
    }

    /// Inbound capture is for the ports of a list.
    pub(super) fn listed(&mut self) {
        // As the agents themselves are deployed: the list is empty.
        let none = [(MERGED, "15092"), (LISTED, ""), ("prometheus.istio.io/merge-metrics", "false")];
        let ip = self.proxied("agent", &Proxy::Sidecar, &[MERGED_ON, HARDENED], &none);
        self.merged("agent", ip, 15092, &self.leaf("agent"));
        self.forbidding(ip);
        // Of a list nothing is excluded.
        let both = [(MERGED, "15092"), (LISTED, "8080,15092"), (EXCLUDED, "15092")];
        let ip = self.proxied("listed", &Proxy::Sidecar, &[MERGED_ON, HARDENED], &both);
        let inner = self.address();
        self.merged("listed-inner", inner, 15092, &self.leaf("listed"));
        let capture = ListenerSpec::capture("listed", &self.leaf("listed"), &[&self.mesh.ca], (inner, 15092).into());
        self.listeners.push(capture.on_ip(ip).on_port(15092));
        self.forbidding(ip);
    }

    /// The setting is the port number: another than by convention, or one that stands elsewhere.
    pub(super) fn other_numbers(&mut self) {
        let other = ("ENVOY_SECURE_MERGED_METRICS_PORT", "16092");
        let ip = self.proxied("unusual", &Proxy::Sidecar, &[other, HARDENED], &[(MERGED, "16092")]);
        self.merged("unusual", ip, 16092, &self.leaf("unusual"));
        self.forbidding(ip);
        let from =
            |(name, _): (&str, &str)| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}});
        let env = json!([MERGED_ON, ENVOY_ON, HARDENED].map(from));
        let ip = self.proxied_as("vague", &Proxy::Sidecar, proxy_with(&Proxy::Sidecar, "sidecar", &env), &[]);
        self.forbidding(ip);
        // Its annotations are those of its application, which Istio's agent does not merge.
        let own = [
            (MERGED, "15092"),
            ("prometheus.istio.io/merge-metrics", "false"),
            ("prometheus.io/scrape", "true"),
            ("prometheus.io/port", "8080"),
            ("prometheus.io/path", "/metrics"),
        ];
        let ip = self.proxied("unmerged", &Proxy::Sidecar, &[MERGED_ON, HARDENED], &own);
        self.last(|made| made.owned_by("apps/v1", "ReplicaSet", "unmerged-5d7c9").label("pod-template-hash", "5d7c9"));
        self.merged("unmerged", ip, 15092, &self.leaf("unmerged"));
        self.forbidding(ip);
    }

    /// Nobody answers on the secure port, or lets us in.
    pub(super) fn silent(&mut self) {
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
    pub(super) fn strangers(&mut self) {
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
    pub(super) fn without_ports(&mut self) {
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
}
