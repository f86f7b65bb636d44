//! What the API server says of a pod, as far as the exposure of its metrics depends on it: a pure function of the object.
//!
//! The environment of the proxy's container says which ports are open, because the injector writes every `proxyMetadata`
//! there, that of the whole mesh included. Annotations say what is announced. Everything in them is its owner's word.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Container, Pod};

use crate::cli::istio::{
    ENVOY_ANNOTATION, ENVOY_PORT, ENVOY_VARIABLE, EXCLUDE_ANNOTATION, GATEWAY_NAME_LABEL, INCLUDE_ANNOTATION,
    LOCALHOST_ONLY_VARIABLE, MERGED_ANNOTATION, MERGED_PORT, MERGED_VARIABLE, annotation, is_ambient, proxy,
};
use crate::cli::remedy::Source;
use crate::cli::scrape::port_of;
use crate::label::check_pod_ip;
use crate::model::Cidr;

/// Where pods may be asked: the word of whoever runs the command, not of a pod.
#[derive(Clone, Debug, Default)]
pub(in crate::cli) struct Reach {
    /// The only ranges in which pods are, if there are any.
    pub(in crate::cli) pod_cidrs: Vec<Cidr>,
    /// Secure ports that may be asked beside those of Istio's convention.
    pub(in crate::cli) ports: Vec<u16>,
}

impl Reach {
    /// Whether this may be asked as a secure port, whatever a pod says.
    fn has(&self, port: u16) -> bool {
        matches!(port, MERGED_PORT | ENVOY_PORT) || self.ports.contains(&port)
    }
}

/// What a pod is to somebody who looks at the mesh.
#[derive(Debug)]
pub(in crate::cli) enum Sighting {
    /// Part of it.
    Meshed(Box<Facts>),
    /// No proxy, and not in ambient mode.
    Foreign,
    /// It has ended: its address may belong to another pod.
    Finished,
    /// Its deletion has begun.
    Leaving,
}

/// A pod of the mesh.
#[derive(Clone, Debug)]
pub(in crate::cli) struct Facts {
    pub(in crate::cli) namespace: String,
    pub(in crate::cli) name: String,
    pub(in crate::cli) account: String,
    /// The node that it runs on; empty while there is none.
    pub(in crate::cli) node: String,
    pub(in crate::cli) role: Role,
    pub(in crate::cli) whereabouts: Whereabouts,
    /// Why its address is none that a pod can have; nobody is asked there.
    pub(in crate::cli) misplaced: Option<String>,
    /// The port of merged metrics, by the proxy's environment.
    merged: Opening,
    /// The port of Envoy's own.
    envoy: Opening,
    /// Whether the proxy closes its plaintext ports to everybody outside the pod; `None` where the value stands elsewhere.
    pub(in crate::cli) restricted: Option<bool>,
    /// The annotations that name secure ports, merged first.
    pub(in crate::cli) announced: Vec<Announced>,
    /// The port that the `prometheus.io` annotations have scraped in plain text.
    pub(in crate::cli) plainly_scraped: Option<u16>,
    pub(in crate::cli) source: Source,
    capture: Capture,
    /// The ports that were announced or are open, and may be asked.
    secure_ports: Vec<u16>,
}

/// What the proxy is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Role {
    Sidecar,
    Gateway,
    Waypoint,
    /// The node's proxy of ambient mode.
    Ztunnel,
    /// A workload in ambient mode: there is no proxy in it.
    Ambient,
}

impl Role {
    /// That of a pod; `None` of one that is no part of the mesh.
    pub(in crate::cli) fn of(pod: &Pod) -> Option<Self> {
        match proxy(pod) {
            Some(proxy) => Some(role(pod, proxy)),
            None => is_ambient(pod).then_some(Role::Ambient),
        }
    }
}

/// Where a pod can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Whereabouts {
    /// On an address of its own.
    At(IpAddr),
    /// It has none yet, or none that is one of a pod.
    Nowhere,
    /// On that of its node, which it shares with others.
    OnNode,
}

/// What the environment says of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Opening {
    Off,
    On(u16),
    /// The value stands elsewhere (`valueFrom`).
    Unknown,
}

/// Which of the two secure ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Kind {
    Merged,
    Envoy,
}

impl Kind {
    /// Both, merged first.
    pub(in crate::cli) const BOTH: [Kind; 2] = [Kind::Merged, Kind::Envoy];

    pub(in crate::cli) fn annotation(self) -> &'static str {
        match self {
            Kind::Merged => MERGED_ANNOTATION,
            Kind::Envoy => ENVOY_ANNOTATION,
        }
    }

    pub(in crate::cli) fn variable(self) -> &'static str {
        match self {
            Kind::Merged => MERGED_VARIABLE,
            Kind::Envoy => ENVOY_VARIABLE,
        }
    }

    /// The number by convention.
    pub(in crate::cli) fn usual(self) -> u16 {
        match self {
            Kind::Merged => MERGED_PORT,
            Kind::Envoy => ENVOY_PORT,
        }
    }
}

/// An annotation that names a secure port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Announced {
    pub(in crate::cli) kind: Kind,
    /// As it was written.
    pub(in crate::cli) text: String,
    /// If it is a port at all.
    pub(in crate::cli) port: Option<u16>,
}

/// Which ports inbound capture is for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Capture {
    /// Every port but these.
    Except(Vec<u16>),
    /// These; exclusions count for nothing then.
    Listed(Vec<u16>),
}

impl Sighting {
    /// What `pod` is to somebody who may ask so far.
    pub(in crate::cli) fn of(pod: &Pod, reach: &Reach) -> Self {
        let status = pod.status.as_ref();
        if matches!(status.and_then(|status| status.phase.as_deref()), Some("Succeeded" | "Failed")) {
            return Sighting::Finished;
        }
        let Some(role) = Role::of(pod) else { return Sighting::Foreign };
        if pod.metadata.deletion_timestamp.is_some() {
            return Sighting::Leaving;
        }
        Sighting::Meshed(Box::new(Facts::of(pod, role, proxy(pod), reach)))
    }
}

impl Facts {
    fn of(pod: &Pod, role: Role, proxy: Option<&Container>, reach: &Reach) -> Self {
        let spec = pod.spec.as_ref();
        let ip: Option<IpAddr> =
            pod.status.as_ref().and_then(|status| status.pod_ip.as_deref()).and_then(|ip| ip.parse().ok());
        let misplaced = ip.and_then(|ip| check_pod_ip(&reach.pod_cidrs, ip).err());
        let account = spec.and_then(|spec| spec.service_account_name.as_deref()).filter(|name| !name.is_empty());
        let announced = Kind::BOTH.into_iter().filter_map(|kind| {
            let text = annotation(pod, kind.annotation())?.to_owned();
            let port = port_of(&text);
            Some(Announced { kind, text, port })
        });
        let scraped = annotation(pod, "prometheus.io/scrape") == Some("true");
        let mut facts = Self {
            namespace: pod.metadata.namespace.clone().unwrap_or_default(),
            name: pod.metadata.name.clone().unwrap_or_default(),
            account: account.unwrap_or("default").to_owned(),
            node: spec.and_then(|spec| spec.node_name.clone()).unwrap_or_default(),
            role,
            whereabouts: match (spec.and_then(|spec| spec.host_network), ip.filter(|_| misplaced.is_none())) {
                (Some(true), _) => Whereabouts::OnNode,
                (_, Some(ip)) => Whereabouts::At(ip),
                (_, None) => Whereabouts::Nowhere,
            },
            misplaced,
            merged: opening(proxy, MERGED_VARIABLE),
            envoy: opening(proxy, ENVOY_VARIABLE),
            restricted: match variable(proxy, LOCALHOST_ONLY_VARIABLE) {
                Some(None) => None,
                Some(Some(text)) => Some(matches!(text, "1" | "t" | "T" | "true" | "TRUE" | "True")),
                None => Some(false),
            },
            announced: announced.collect(),
            plainly_scraped: annotation(pod, "prometheus.io/port").filter(|_| scraped).and_then(port_of),
            source: Source::of(pod),
            capture: Capture::of(pod),
            secure_ports: Vec::new(),
        };
        let announced = facts.announced.iter().filter_map(|announced| announced.port);
        let opened = facts.opened().into_iter().map(|(_, port)| port);
        for port in announced.chain(opened).filter(|port| reach.has(*port)) {
            if !facts.secure_ports.contains(&port) {
                facts.secure_ports.push(port);
            }
        }
        facts
    }

    /// The ports that the proxy opens, by its environment.
    pub(in crate::cli) fn opened(&self) -> Vec<(Kind, u16)> {
        let open = Kind::BOTH.into_iter().filter_map(|kind| match self.opening(kind) {
            Opening::On(port) => Some((kind, port)),
            Opening::Off | Opening::Unknown => None,
        });
        open.collect()
    }

    /// Whether the environment does not tell all that is open.
    pub(in crate::cli) fn is_vague(&self) -> bool {
        self.merged == Opening::Unknown || self.envoy == Opening::Unknown
    }

    /// Whether the environment opens none, for sure, and none is announced that may be asked.
    pub(in crate::cli) fn has_no_secure_port(&self) -> bool {
        self.secure_ports.is_empty() && self.opened().is_empty() && !self.is_vague()
    }

    /// Whether a port of its pod is announced though no proxy opens it: a listener of before Istio 1.31 may be there, which is
    /// made elsewhere.
    pub(in crate::cli) fn may_be_legacy(&self, port: u16) -> bool {
        port == ENVOY_PORT
            && self.announced.iter().any(|announced| announced.port == Some(port))
            && !self.is_vague()
            && !self.opens(port)
    }

    /// Whether the proxy opens this port, by its environment.
    pub(in crate::cli) fn opens(&self, port: u16) -> bool {
        self.opened().iter().any(|(_, open)| *open == port)
    }

    /// The secure ports to ask: announced or open, and of Istio's convention or allowed by whoever asks.
    pub(in crate::cli) fn secure_ports(&self) -> &[u16] {
        &self.secure_ports
    }

    /// Whether this port is one of those.
    pub(in crate::cli) fn may_ask(&self, port: u16) -> bool {
        self.secure_ports.contains(&port)
    }

    /// What the environment says of this port of the two.
    pub(in crate::cli) fn opening(&self, kind: Kind) -> Opening {
        match kind {
            Kind::Merged => self.merged,
            Kind::Envoy => self.envoy,
        }
    }

    /// How the plaintext ports come to be closed to everybody outside the pod, where they are not.
    pub(in crate::cli) fn restricting(&self) -> String {
        match self.restricted {
            // It is set, and a proxy reads its variables once.
            Some(true) if !self.source.lacks_in_bootstrap(LOCALHOST_ONLY_VARIABLE) => format!(
                "{}; if it answers still, its Istio does not know {LOCALHOST_ONLY_VARIABLE}",
                self.source.restarting()
            ),
            Some(_) | None => self.source.setting(LOCALHOST_ONLY_VARIABLE, "true"),
        }
    }

    /// Whether a connection to this port goes through the sidecar's inbound capture.
    pub(in crate::cli) fn is_captured(&self, port: u16) -> bool {
        self.role == Role::Sidecar
            && match &self.capture {
                Capture::Except(excluded) => !excluded.contains(&port),
                Capture::Listed(included) => included.contains(&port),
            }
    }
}

impl Capture {
    fn of(pod: &Pod) -> Self {
        let ports = |text: &str| text.split(',').filter_map(|port| port_of(port.trim())).collect::<Vec<_>>();
        match annotation(pod, INCLUDE_ANNOTATION).filter(|text| text.trim() != "*") {
            Some(listed) => Self::Listed(ports(listed)),
            None => Self::Except(annotation(pod, EXCLUDE_ANNOTATION).map(ports).unwrap_or_default()),
        }
    }
}

/// What the proxy is told to be; without a word of that, what the pod looks like.
fn role(pod: &Pod, proxy: &Container) -> Role {
    let label = |name: &str| pod.metadata.labels.as_ref()?.get(name).map(String::as_str);
    match proxy.args.iter().flatten().map(String::as_str).find(|word| *word != "proxy") {
        Some("sidecar") => return Role::Sidecar,
        Some("router") => return Role::Gateway,
        Some("waypoint") => return Role::Waypoint,
        Some("ztunnel") => return Role::Ztunnel,
        _ => {}
    }
    let alone = pod.spec.as_ref().is_some_and(|spec| spec.containers.len() == 1 && spec.containers[0] == *proxy);
    match label("gateway.istio.io/managed") {
        Some("istio.io-mesh-controller") => Role::Waypoint,
        _ if label("app") == Some("ztunnel") => Role::Ztunnel,
        _ if alone || label(GATEWAY_NAME_LABEL).is_some() => Role::Gateway,
        _ => Role::Sidecar,
    }
}

/// A variable of the proxy: not there, there without a value of its own, or this.
fn variable<'p>(proxy: Option<&'p Container>, name: &str) -> Option<Option<&'p str>> {
    let found = proxy?.env.iter().flatten().rfind(|variable| variable.name == name)?;
    let elsewhere = found.value_from.is_some();
    Some(found.value.as_deref().filter(|value| !value.is_empty()).or((!elsewhere).then_some("")))
}

fn opening(proxy: Option<&Container>, name: &str) -> Opening {
    match variable(proxy, name) {
        None => Opening::Off,
        Some(None) => Opening::Unknown,
        // What is no number the proxy takes for 0, which is off.
        Some(Some(text)) => port_of(text).map_or(Opening::Off, Opening::On),
    }
}

#[cfg(test)]
mod tests;
