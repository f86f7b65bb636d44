//! What to change so that a pod offers its metrics as it should: a command where one is known, else a sentence.
//!
//! A change of a pod itself is lost with the pod, so it is made where the pod comes from: the template of its workload, or
//! the `Gateway` resource that Istio makes one of. A command replaces nothing but what it is about. Whoever may write a pod
//! may write its owners, too: of what it says nothing gets into a command but the name of the owner that it claims, and of what
//! the API server says but the pod's name and namespace, each if it is a plain word; every value is one of our own.

use std::fmt;

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Map, Value, json};

use super::istio::{
    ENVOY_PORT, EXCLUDE_ANNOTATION, GATEWAY_NAME_LABEL, INCLUDE_ANNOTATION, MERGED_PORT, PROXY_CONFIG_ANNOTATION,
    PROXY_CONTAINER, annotation, is_opted_out,
};

/// Where a pod comes from, and what stands there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Source {
    /// Without one that is a plain word there is no command.
    namespace: Option<String>,
    /// Its name, if that is a plain word.
    pod: Option<String>,
    origin: Origin,
    /// The injector makes the proxy, from annotations; else its variables stand in the template itself.
    injected: bool,
    /// The annotation of [`PROXY_CONFIG_ANNOTATION`]: to look at, and in no command.
    proxy_config: Option<String>,
    /// Ports are taken out of inbound capture already.
    has_exclusions: bool,
    /// Inbound capture is for the ports of a list, of which nothing is taken out but by taking it off the list.
    has_inclusions: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Origin {
    /// A `Gateway` of the Gateway API, from which Istio makes the workload.
    Gateway {
        name: String,
        workload: Option<Workload>,
    },
    Workload(Workload),
    /// Nobody that is known, or a name that is none.
    Unknown,
}

/// A workload as kubectl names it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Workload {
    kind: &'static str,
    name: String,
}

/// `deployment/cart`.
impl fmt::Display for Workload {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.kind, self.name)
    }
}

impl Source {
    /// Where `pod` comes from.
    pub(super) fn of(pod: &Pod) -> Self {
        let label = |name: &str| pod.metadata.labels.as_ref()?.get(name);
        let gateway = label(GATEWAY_NAME_LABEL).filter(|name| is_plain(name)).cloned();
        let origin = match (gateway, workload(pod)) {
            (Some(name), workload) => Origin::Gateway { name, workload },
            (None, Some(workload)) => Origin::Workload(workload),
            (None, None) => Origin::Unknown,
        };
        Self {
            namespace: pod.metadata.namespace.clone().filter(|name| is_plain(name)),
            pod: pod.metadata.name.clone().filter(|name| is_plain(name)),
            origin,
            injected: !is_opted_out(pod),
            proxy_config: annotation(pod, PROXY_CONFIG_ANNOTATION).map(str::to_owned),
            has_exclusions: annotation(pod, EXCLUDE_ANNOTATION).is_some(),
            has_inclusions: annotation(pod, INCLUDE_ANNOTATION).is_some_and(|listed| listed.trim() != "*"),
        }
    }

    /// What the pod came from, as `deployment/cart` or `gateway/edge`.
    pub(super) fn origin(&self) -> Option<String> {
        match &self.origin {
            Origin::Gateway { name, .. } => Some(format!("gateway/{name}")),
            Origin::Workload(workload) => Some(workload.to_string()),
            Origin::Unknown => None,
        }
    }

    /// The workload that makes the pod, whoever has made that.
    fn workload(&self) -> Option<&Workload> {
        match &self.origin {
            Origin::Gateway { workload, .. } => workload.as_ref(),
            Origin::Workload(workload) => Some(workload),
            Origin::Unknown => None,
        }
    }

    /// How a secure port is opened and announced. A port beside the convention is the pod's own word, so there is no command
    /// for it.
    pub(super) fn opening(&self, annotation: &str, variable: &str, port: u16) -> String {
        let number = port.to_string();
        let config = format!("proxyMetadata: {{{variable}: \"{port}\"}}");
        let both = [(annotation, number.as_str()), (PROXY_CONFIG_ANNOTATION, config.as_str())];
        let command = match &self.origin {
            Origin::Gateway { .. } => {
                let (adding, annotating) = (self.adding(variable, &number), self.annotating(annotation, port));
                return self.looked_at(format!("{adding}; then {annotating}"));
            }
            Origin::Workload(workload) if !self.injected => {
                let env = json!([{"name": variable, "value": number}]);
                let spec = json!({"containers": [{"name": PROXY_CONTAINER, "env": env}]});
                let metadata = json!({"annotations": {annotation: number}});
                self.patch(workload, &json!({"spec": {"template": {"metadata": metadata, "spec": spec}}}))
            }
            Origin::Workload(_) if self.proxy_config.is_none() => self.patch_annotations(&both),
            _ => None,
        };
        match command.filter(|_| is_usual(port)) {
            Some(command) => format!("open the port and name it: {command}"),
            None => format!("{}, and {annotation}: \"{port}\" to the annotations", self.adding(variable, &number)),
        }
    }

    /// How an annotation is set to a port that the pod does not have in it. A port beside the convention is the pod's own word,
    /// so there is no command for it.
    pub(super) fn annotating(&self, annotation: &str, port: u16) -> String {
        match self.patch_annotations(&[(annotation, &port.to_string())]).filter(|_| is_usual(port)) {
            Some(command) => command,
            None => format!("{}, set the annotation {annotation}: \"{port}\"", self.place()),
        }
    }

    /// How a secure port is taken out of inbound capture, and the other of the convention with it. What is taken out already
    /// stays: no command replaces it.
    pub(super) fn excluding(&self, port: u16) -> String {
        let ports = if is_usual(port) { format!("{ENVOY_PORT},{MERGED_PORT}") } else { port.to_string() };
        if self.has_inclusions {
            return format!("{}, take {ports} out of the annotation {INCLUDE_ANNOTATION}", self.place());
        }
        if self.has_exclusions {
            return format!("{}, add {ports} to the annotation {EXCLUDE_ANNOTATION}", self.place());
        }
        let command = self.patch_annotations(&[(EXCLUDE_ANNOTATION, &ports)]).filter(|_| is_usual(port));
        command.unwrap_or_else(|| format!("{}, set the annotation {EXCLUDE_ANNOTATION}: \"{ports}\"", self.place()))
    }

    /// How the pod is started anew, with all that its template says.
    pub(super) fn restarting(&self) -> String {
        match self.restart() {
            Some(command) => format!("start the pod anew: {command}"),
            None => "start the pod anew".to_owned(),
        }
    }

    fn restart(&self) -> Option<String> {
        Some(format!("kubectl rollout restart {} -n {}", self.workload()?, self.namespace.as_ref()?))
    }

    /// With what has istiod look at a `ProxyConfig` that was changed for a `Gateway`: a patch that sets what is set already does
    /// not. Of other pods what was said is all.
    fn looked_at(&self, said: String) -> String {
        if !matches!(self.origin, Origin::Gateway { .. }) {
            return said;
        }
        let command = self.restart().unwrap_or_else(|| "restart its Deployment".to_owned());
        format!(
            "{said}; then, as istiod looks at a ProxyConfig only when the Gateway or its Deployment changes: {command}"
        )
    }

    /// How somebody asks a secure port of the pod himself.
    pub(super) fn asking(&self, port: u16) -> String {
        match (&self.pod, &self.namespace) {
            (Some(pod), Some(namespace)) => {
                format!("ask by hand: meshscrape scrape pod/{pod} -n {namespace} --port {port}")
            }
            _ => format!("ask its port {port} by hand, with meshscrape scrape"),
        }
    }

    /// How a variable is set that both parts of the proxy go by. Where no injector has written it twice, the agent has it from the
    /// environment, and Envoy's bootstrap from the annotation.
    pub(super) fn setting(&self, variable: &str, value: &str) -> String {
        let adding = self.adding(variable, value);
        if !self.is_in_template() {
            return self.looked_at(adding);
        }
        let command = match &self.origin {
            Origin::Workload(workload) if self.proxy_config.is_none() => {
                let config = format!("proxyMetadata: {{{variable}: \"{value}\"}}");
                let metadata = json!({"annotations": {PROXY_CONFIG_ANNOTATION: config}});
                let env = json!([{"name": variable, "value": value}]);
                let spec = json!({"containers": [{"name": PROXY_CONTAINER, "env": env}]});
                self.patch(workload, &json!({"spec": {"template": {"metadata": metadata, "spec": spec}}}))
            }
            _ => None,
        };
        command.unwrap_or_else(|| format!("{adding}, and to the proxyMetadata of {PROXY_CONFIG_ANNOTATION}"))
    }

    /// Whether Envoy's bootstrap lacks a variable that the environment of the proxy has: there it goes by the annotation.
    pub(super) fn lacks_in_bootstrap(&self, variable: &str) -> bool {
        self.is_in_template() && !self.proxy_config.as_ref().is_some_and(|config| config.contains(variable))
    }

    /// How a variable of the proxy becomes known whose value stands elsewhere (`valueFrom`). Where the injector merges
    /// proxyMetadata into a container of the template's own, a value clashes with a valueFrom that has stayed.
    pub(super) fn writing_out(&self, variable: &str) -> String {
        let (place, variables) = self.variables();
        match self.is_in_template() {
            true => format!("{place}, write the value of {variable} itself in place of its valueFrom"),
            false => self.looked_at(format!(
                "take {variable} with its valueFrom out of the container {PROXY_CONTAINER} where that is written, and {place}, \
                 add its value to the {variables}"
            )),
        }
    }

    /// Where somebody has to write a variable of the proxy, and what.
    fn adding(&self, variable: &str, value: &str) -> String {
        let (place, variables) = self.variables();
        format!("{place}, add {variable}: \"{value}\" to the {variables}")
    }

    /// Where variables of the proxy stand: the object and its part. Of what Istio makes of a `Gateway`, neither injector nor
    /// annotation sets them.
    fn variables(&self) -> (String, String) {
        match &self.origin {
            Origin::Gateway { name, .. } => {
                (format!("in a ProxyConfig that selects gateway {name}"), "environmentVariables".to_owned())
            }
            _ if self.is_in_template() => (self.place(), format!("environment of the container {PROXY_CONTAINER}")),
            _ => (self.place(), format!("proxyMetadata of {PROXY_CONFIG_ANNOTATION}")),
        }
    }

    /// Whether the proxy's variables stand in the template itself, which no injector reads.
    fn is_in_template(&self) -> bool {
        !self.injected && !matches!(self.origin, Origin::Gateway { .. })
    }

    /// Where somebody has to write an annotation.
    fn place(&self) -> String {
        match &self.origin {
            Origin::Gateway { name, .. } => format!("in spec.infrastructure.annotations of gateway {name}"),
            Origin::Workload(_) | Origin::Unknown => "in the pod template".to_owned(),
        }
    }

    fn patch_annotations(&self, annotations: &[(&str, &str)]) -> Option<String> {
        let annotations: Map<String, Value> =
            annotations.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
        match &self.origin {
            Origin::Gateway { name, .. } => {
                let patch = json!({"spec": {"infrastructure": {"annotations": annotations}}});
                let (namespace, kind) = (self.namespace.as_ref()?, "gateway.gateway.networking.k8s.io");
                Some(format!("kubectl patch {kind} {name} -n {namespace} --type=merge -p '{patch}'"))
            }
            Origin::Workload(workload) => {
                let patch = json!({"spec": {"template": {"metadata": {"annotations": annotations}}}});
                self.patch(workload, &patch)
            }
            Origin::Unknown => None,
        }
    }

    fn patch(&self, Workload { kind, name }: &Workload, patch: &Value) -> Option<String> {
        let namespace = self.namespace.as_ref()?;
        Some(format!("kubectl patch {kind} {name} -n {namespace} -p '{patch}'"))
    }
}

/// The workload that the pod came from, as kubectl names it.
fn workload(pod: &Pod) -> Option<Workload> {
    let owner = pod.metadata.owner_references.as_ref()?.iter().find(|owner| owner.controller == Some(true))?;
    let (kind, name) = match owner.kind.as_str() {
        "ReplicaSet" => {
            // A ReplicaSet of a Deployment is called after it and the hash of its template.
            let hash = pod.metadata.labels.as_ref()?.get("pod-template-hash")?;
            ("deployment", owner.name.strip_suffix(hash.as_str())?.strip_suffix('-')?)
        }
        "StatefulSet" => ("statefulset", owner.name.as_str()),
        "DaemonSet" => ("daemonset", owner.name.as_str()),
        _ => return None,
    };
    is_plain(name).then(|| Workload { kind, name: name.to_owned() })
}

/// Whether it is a port of Istio's convention.
fn is_usual(port: u16) -> bool {
    matches!(port, ENVOY_PORT | MERGED_PORT)
}

/// Whether a shell takes it as one word, and as nothing else, and kubectl as one name.
fn is_plain(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
    !text.is_empty() && !text.starts_with('-') && text.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::istio::INJECT;

    const PORT: &str = "prometheus.istio.io/secure-port";
    const VARIABLE: &str = "ENVOY_SECURE_MERGED_METRICS_PORT";

    fn source(change: Value) -> Source {
        let mut pod = json!({"metadata": {"name": "a-1", "namespace": "shop"}, "spec": {"containers": []}});
        for (key, value) in change.as_object().expect("an object") {
            pod["metadata"][key] = value.clone();
        }
        Source::of(&serde_json::from_value(pod).expect("a pod"))
    }

    fn owned_by(kind: &str, name: &str) -> Value {
        json!([{"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": "u", "controller": true}])
    }

    #[test]
    fn a_change_is_made_where_the_pod_comes_from() {
        let gateway = source(json!({"labels": {GATEWAY_NAME_LABEL: "edge"}, "annotations": {INJECT: "false"}}));
        assert_eq!(
            gateway.annotating(PORT, 15092),
            "kubectl patch gateway.gateway.networking.k8s.io edge -n shop --type=merge -p \
             '{\"spec\":{\"infrastructure\":{\"annotations\":{\"prometheus.istio.io/secure-port\":\"15092\"}}}}'"
        );
        assert_eq!(gateway.origin().as_deref(), Some("gateway/edge"));
        let restart = "; then, as istiod looks at a ProxyConfig only when the Gateway or its Deployment changes: restart its \
                       Deployment";
        assert_eq!(
            gateway.opening(PORT, VARIABLE, 15092),
            format!(
                "in a ProxyConfig that selects gateway edge, add {VARIABLE}: \"15092\" to the environmentVariables; then \
                 {}{restart}",
                gateway.annotating(PORT, 15092)
            ),
            "an annotation opens nothing there"
        );
        let daemon = source(json!({"ownerReferences": owned_by("DaemonSet", "log")}));
        assert_eq!(
            daemon.annotating(PORT, 15092),
            "kubectl patch daemonset log -n shop -p \
             '{\"spec\":{\"template\":{\"metadata\":{\"annotations\":{\"prometheus.istio.io/secure-port\":\"15092\"}}}}}'"
        );
        assert_eq!(
            daemon.setting("X", "true"),
            "in the pod template, add X: \"true\" to the proxyMetadata of proxy.istio.io/config"
        );
        let nobody = source(json!({}));
        assert_eq!(
            nobody.annotating(PORT, 15092),
            "in the pod template, set the annotation prometheus.istio.io/secure-port: \"15092\""
        );
    }

    /// A patch with an annotation that is there already changes nothing, so whatever is written into a ProxyConfig ends in this.
    #[test]
    fn what_is_written_for_a_gateway_ends_in_a_restart() {
        let labels = json!({GATEWAY_NAME_LABEL: "edge", "pod-template-hash": "5d7c9"});
        let owner = owned_by("ReplicaSet", "edge-istio-5d7c9");
        let gateway = source(json!({"labels": labels, "ownerReferences": owner, "annotations": {INJECT: "false"}}));
        let command = "kubectl rollout restart deployment/edge-istio -n shop";
        assert_eq!(
            gateway.setting("X", "true"),
            format!(
                "in a ProxyConfig that selects gateway edge, add X: \"true\" to the environmentVariables; then, as istiod looks \
                 at a ProxyConfig only when the Gateway or its Deployment changes: {command}"
            )
        );
        for said in [gateway.opening(PORT, VARIABLE, 15092), gateway.writing_out("X")] {
            assert!(said.ends_with(&format!(" changes: {command}")), "{said}");
        }
        assert_eq!(gateway.restarting(), format!("start the pod anew: {command}"));
        assert!(!gateway.annotating(PORT, 15092).contains("restart"), "that changes the Gateway itself");
    }

    #[test]
    fn a_proxy_that_is_not_injected_has_its_variables_in_the_template() {
        let classic = source(json!({"labels": {INJECT: "false"}, "ownerReferences": owned_by("DaemonSet", "edge")}));
        assert_eq!(
            classic.setting("X", "true"),
            "kubectl patch daemonset edge -n shop -p '{\"spec\":{\"template\":{\"metadata\":{\"annotations\":\
             {\"proxy.istio.io/config\":\"proxyMetadata: {X: \\\"true\\\"}\"}},\"spec\":{\"containers\":[{\"env\":[{\"name\":\"X\",\
             \"value\":\"true\"}],\"name\":\"istio-proxy\"}]}}}}'"
        );
        assert!(classic.lacks_in_bootstrap("X"));
        for (config, lacks) in [("concurrency: 1", true), ("proxyMetadata: {X: \"true\"}", false)] {
            let annotations = json!({INJECT: "false", PROXY_CONFIG_ANNOTATION: config});
            assert_eq!(source(json!({"annotations": annotations})).lacks_in_bootstrap("X"), lacks, "{config}");
            let injected = json!({PROXY_CONFIG_ANNOTATION: config});
            assert!(!source(json!({"annotations": injected})).lacks_in_bootstrap("X"), "the injector writes both");
        }
        assert_eq!(
            classic.opening(PORT, VARIABLE, 15092),
            "open the port and name it: kubectl patch daemonset edge -n shop -p \
             '{\"spec\":{\"template\":{\"metadata\":{\"annotations\":{\"prometheus.istio.io/secure-port\":\"15092\"}},\
             \"spec\":{\"containers\":[{\"env\":[{\"name\":\"ENVOY_SECURE_MERGED_METRICS_PORT\",\"value\":\"15092\"}],\
             \"name\":\"istio-proxy\"}]}}}}'"
        );
        let nobody = source(json!({"labels": {INJECT: "false"}}));
        assert_eq!(
            nobody.setting("X", "true"),
            "in the pod template, add X: \"true\" to the environment of the container istio-proxy, and to the proxyMetadata of \
             proxy.istio.io/config"
        );
        assert_eq!(
            nobody.opening(PORT, VARIABLE, 15092),
            "in the pod template, add ENVOY_SECURE_MERGED_METRICS_PORT: \"15092\" to the environment of the container \
             istio-proxy, and prometheus.istio.io/secure-port: \"15092\" to the annotations"
        );
    }

    #[test]
    fn a_value_that_stands_elsewhere_is_written_where_the_proxy_has_it_from() {
        let injected = source(json!({"ownerReferences": owned_by("DaemonSet", "log")}));
        assert_eq!(
            injected.writing_out("X"),
            "take X with its valueFrom out of the container istio-proxy where that is written, and in the pod template, \
             add its value to the proxyMetadata of proxy.istio.io/config"
        );
        let gateway = source(json!({"labels": {GATEWAY_NAME_LABEL: "edge", INJECT: "false"}}));
        let written = gateway.writing_out("X");
        assert!(
            written.contains("in a ProxyConfig that selects gateway edge, add its value to the environment"),
            "{written}"
        );
        for owner in [json!([]), owned_by("DaemonSet", "edge")] {
            let classic = source(json!({"labels": {INJECT: "false"}, "ownerReferences": owner}));
            assert_eq!(
                classic.writing_out("X"),
                "in the pod template, write the value of X itself in place of its valueFrom"
            );
        }
    }

    #[test]
    fn what_a_shell_would_not_take_as_a_word_is_in_no_command() {
        let hostile = source(json!({"ownerReferences": owned_by("DaemonSet", "x; rm -rf ~")}));
        assert_eq!(hostile.origin(), None);
        assert!(hostile.opening(PORT, VARIABLE, 15092).starts_with("in the pod template, "));
        let two = source(json!({"ownerReferences": owned_by("DaemonSet", "log,istiod")}));
        assert_eq!(two.origin(), None);
        for namespace in ["shop; rm -rf ~", "$(id)", "-n", ""] {
            let gateway = json!({"namespace": namespace, "labels": {GATEWAY_NAME_LABEL: "edge"}});
            let injected = json!({"namespace": namespace, "ownerReferences": owned_by("DaemonSet", "log")});
            let mut classic = injected.clone();
            classic["labels"] = json!({INJECT: "false"});
            for foreign in [gateway, injected, classic].map(source) {
                for said in [foreign.opening(PORT, VARIABLE, 15092), foreign.annotating(PORT, 15092)] {
                    assert!(said.starts_with("in ") && !said.contains("kubectl"), "{said}");
                }
                assert!(foreign.excluding(15092).starts_with("in "), "{}", foreign.excluding(15092));
                assert!(foreign.setting("X", "true").starts_with("in "), "{}", foreign.setting("X", "true"));
                assert_eq!(foreign.restarting(), "start the pod anew");
                assert_eq!(foreign.asking(15092), "ask its port 15092 by hand, with meshscrape scrape");
            }
        }
        let plain = source(json!({}));
        assert_eq!(plain.asking(15092), "ask by hand: meshscrape scrape pod/a-1 -n shop --port 15092");
        let named = source(json!({"name": "a-1; rm -rf ~"}));
        assert_eq!(named.asking(15092), "ask its port 15092 by hand, with meshscrape scrape");
        let daemon = source(json!({"ownerReferences": owned_by("DaemonSet", "log")}));
        assert_eq!(daemon.annotating(PORT, 22), format!("in the pod template, set the annotation {PORT}: \"22\""));
        assert!(
            daemon.opening(PORT, VARIABLE, 22).starts_with("in the pod template, add "),
            "no command opens it, either"
        );
    }

    #[test]
    fn what_stands_in_an_annotation_is_neither_replaced_nor_repeated() {
        let with = |annotation: &str, value: &str| {
            let annotations = json!({annotation: value});
            source(json!({"ownerReferences": owned_by("DaemonSet", "log"), "annotations": annotations}))
        };
        let free = with("a", "b").excluding(15092);
        assert_eq!(
            free,
            "kubectl patch daemonset log -n shop -p '{\"spec\":{\"template\":{\"metadata\":{\"annotations\":\
             {\"traffic.sidecar.istio.io/excludeInboundPorts\":\"15091,15092\"}}}}}'"
        );
        for written in ["8080", "", "8080,'; rm -rf ~ #", "22"] {
            assert_eq!(
                with(EXCLUDE_ANNOTATION, written).excluding(15091),
                "in the pod template, add 15091,15092 to the annotation traffic.sidecar.istio.io/excludeInboundPorts"
            );
        }
        assert_eq!(
            with(INCLUDE_ANNOTATION, "8080,15092").excluding(15092),
            "in the pod template, take 15091,15092 out of the annotation traffic.sidecar.istio.io/includeInboundPorts"
        );
        assert_eq!(with(INCLUDE_ANNOTATION, "*").excluding(15092), free, "that is no list");
        assert_eq!(
            with("a", "b").excluding(16092),
            "in the pod template, set the annotation traffic.sidecar.istio.io/excludeInboundPorts: \"16092\""
        );
        let configured = with(PROXY_CONFIG_ANNOTATION, "concurrency: 1").opening(PORT, VARIABLE, 15092);
        assert!(configured.starts_with("in the pod template, add ") && !configured.contains("concurrency"));
    }
}
