//! `istio_sd_configs`: the whole Istio case in one line, read into what it stands for.
//!
//! What it stands for is written down in [`preset`]; here the line is checked, and the rest of the job against it.
//! Everything else that reads the job sees plain keys, and so does who prints it.

use super::fields::{Fields, read_bool};
use super::file::one_of;
use super::tables::{ATTACH, ISTIO_SD, KUBERNETES_SD};
use super::{kubernetes, targets};
use crate::config::preset::{self, Pods, Port, Scope};
use crate::config::problem::Wrong;
use crate::config::shown::Shown;
use crate::config::{AttachMetadata, KubernetesRole, KubernetesSd, KubernetesSelector, selector};
use crate::yaml::Pos;

const KEY: &str = "istio_sd_configs";

/// What the line stands for, and where it stands.
pub(super) struct Preset {
    pub(super) pods: Pods,
    /// The default of the job's `namespace_target_limit`.
    pub(super) namespace_target_limit: u64,
    /// The job's `pod_ports`, and how they are shown.
    pub(super) ports: (Vec<u16>, Shown),
    /// The job's `kubernetes_sd_configs`, and how it is shown.
    pub(super) sd: KubernetesSd,
    pub(super) shown: Shown,
    pub(super) pos: Pos,
    pub(super) path: String,
}

/// Reads the line of the job `fields`, if it has one, and says which other keys of the job do not go with it. After a
/// problem something stands in, so that the job is still one of this kind.
pub(super) fn read(fields: &Fields<'_>) -> Option<Preset> {
    let items = fields.items(KEY);
    let (first, others) = items.split_first()?;
    for other in others {
        let message = "a job has one of these: it decides about the rules of the whole job";
        fields.walk.problem(other.node.pos, &other.path, Wrong::new(message, "write another job for it"));
    }
    check_job(fields);
    let opened = Fields::open(fields.walk, first, &ISTIO_SD);
    let mut entry = opened.unwrap_or_else(|| Fields::empty(fields.walk, first.node.pos, &first.path, &ISTIO_SD));
    let pods = read_pods(&entry);
    let scope = read_scope(&entry);
    let ports = targets::ports(&entry, "ports", &preset::PORTS);
    if entry.is_empty_list("ports") {
        entry.wrong("ports", Wrong::new("no port may be dialled", "write ports: [15091, 15092], or remove it"));
    }
    let node = if scope == Scope::Node { node(&entry) } else { None };
    let access = kubernetes::access(&mut entry, true);
    let namespaces = kubernetes::namespaces(&mut entry);
    let sd = KubernetesSd {
        role: KubernetesRole::Pod,
        access,
        namespaces: namespaces.names,
        own_namespace: namespaces.own,
        selectors: node.iter().map(|node| on_node(preset::on_node(node))).collect(),
        attach: AttachMetadata::default(),
    };
    // The name of the node is shown as the variable that holds it.
    let by_variable = node.map(|_| on_node(preset::on_node(&format!("${{{}}}", preset::NODE_NAME))));
    let (pos, path) = (entry.pos, entry.path.clone());
    let shown = plain(entry.close(), by_variable);
    Some(Preset { pods, namespace_target_limit: scope.namespace_target_limit(), ports, sd, shown, pos, path })
}

/// Says which keys of a job do not go with the line.
fn check_job(fields: &Fields<'_>) {
    for key in ["kubernetes_sd_configs", "static_configs", "file_sd_configs", "http_sd_configs"] {
        if fields.has(key) && !fields.is_empty_list(key) {
            let message = "in a job with istio_sd_configs other targets would be dropped: they are no annotated pods";
            fields.wrong(key, Wrong::new(message, "write another job for them"));
        }
    }
    if fields.has("metrics_path") {
        let message =
            "with istio_sd_configs the path is /stats/prometheus, or that of the pod's annotation if the port has it";
        fields.wrong("metrics_path", Wrong::new(message, "remove it"));
    }
    if fields.has("pod_ports") {
        let message = "with istio_sd_configs the ports are written there";
        fields.wrong("pod_ports", Wrong::new(message, "write ports: under istio_sd_configs"));
    }
    if fields.scalar("job_name").is_some_and(|name| name.is_expanded()) {
        let message = "with istio_sd_configs the name of the job stands in a rule, where no variable is replaced";
        fields.wrong("job_name", Wrong::new(message, "write the name itself"));
    }
}

fn read_pods(entry: &Fields<'_>) -> Pods {
    entry.need("port", "write port: merged (the proxy and its application) or port: envoy (the proxy alone)");
    let port = entry.meaning("port", |text| match text {
        "merged" => Ok(Port::Merged),
        "envoy" => Ok(Port::Envoy),
        _ => Err(one_of(text, &["merged", "envoy"])),
    });
    let flag = |key| entry.meaning(key, read_bool).unwrap_or(false);
    let (host_network, include_merged) = (flag("host_network"), flag("include_merged"));
    if include_merged && port == Some(Port::Merged) {
        let message = "this goes with port: envoy, with port: merged these pods are taken anyway";
        entry.wrong("include_merged", Wrong::new(message, "remove it"));
    }
    Pods { port: port.unwrap_or(Port::Merged), host_network, include_merged }
}

fn read_scope(entry: &Fields<'_>) -> Scope {
    entry.need("scope", "write scope: node (one agent on each node) or scope: cluster (one for all pods)");
    let scope = entry.meaning("scope", |text| match text {
        "node" => Ok(Scope::Node),
        "cluster" => Ok(Scope::Cluster),
        _ => Err(one_of(text, &["node", "cluster"])),
    });
    scope.unwrap_or(Scope::Cluster)
}

/// The name of this node, which stands in the environment; it is never shown.
fn node(entry: &Fields<'_>) -> Option<String> {
    let name = (entry.walk.env)(preset::NODE_NAME).filter(|name| !name.is_empty());
    let wrong = match &name {
        None => "the environment variable NODE_NAME, which says which node this is, is not set",
        Some(name) if !selector::is_node(name) => {
            "what the environment variable NODE_NAME holds is not the name of a node"
        }
        Some(_) => return name,
    };
    let instead = "in a pod set it from spec.nodeName (env, valueFrom, fieldRef: the manifests do); elsewhere, to check the file, any \
                   name will do: NODE_NAME=any meshscrape check config FILE";
    entry.wrong("scope", Wrong::new(wrong, instead));
    None
}

fn on_node(field: String) -> KubernetesSelector {
    KubernetesSelector { role: KubernetesRole::Pod, label: String::new(), field }
}

/// The plain entry of `kubernetes_sd_configs`. What the line says about the API server and namespaces is called the
/// same there.
fn plain(entry: Shown, selector: Option<KubernetesSelector>) -> Shown {
    let text = |text: &str| Shown::Text(text.to_owned());
    let mut pairs = vec![("role".to_owned(), text(KubernetesRole::Pod.as_str()))];
    if let Shown::Map(same) = entry {
        pairs.extend(same);
    }
    let selectors = selector.into_iter().map(|KubernetesSelector { role, label, field }| {
        let pairs = [("role", text(role.as_str())), ("label", text(&label)), ("field", text(&field))];
        Shown::Map(pairs.map(|(key, value)| (key.to_owned(), value)).into())
    });
    pairs.push(("selectors".to_owned(), Shown::Seq(selectors.collect())));
    let nothing = ATTACH.keys.iter().map(|key| ((*key).to_owned(), text("false")));
    pairs.push(("attach_metadata".to_owned(), Shown::Map(nothing.collect())));
    pairs.sort_by_key(|(key, _)| KUBERNETES_SD.keys.iter().position(|known| known == key));
    Shown::Map(pairs)
}
