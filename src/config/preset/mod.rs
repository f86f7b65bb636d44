//! What `istio_sd_configs` stands for, in plain keys: where the pods are found, and the rules around those of the job.
//!
//! One target for each pod that carries the annotation, at the pod's own IP and the annotated port, and labels that the
//! pod's owner cannot choose. The rules come in two parts. The *head* runs before the rules of the job: it drops pods,
//! and makes address and path. The *tail* runs after them: it writes the labels that tell whose samples these are from
//! what the API server says, so that nothing a rule of the job copied from a pod stays in their place.
//!
//! An annotation goes into the address whatever its value. One that is no port makes an address that is none: the pod is
//! reported with it and never dialled. This module only makes values; nothing is read or asked.

use crate::relabel::{Action, RuleSpec};

/// The directory that the sidecar writes certificates to, where the job names no other.
pub(super) const CERTS_DIR: &str = "/etc/istio-certs";

/// What is asked for where the pod names no path that the port has.
pub(super) const METRICS_PATH: &str = "/stats/prometheus";

/// The ports that may be dialled unless the file says so: Istio's conventions.
pub(super) const PORTS: [u16; 2] = [15091, 15092];

/// The environment variable that holds the name of this node.
pub(super) const NODE_NAME: &str = "NODE_NAME";

/// How many targets one namespace may have where the whole cluster is scraped.
const CLUSTER_NAMESPACE_LIMIT: u64 = 2000;

/// What labels are written from at the end, besides labels of the pod: no rule of the job may change it.
pub(super) const API_FIELDS: [&str; 4] = [NAMESPACE, POD_NAME, POD_NODE, SERVICE_ACCOUNT];

const NAMESPACE: &str = "__meta_kubernetes_namespace";
const POD_NAME: &str = "__meta_kubernetes_pod_name";
const POD_NODE: &str = "__meta_kubernetes_pod_node_name";
const SERVICE_ACCOUNT: &str = "__meta_kubernetes_pod_service_account_name";

/// Which of the two secure ports is scraped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Port {
    /// Proxy, agent and application together; the annotation `prometheus.istio.io/secure-port` names it.
    Merged,
    /// The proxy alone; the annotation `prometheus.istio.io/secure-envoy-port` names it.
    Envoy,
}

impl Port {
    /// The annotation, as it ends the names of its labels.
    fn annotation(self) -> &'static str {
        match self {
            Port::Merged => "prometheus_istio_io_secure_port",
            Port::Envoy => "prometheus_istio_io_secure_envoy_port",
        }
    }

    /// Paths that the port has: its prefixes, alone or with further plain segments.
    fn paths(self) -> &'static str {
        match self {
            Port::Merged => "((?:/stats/prometheus|/metrics)(?:/[A-Za-z0-9_-]+)*)",
            Port::Envoy => "(/stats/prometheus(?:/[A-Za-z0-9_-]+)*)",
        }
    }
}

/// Whose pods are scraped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// Those of the node that this agent runs on.
    Node,
    /// All of the cluster.
    Cluster,
}

impl Scope {
    /// The default of `namespace_target_limit`: a node has few pods, whoever owns them.
    pub(super) fn namespace_target_limit(self) -> u64 {
        match self {
            Scope::Node => 0,
            Scope::Cluster => CLUSTER_NAMESPACE_LIMIT,
        }
    }
}

/// Which pods become targets, as one of `istio_sd_configs[]` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pods {
    pub(super) port: Port,
    /// Also those in the network of their node, which answer on the node's IP.
    pub(super) host_network: bool,
    /// With [`Port::Envoy`]: also those that offer the merged port, where the same samples are.
    pub(super) include_merged: bool,
}

/// The selector of the pods of a node.
pub(super) fn on_node(node: &str) -> String {
    format!("spec.nodeName={node}")
}

impl Pods {
    /// The rules before those of the job.
    pub(super) fn head(self) -> Vec<RuleSpec> {
        let annotation = self.port.annotation();
        let mut rules = vec![when(Action::Drop, "__meta_kubernetes_pod_phase", "Succeeded|Failed")];
        if !self.host_network {
            rules.push(when(Action::Drop, "__meta_kubernetes_pod_host_network", "true"));
        }
        rules.push(when(Action::Keep, &annotation_present(annotation), "true"));
        if self.port == Port::Envoy && !self.include_merged {
            rules.push(when(Action::Drop, &annotation_present(Port::Merged.annotation()), "true"));
        }
        // A pod is found once for each port of its containers; without these labels it is the same target each time.
        rules.push(RuleSpec {
            action: Action::LabelDrop,
            regex: Some("__meta_kubernetes_pod_container_.+".to_owned()),
            ..RuleSpec::default()
        });
        let annotated = format!("__meta_kubernetes_pod_annotation_{annotation}");
        for (regex, address) in [("([^;:]*);(.*)", "$1:$2"), ("([^;]*:[^;]*);(.*)", "[$1]:$2")] {
            rules.push(RuleSpec {
                source_labels: vec!["__meta_kubernetes_pod_ip".to_owned(), annotated.clone()],
                regex: Some(regex.to_owned()),
                target_label: Some("__address__".to_owned()),
                replacement: Some(address.to_owned()),
                ..RuleSpec::default()
            });
        }
        let own_path = "__meta_kubernetes_pod_annotation_prometheus_io_path";
        rules.push(RuleSpec { regex: Some(self.port.paths().to_owned()), ..copy(own_path, "__metrics_path__") });
        rules
    }
}

/// The rules after those of the job of this name. Whatever is not known is removed.
pub(super) fn tail(job_name: &str) -> Vec<RuleSpec> {
    let mut rules = vec![
        RuleSpec {
            target_label: Some("job".to_owned()),
            // What stands here is a template.
            replacement: Some(job_name.replace('$', "$$")),
            ..RuleSpec::default()
        },
        copy("__address__", "instance"),
        copy(NAMESPACE, "namespace"),
        copy(POD_NAME, "pod"),
        copy(POD_NODE, "node"),
        copy(SERVICE_ACCOUNT, "service_account"),
        copy("__meta_kubernetes_pod_label_service_istio_io_canonical_name", "app"),
    ];
    for better in ["__meta_kubernetes_pod_label_app", "__meta_kubernetes_pod_label_app_kubernetes_io_name"] {
        rules.push(RuleSpec { regex: Some("(.+)".to_owned()), ..copy(better, "app") });
    }
    rules
}

fn annotation_present(annotation: &str) -> String {
    format!("__meta_kubernetes_pod_annotationpresent_{annotation}")
}

fn when(action: Action, source: &str, regex: &str) -> RuleSpec {
    RuleSpec { action, source_labels: vec![source.to_owned()], regex: Some(regex.to_owned()), ..RuleSpec::default() }
}

/// Sets a label to the value of another, or removes it where that has none.
fn copy(source: &str, target: &str) -> RuleSpec {
    RuleSpec { source_labels: vec![source.to_owned()], target_label: Some(target.to_owned()), ..RuleSpec::default() }
}

#[cfg(test)]
mod tests;
