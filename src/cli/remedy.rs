//! What to change so that a pod offers its metrics as it should: a command where one is known, else a sentence.
//!
//! A change of a pod itself is lost with the pod, so it is made where the pod comes from: the template of its workload, or
//! the `Gateway` resource that Istio makes one of. A command replaces nothing but what it is about. Whoever may write a pod
//! may write its owners, too, so nothing gets into a command but what a shell takes as a plain word.

use std::fmt;

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Map, Value, json};

use super::istio::{GATEWAY_NAME_LABEL, INJECT, PROXY_CONFIG_ANNOTATION, PROXY_CONTAINER};
use crate::model::clean;

/// Where a pod comes from, and what stands there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Source {
    namespace: String,
    pod: String,
    origin: Origin,
    /// The injector makes the proxy, from annotations; else its variables stand in the template itself.
    injected: bool,
    has_proxy_config: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Origin {
    /// A `Gateway` of the Gateway API, from which Istio makes the workload.
    Gateway(String),
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
        let annotation = |name: &str| pod.metadata.annotations.as_ref()?.get(name);
        let label = |name: &str| pod.metadata.labels.as_ref()?.get(name);
        let gateway = label(GATEWAY_NAME_LABEL).filter(|name| is_plain(name)).cloned();
        let told_not_to = [annotation(INJECT), label(INJECT)].into_iter().flatten().any(|value| value == "false");
        let origin = match (gateway, workload(pod)) {
            (Some(name), _) => Origin::Gateway(name),
            (None, Some(workload)) => Origin::Workload(workload),
            (None, None) => Origin::Unknown,
        };
        Self {
            namespace: pod.metadata.namespace.clone().unwrap_or_default(),
            pod: pod.metadata.name.clone().unwrap_or_default(),
            origin,
            injected: !told_not_to,
            has_proxy_config: annotation(PROXY_CONFIG_ANNOTATION).is_some(),
        }
    }

    /// What the pod came from, as `deployment/cart` or `gateway/edge`.
    pub(super) fn origin(&self) -> Option<String> {
        match &self.origin {
            Origin::Gateway(name) => Some(format!("gateway/{name}")),
            Origin::Workload(workload) => Some(workload.to_string()),
            Origin::Unknown => None,
        }
    }

    /// How a secure port is opened and announced.
    pub(super) fn opening(&self, annotation: &str, variable: &str, port: u16) -> String {
        let number = port.to_string();
        let config = format!("proxyMetadata: {{{variable}: \"{port}\"}}");
        let both = [(annotation, number.as_str()), (PROXY_CONFIG_ANNOTATION, config.as_str())];
        let command = match &self.origin {
            Origin::Gateway(_) if !self.has_proxy_config => self.patch_annotations(&both),
            Origin::Workload(workload) if !self.injected => {
                let env = json!([{"name": variable, "value": number}]);
                let spec = json!({"containers": [{"name": PROXY_CONTAINER, "env": env}]});
                let metadata = json!({"annotations": {annotation: number}});
                Some(self.patch(workload, &json!({"spec": {"template": {"metadata": metadata, "spec": spec}}})))
            }
            Origin::Workload(_) if !self.has_proxy_config => self.patch_annotations(&both),
            _ => None,
        };
        match command {
            Some(command) => format!("open the port and name it: {command}"),
            None => format!(
                "{}, add {variable}: \"{port}\" to the proxyMetadata of {PROXY_CONFIG_ANNOTATION}, and \
                 {annotation}: \"{port}\" to the annotations",
                self.place()
            ),
        }
    }

    /// How an annotation is set that the pod does not have, or has with another value.
    pub(super) fn annotating(&self, annotation: &str, value: &str) -> String {
        match self.patch_annotations(&[(annotation, value)]).filter(|_| is_plain(value)) {
            Some(command) => command,
            None => format!("{}, set the annotation {annotation}: \"{}\"", self.place(), clean(value)),
        }
    }

    /// How a variable of the proxy is set.
    pub(super) fn setting(&self, variable: &str, value: &str) -> String {
        match &self.origin {
            Origin::Workload(workload) if !self.injected => {
                format!("kubectl set env {workload} -n {} -c {PROXY_CONTAINER} {variable}={value}", self.namespace)
            }
            _ => format!(
                "{}, add {variable}: \"{value}\" to the proxyMetadata of {PROXY_CONFIG_ANNOTATION}",
                self.place()
            ),
        }
    }

    /// Where somebody has to write.
    fn place(&self) -> String {
        match &self.origin {
            Origin::Gateway(name) => format!("in spec.infrastructure.annotations of gateway {name}"),
            Origin::Workload(_) | Origin::Unknown => "in the pod template".to_owned(),
        }
    }

    fn patch_annotations(&self, annotations: &[(&str, &str)]) -> Option<String> {
        let annotations: Map<String, Value> =
            annotations.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
        match &self.origin {
            Origin::Gateway(name) => {
                let patch = json!({"spec": {"infrastructure": {"annotations": annotations}}});
                let (namespace, kind) = (&self.namespace, "gateway.gateway.networking.k8s.io");
                Some(format!("kubectl patch {kind} {name} -n {namespace} --type=merge -p '{patch}'"))
            }
            Origin::Workload(workload) => {
                let patch = json!({"spec": {"template": {"metadata": {"annotations": annotations}}}});
                Some(self.patch(workload, &patch))
            }
            Origin::Unknown => None,
        }
    }

    fn patch(&self, Workload { kind, name }: &Workload, patch: &Value) -> String {
        format!("kubectl patch {kind} {name} -n {} -p '{patch}'", self.namespace)
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

/// Whether a shell takes it as one word, and as nothing else.
fn is_plain(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b',');
    !text.is_empty() && !text.starts_with('-') && text.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

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
            gateway.annotating(PORT, "15092"),
            "kubectl patch gateway.gateway.networking.k8s.io edge -n shop --type=merge -p \
             '{\"spec\":{\"infrastructure\":{\"annotations\":{\"prometheus.istio.io/secure-port\":\"15092\"}}}}'"
        );
        assert_eq!(gateway.origin().as_deref(), Some("gateway/edge"));
        assert!(gateway.opening(PORT, VARIABLE, 15092).contains("\\\"15092\\\"}"), "its variables are annotated, too");
        let daemon = source(json!({"ownerReferences": owned_by("DaemonSet", "log")}));
        assert_eq!(
            daemon.annotating(PORT, "15092"),
            "kubectl patch daemonset log -n shop -p \
             '{\"spec\":{\"template\":{\"metadata\":{\"annotations\":{\"prometheus.istio.io/secure-port\":\"15092\"}}}}}'"
        );
        assert_eq!(
            daemon.setting("X", "true"),
            "in the pod template, add X: \"true\" to the proxyMetadata of proxy.istio.io/config"
        );
        let nobody = source(json!({}));
        assert_eq!(
            nobody.annotating(PORT, "15092"),
            "in the pod template, set the annotation prometheus.istio.io/secure-port: \"15092\""
        );
    }

    #[test]
    fn a_proxy_that_is_not_injected_has_its_variables_in_the_template() {
        let classic = source(json!({"labels": {INJECT: "false"}, "ownerReferences": owned_by("DaemonSet", "edge")}));
        assert_eq!(classic.setting("X", "true"), "kubectl set env daemonset/edge -n shop -c istio-proxy X=true");
        assert_eq!(
            classic.opening(PORT, VARIABLE, 15092),
            "open the port and name it: kubectl patch daemonset edge -n shop -p \
             '{\"spec\":{\"template\":{\"metadata\":{\"annotations\":{\"prometheus.istio.io/secure-port\":\"15092\"}},\
             \"spec\":{\"containers\":[{\"env\":[{\"name\":\"ENVOY_SECURE_MERGED_METRICS_PORT\",\"value\":\"15092\"}],\
             \"name\":\"istio-proxy\"}]}}}}'"
        );
    }

    #[test]
    fn what_a_shell_would_not_take_as_a_word_is_in_no_command() {
        let hostile = source(json!({"ownerReferences": owned_by("DaemonSet", "x; rm -rf ~")}));
        assert_eq!(hostile.origin(), None);
        assert!(hostile.opening(PORT, VARIABLE, 15092).starts_with("in the pod template, "));
        let daemon = source(json!({"ownerReferences": owned_by("DaemonSet", "log")}));
        assert_eq!(daemon.annotating("a", "1' x"), "in the pod template, set the annotation a: \"1' x\"");
    }
}
