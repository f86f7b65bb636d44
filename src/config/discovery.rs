//! Where targets are found besides the file itself and other files: Kubernetes and lists over HTTP.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use url::Url;

use super::{Auth, HttpHeader, OAuth2, OrdinaryTls, Proxies, Secret};
use crate::model::clean;

/// One of `kubernetes_sd_configs[]`. Equal values ask the same and share what is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubernetesSd {
    /// Which objects become targets.
    pub role: KubernetesRole,
    /// How the API server is reached.
    pub access: KubernetesAccess,
    /// Only these namespaces; empty, and without `own_namespace`: all of them.
    pub namespaces: Vec<String>,
    /// Also the namespace that this process runs in.
    pub own_namespace: bool,
    /// What narrows the lists, at most one for each role.
    pub selectors: Vec<KubernetesSelector>,
    /// Which metadata of other objects is added.
    pub attach: AttachMetadata,
}

/// Which objects become targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KubernetesRole {
    /// The ports of pods.
    Pod,
    /// The kubelets of nodes.
    Node,
    /// The ports of services, by name.
    Service,
    /// The addresses behind services, in the deprecated form.
    Endpoints,
    /// The addresses behind services.
    EndpointSlice,
    /// The hosts and paths of ingresses.
    Ingress,
}

impl KubernetesRole {
    /// All of them.
    pub const ALL: [KubernetesRole; 6] = [
        KubernetesRole::Pod,
        KubernetesRole::Node,
        KubernetesRole::Service,
        KubernetesRole::Endpoints,
        KubernetesRole::EndpointSlice,
        KubernetesRole::Ingress,
    ];

    /// The word in the file and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            KubernetesRole::Pod => "pod",
            KubernetesRole::Node => "node",
            KubernetesRole::Service => "service",
            KubernetesRole::Endpoints => "endpoints",
            KubernetesRole::EndpointSlice => "endpointslice",
            KubernetesRole::Ingress => "ingress",
        }
    }
}

/// How the API server is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KubernetesAccess {
    /// As the pod's service account.
    InCluster,
    /// As the current context of this file says.
    Kubeconfig(PathBuf),
    /// As written.
    Server(Box<ApiServer>),
}

/// `api_server` with its client settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiServer {
    /// The URL; `https`, or literally `http`.
    pub url: String,
    /// How it is verified.
    pub tls: OrdinaryTls,
    /// The `Authorization` header.
    pub auth: Option<Auth>,
}

/// One of `selectors[]`, in the syntax of Kubernetes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KubernetesSelector {
    /// The objects that it narrows.
    pub role: KubernetesRole,
    /// By label; empty: any.
    pub label: String,
    /// By field; empty: any.
    pub field: String,
}

/// `attach_metadata`: what is added to targets from other objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct AttachMetadata {
    /// Labels and annotations of the node.
    pub node: bool,
    /// Labels and annotations of the namespace.
    pub namespace: bool,
    /// The Deployment behind a pod's ReplicaSet.
    pub deployment: bool,
    /// The Job behind a pod.
    pub job: bool,
    /// The CronJob behind a pod's Job.
    pub cronjob: bool,
}

/// One of `http_sd_configs[]`.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpSd {
    /// Where the list is fetched, as it was written: it may hold a password, and a token in its query.
    pub url: Secret,
    /// How often; not zero. A request may take as long.
    pub refresh_interval: Duration,
    /// How the server is verified.
    pub tls: OrdinaryTls,
    /// The `Authorization` header.
    pub auth: Option<Auth>,
    /// Whose tokens it holds instead.
    pub oauth2: Option<Arc<OAuth2>>,
    /// Headers that are added to every request.
    pub http_headers: Vec<HttpHeader>,
    /// Through which proxies the server is asked.
    pub proxies: Option<Arc<Proxies>>,
    /// Whether redirects are followed, within the same origin.
    pub follow_redirects: bool,
}

impl HttpSd {
    /// The URL without user name and password; where it has neither, as it was written.
    pub fn url_without_user_info(&self) -> String {
        let written = self.url.expose();
        match Url::parse(written) {
            Ok(mut url) if !url.username().is_empty() || url.password().is_some() => {
                let removed = url.set_username("").and_then(|()| url.set_password(None));
                removed.expect("what had user-info may be without");
                url.into()
            }
            _ => written.to_owned(),
        }
    }

    /// The URL for people: without its query, too.
    pub fn shown_url(&self) -> String {
        let bare = self.url_without_user_info();
        let end = bare.find(['?', '#']).unwrap_or(bare.len());
        clean(&bare[..end]).into_owned()
    }
}

impl fmt::Debug for HttpSd {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { url: _, refresh_interval, tls, auth, oauth2, http_headers, proxies, follow_redirects } = self;
        out.debug_struct("HttpSd")
            .field("url", &self.shown_url())
            .field("refresh_interval", refresh_interval)
            .field("tls", tls)
            .field("auth", auth)
            .field("oauth2", oauth2)
            .field("http_headers", http_headers)
            .field("proxies", proxies)
            .field("follow_redirects", follow_redirects)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_url_holds_besides_the_place_is_not_shown() {
        for (url, bare, for_people) in [
            ("http://h/a?b=c", "http://h/a?b=c", "http://h/a"),
            ("https://user:canary@h:1/a", "https://h:1/a", "https://h:1/a"),
            ("http://canary@h", "http://h/", "http://h/"),
            ("http://a@canary@h?x@y", "http://h/?x@y", "http://h/"),
            ("http://user:canary@[fd00::1]:8/@a?canary", "http://[fd00::1]:8/@a?canary", "http://[fd00::1]:8/@a"),
            ("http://h#canary", "http://h#canary", "http://h"),
            // Too few slashes and too many are as good to whoever asks.
            ("https:/user:canary@h/a", "https://h/a", "https://h/a"),
            ("http:///user:canary@h/a?canary", "http://h/a?canary", "http://h/a"),
        ] {
            let list = HttpSd {
                url: Secret::new(url),
                refresh_interval: Duration::from_secs(60),
                tls: OrdinaryTls::default(),
                auth: None,
                oauth2: None,
                http_headers: Vec::new(),
                proxies: None,
                follow_redirects: true,
            };
            assert_eq!((list.url_without_user_info().as_str(), list.shown_url().as_str()), (bare, for_people), "{url}");
            assert!(!format!("{list:?}").contains("canary"), "{list:?}");
        }
    }
}
