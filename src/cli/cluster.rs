//! The cluster as the caller may see it: pods, and ports of pods.
//!
//! The caller's own kubeconfig is used as kubectl uses it, or the service account of the pod that the command runs in.
//! The API server says who must answer for a pod, so it is verified itself: a configuration that turns that off is
//! refused.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::path::Path;
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, PartialObjectMeta};
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Api, Client, Config, Resource};
use serde::de::DeserializeOwned;

use crate::discover::client_error;
use crate::model::{clean, clean_to};

/// How long the API server may take over one answer.
const PATIENCE: Duration = Duration::from_secs(15);
/// How many pods come at once.
const CHUNK: u32 = 500;

/// A client of the API server.
pub(super) struct Cluster {
    client: Client,
    namespace: String,
}

/// Why the cluster says nothing; each is a sentence, safe to show.
#[derive(Debug)]
pub(super) enum ClusterError {
    /// There is no configuration, or one that is not used.
    Config(String),
    /// The API server is not reached, or does not let the caller see it.
    Unreachable(String),
    /// There is no such object.
    NotFound(String),
}

impl Cluster {
    /// The cluster of `context` of `kubeconfig`; by default the current one of the caller's, or the one that this
    /// process runs in. Nothing is connected yet.
    pub(super) async fn of(kubeconfig: Option<&Path>, context: Option<&str>) -> Result<Self, ClusterError> {
        let mut config = config(kubeconfig, context).await.map_err(ClusterError::Config)?;
        // As discovery does it: the environment and the kubeconfig may name one, and it is not followed.
        config.proxy_url = None;
        let unverified = match config.cluster_url.scheme_str() {
            Some("https") => config.accept_invalid_certs.then_some("insecure-skip-tls-verify"),
            _ => Some("no https"),
        };
        if let Some(unverified) = unverified {
            return Err(ClusterError::Config(format!(
                "the API server would not be verified ({unverified}), and it says whose identity is expected: the \
                 kubeconfig must name an https server and its certificate-authority"
            )));
        }
        let namespace = config.default_namespace.clone();
        let client = Client::try_from(config).map_err(|error| ClusterError::Config(client_error(&error)))?;
        Ok(Self { client, namespace })
    }

    /// The namespace that is meant where none is named.
    pub(super) fn default_namespace(&self) -> &str {
        &self.namespace
    }

    /// One pod.
    pub(super) async fn pod(&self, namespace: &str, name: &str) -> Result<Pod, ClusterError> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let found = in_time(pods.get_opt(name)).await.map_err(|error| refused(error, "get pods", Some(namespace)))?;
        found.ok_or_else(|| {
            let (name, namespace) = (clean(name), clean(namespace));
            ClusterError::NotFound(format!("there is no pod {namespace}/{name}: see kubectl get pods -n {namespace}"))
        })
    }

    /// The namespaces in which there are pods with these labels, whatever state they are in.
    pub(super) async fn namespaces_of_pods(&self, selector: &str) -> Result<BTreeSet<String>, ClusterError> {
        let mut places = BTreeSet::new();
        let wanted = ListParams::default().labels(selector);
        // Their names are enough, and there may be one on each of thousands of nodes.
        let take = |pod: PartialObjectMeta<Pod>| places.extend(pod.metadata.namespace);
        self.list(None, wanted, take).await?;
        Ok(places)
    }

    /// The pods of a namespace with these labels, on one node or all.
    pub(super) async fn pods(
        &self,
        namespace: &str,
        selector: &str,
        node: Option<&str>,
    ) -> Result<Vec<Pod>, ClusterError> {
        let mut wanted = ListParams::default().labels(selector);
        if let Some(node) = node {
            wanted = wanted.fields(&format!("spec.nodeName={node}"));
        }
        let mut found = Vec::new();
        self.list(Some(namespace), wanted, |pod| found.push(pod)).await?;
        Ok(found)
    }

    /// Hands every pod of one namespace or all to `take`, a chunk after the other.
    pub(super) async fn each_pod(&self, namespace: Option<&str>, take: impl FnMut(Pod)) -> Result<(), ClusterError> {
        self.list(namespace, ListParams::default(), take).await
    }

    /// Hands all that is `wanted` to `take`, however many chunks that takes: pods, or what of them is asked for.
    async fn list<K>(
        &self,
        namespace: Option<&str>,
        wanted: ListParams,
        mut take: impl FnMut(K),
    ) -> Result<(), ClusterError>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    {
        let pods: Api<K> = match namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        };
        let mut wanted = wanted.limit(CHUNK);
        loop {
            let chunk = in_time(pods.list(&wanted)).await.map_err(|error| refused(error, "list pods", namespace))?;
            chunk.items.into_iter().for_each(&mut take);
            match chunk.metadata.continue_ {
                Some(more) if !more.is_empty() => wanted = wanted.continue_token(&more),
                _ => return Ok(()),
            }
        }
    }

    /// The pods of a namespace, to forward a port of one.
    pub(super) fn namespaced(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.client.clone(), namespace)
    }
}

async fn config(kubeconfig: Option<&Path>, context: Option<&str>) -> Result<Config, String> {
    let options = KubeConfigOptions { context: context.map(str::to_owned), ..KubeConfigOptions::default() };
    let read = match kubeconfig {
        Some(file) => Kubeconfig::read_from(file),
        None => Kubeconfig::read(),
    };
    match read {
        Ok(kubeconfig) => Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(unusable),
        Err(error) if kubeconfig.is_none() && context.is_none() && is_absent(&error) => {
            Config::incluster().map_err(|_| {
                "there is no kubeconfig (KUBECONFIG, ~/.kube/config), and this is no pod of a cluster: give --kubeconfig"
                    .to_owned()
            })
        }
        Err(error) => Err(unusable(error)),
    }
}

fn unusable(error: KubeconfigError) -> String {
    format!("the kubeconfig cannot be used: {}", client_error(&error))
}

/// Whether there is no kubeconfig at all, which is no mistake inside a pod.
fn is_absent(error: &KubeconfigError) -> bool {
    match error {
        KubeconfigError::FindPath => true,
        KubeconfigError::ReadConfig(error, _) => error.kind() == std::io::ErrorKind::NotFound,
        _ => false,
    }
}

async fn in_time<T>(asked: impl Future<Output = kube::Result<T>>) -> Result<T, Option<kube::Error>> {
    match tokio::time::timeout(PATIENCE, asked).await {
        Ok(answer) => answer.map_err(Some),
        Err(_) => Err(None),
    }
}

fn refused(error: Option<kube::Error>, verb: &str, namespace: Option<&str>) -> ClusterError {
    let place = namespace.map_or("in all namespaces".to_owned(), |namespace| format!("in {}", clean(namespace)));
    ClusterError::Unreachable(match error {
        None => format!("the API server did not answer within {}s", PATIENCE.as_secs()),
        Some(kube::Error::Api(status)) => {
            format!("the API server does not let us {verb} {place}: {}", clean_to(&status.message, 512))
        }
        Some(kube::Error::Service(error)) => format!("the API server is not reached: {}", client_error(&*error)),
        Some(error) => format!("the API server is not reached: {}", client_error(&error)),
    })
}
