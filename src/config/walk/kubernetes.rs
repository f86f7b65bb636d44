//! `kubernetes_sd_configs`: which objects of which cluster become targets.
//!
//! Selectors and names are checked here, so that no API server is asked something that it cannot understand. What a role
//! does not use is warned of, as far as it can be meant.

use super::fields::{Fields, Valued};
use super::file::one_of;
use super::identity::SPIFFE_ID;
use super::tables::{ATTACH, KUBERNETES_SD, NAMESPACES, SELECTOR};
use super::targets::Job;
use super::{auth, tls, urls};
use crate::config::problem::Wrong;
use crate::config::shown::Shown;
use crate::config::{
    ApiServer, AttachMetadata, JobSecurity, KubernetesAccess, KubernetesRole, KubernetesSd, KubernetesSelector,
    selector,
};
use crate::model::clean;

/// Reads the `kubernetes_sd_configs` of a job.
pub(super) fn read(fields: &mut Fields<'_>, job: &Job<'_>) -> Vec<KubernetesSd> {
    use KubernetesRole::{Ingress, Node, Service};
    const KEY: &str = "kubernetes_sd_configs";
    let verifies = matches!(job.security, JobSecurity::Spiffe(_));
    let mut configs = Vec::new();
    let mut shown = Vec::new();
    for item in fields.items(KEY) {
        let Some(mut sd) = Fields::open(fields.walk, &item, &KUBERNETES_SD) else { continue };
        let role = read_role(&mut sd, &KubernetesRole::ALL);
        let access = access(&mut sd, verifies);
        let namespaces = namespaces(&mut sd);
        let selectors = selectors(&mut sd, role);
        let attach = attach(&mut sd, role);
        if let Some(role @ (Node | Service | Ingress)) = role
            && verifies
            && !job.relabels_identity
        {
            let message = format!(
                "objects of role: {} have no service account, so nobody may answer for them and they stay down",
                role.as_str()
            );
            sd.warn("role", Wrong::new(message, format!("write a relabel rule with target_label: {SPIFFE_ID}")));
        }
        if role == Some(Node) && namespaces != Namespaces::default() {
            sd.warn("namespaces", Wrong::new("this has no effect: nodes are in no namespace", "remove it"));
        }
        shown.push(sd.close());
        // Without a role that is known there was a problem.
        if let Some(role) = role {
            let Namespaces { names: namespaces, own: own_namespace } = namespaces;
            configs.push(KubernetesSd { role, access, namespaces, own_namespace, selectors, attach });
        }
    }
    fields.show(KEY, Shown::Seq(shown));
    configs
}

/// Reads the role behind `role`, which must be written; `usable` are those that go here.
fn read_role(fields: &mut Fields<'_>, usable: &[KubernetesRole]) -> Option<KubernetesRole> {
    let words = |roles: &[KubernetesRole]| roles.iter().map(|role| role.as_str()).collect::<Vec<_>>();
    fields.need("role", &format!("write role: {}", words(usable).join(" or ")));
    fields.parsed("role", |text| {
        let found = KubernetesRole::ALL.into_iter().find(|role| role.as_str() == text);
        found.ok_or_else(|| one_of(text, &words(&KubernetesRole::ALL)))
    })
}

/// What says how a client connects; these keys go with `api_server` only.
const CLIENT_KEYS: [&str; 5] = ["tls_config", "basic_auth", "authorization", "bearer_token", "bearer_token_file"];

/// Reads how the API server is reached.
pub(super) fn access(fields: &mut Fields<'_>, verifies: bool) -> KubernetesAccess {
    let kubeconfig = fields.path("kubeconfig_file");
    if fields.scalar("kubeconfig_file").is_some_and(|path| path.value.is_empty()) {
        fields.wrong("kubeconfig_file", Wrong::new("the path is empty", "write a path, or remove it"));
    }
    let url = urls::read(fields, "api_server", "https://kubernetes.example:6443", |url| {
        if url.query().is_some() {
            return Err(Wrong::new("the URL has a query, which an API server has no use for", "remove it"));
        }
        urls::without_user_info(url)
    });
    let tls = tls::of_discovery(fields);
    let auth = auth::read(fields);
    let switches = ["follow_redirects", "enable_http2"].map(|key| (key, fields.flag(key, true)));
    if !fields.has("api_server") {
        refuse_client_keys(fields, tls.is_some(), &switches);
    } else {
        if kubeconfig.is_some() {
            fields.wrong("kubeconfig_file", Wrong::new("api_server is written as well", "remove one of the two"));
        }
        for (key, what) in [
            ("follow_redirects", "an API server is never followed elsewhere"),
            ("enable_http2", "API servers are asked by HTTP/1.1 only"),
        ] {
            if switches.contains(&(key, false)) {
                fields.warn(key, Wrong::new(format!("this has no effect: {what}"), "remove it"));
            }
        }
    }
    if let Some((url, written)) = &url {
        if verifies && url.scheme() == "http" {
            let message = "this job verifies SPIFFE IDs, and over http nobody verifies who says which pods there are";
            fields.wrong("api_server", Wrong::new(message, "write a URL that begins with https://"));
        }
        if auth.is_some() {
            urls::check_credentials(fields, "api_server", url, written, "this discovery");
        }
    }
    match (kubeconfig, url) {
        (Some(file), _) => KubernetesAccess::Kubeconfig(file),
        (None, Some((_, written))) => {
            let (url, tls) = (written.value.into_owned(), tls.unwrap_or_default());
            KubernetesAccess::Server(Box::new(ApiServer { url, tls, auth }))
        }
        (None, None) => KubernetesAccess::InCluster,
    }
}

/// Says which keys have no meaning where `api_server` is not written. What is written as its default passes.
fn refuse_client_keys(fields: &Fields<'_>, has_tls: bool, switches: &[(&'static str, bool)]) {
    let written = CLIENT_KEYS.into_iter().filter(|key| fields.has(key) && (*key != "tls_config" || has_tls));
    let switched = switches.iter().filter(|(_, on)| !on).map(|(key, _)| *key);
    let instead_of = match fields.has("kubeconfig_file") {
        true => "kubeconfig_file says how its API server is asked",
        false => "without it the API server is asked as the pod's service account",
    };
    for key in written.chain(switched) {
        let message = format!("this goes with api_server only: {instead_of}");
        fields.wrong(key, Wrong::new(message, "remove it, or write api_server"));
    }
}

/// `namespaces`
#[derive(Default, PartialEq, Eq)]
pub(super) struct Namespaces {
    pub(super) names: Vec<String>,
    pub(super) own: bool,
}

/// Reads which namespaces are looked at.
pub(super) fn namespaces(fields: &mut Fields<'_>) -> Namespaces {
    const KEY: &str = "namespaces";
    let mut section = fields.section_or_defaults(KEY, &NAMESPACES);
    let mut names: Vec<String> = Vec::new();
    for scalar in section.texts("names") {
        let Some(name) = section.walk.read(&scalar, read_namespace) else { continue };
        if names.contains(&name) {
            let message = format!("{scalar} stands twice in the list");
            section.walk.problem(scalar.pos, &scalar.key, Wrong::new(message, "remove one of the two"));
        }
        names.push(name);
    }
    if !section.has("names") {
        section.show("names", Shown::Seq(Vec::new()));
    }
    let own = section.flag("own_namespace", false);
    if let Some(other) = ["api_server", "kubeconfig_file"].into_iter().find(|key| own && fields.has(key)) {
        let message = format!("the namespace that this runs in is one of its own cluster, and {other} names another");
        section.wrong("own_namespace", Wrong::new(message, "write the namespace under names"));
    }
    fields.show(KEY, section.close());
    Namespaces { names, own }
}

fn read_namespace(text: &str) -> Result<String, Wrong> {
    if selector::is_namespace(text) {
        return Ok(text.to_owned());
    }
    let message = format!("{:?} is not the name of a namespace", clean(text));
    Err(Wrong::new(message, "write lower case letters, digits and dashes, at most 63"))
}

/// The roles whose objects can be narrowed where objects of `role` become targets.
fn selectable(role: KubernetesRole) -> &'static [KubernetesRole] {
    use KubernetesRole::{EndpointSlice, Endpoints, Ingress, Node, Pod, Service};
    match role {
        Pod => &[Pod, Node],
        Node => &[Node],
        Service => &[Service],
        Endpoints => &[Endpoints, Pod, Service],
        EndpointSlice => &[EndpointSlice, Pod, Service],
        Ingress => &[Ingress],
    }
}

fn selectors(fields: &mut Fields<'_>, of: Option<KubernetesRole>) -> Vec<KubernetesSelector> {
    const KEY: &str = "selectors";
    let mut selectors: Vec<KubernetesSelector> = Vec::new();
    let mut shown = Vec::new();
    for item in fields.items(KEY) {
        let Some(mut entry) = Fields::open(fields.walk, &item, &SELECTOR) else { continue };
        let role = read_role(&mut entry, of.map_or(&KubernetesRole::ALL, selectable));
        let mut text = |key, check: fn(&str) -> Result<(), Wrong>| {
            let read = |text: &str| check(text).map(|()| text.to_owned());
            entry.valued(key, Valued::new(String::new(), ""), read).value
        };
        let (label, field) = (text("label", selector::check_labels), text("field", selector::check_fields));
        if let (Some(role), Some(of)) = (role, of)
            && !selectable(of).contains(&role)
        {
            let words: Vec<_> = selectable(of).iter().map(|role| role.as_str()).collect();
            let message = format!("role: {} narrows objects of {} only", of.as_str(), words.join(", "));
            entry.wrong("role", Wrong::new(message, format!("write role: {}", words[0])));
        }
        if let Some(role) = role.filter(|role| selectors.iter().any(|other| other.role == *role)) {
            let message = format!("there is a selector of role {} already", role.as_str());
            entry.wrong("role", Wrong::new(message, "write both into one, with a comma between them"));
        }
        shown.push(entry.close());
        if let Some(role) = role {
            selectors.push(KubernetesSelector { role, label, field });
        }
    }
    fields.show(KEY, Shown::Seq(shown));
    selectors
}

fn attach(fields: &mut Fields<'_>, role: Option<KubernetesRole>) -> AttachMetadata {
    use KubernetesRole::{Ingress, Node, Service};
    const KEY: &str = "attach_metadata";
    let mut section = fields.section_or_defaults(KEY, &ATTACH);
    let mut flag = |key| {
        let on = section.flag(key, false);
        let unused = match role {
            Some(Node) => true,
            Some(Service | Ingress) => key != "namespace",
            _ => false,
        };
        if let Some(role) = role.filter(|_| on && unused) {
            let message = format!("this has no effect: role: {} has no use for it", role.as_str());
            section.warn(key, Wrong::new(message, "remove it"));
        }
        on
    };
    let attach = AttachMetadata {
        node: flag("node"),
        namespace: flag("namespace"),
        deployment: flag("deployment"),
        job: flag("job"),
        cronjob: flag("cronjob"),
    };
    fields.show(KEY, section.close());
    attach
}
