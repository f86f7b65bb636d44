//! A namespace and what a test does to the objects in it, in the place of kubelets and controllers.

use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{self, Pod};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::manifest::PodManifest;

/// A namespace, seen by a client that may do everything.
#[derive(Clone)]
pub(crate) struct Namespace {
    name: String,
    client: Client,
}

impl Namespace {
    pub(super) async fn create(client: Client, manifest: Value) -> Self {
        let created: v1::Namespace = create(&Api::all(client.clone()), manifest).await;
        Self { name: created.name_any(), client }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The objects of one kind in it.
    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.name)
    }

    /// Creates an object, and writes its status if the manifest has one.
    pub(crate) async fn create_object<K>(&self, manifest: Value) -> K
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned + Serialize,
    {
        create(&self.api(), manifest).await
    }

    /// Creates a pod with its status.
    pub(crate) async fn create_pod(&self, manifest: PodManifest) -> Pod {
        self.create_object(manifest.into()).await
    }

    /// Creates many pods, several at a time.
    pub(crate) async fn create_pods(&self, manifests: impl IntoIterator<Item = PodManifest>) {
        let mut creating = JoinSet::new();
        for manifest in manifests {
            if creating.len() >= 16 {
                creating.join_next().await.expect("some are being created").expect("a pod");
            }
            let namespace = self.clone();
            creating.spawn(async move { namespace.create_pod(manifest).await });
        }
        creating.join_all().await;
    }

    /// Replaces the whole status of a pod, as its kubelet would.
    pub(crate) async fn set_pod_status(&self, pod: &str, status: Value) -> Pod {
        set_status(&self.api(), pod, status).await
    }

    /// Changes parts of an object (JSON merge patch), such as its labels.
    pub(crate) async fn change<K>(&self, name: &str, change: Value) -> K
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned,
    {
        self.api().patch(name, &PatchParams::default(), &Patch::Merge(change)).await.expect("a change")
    }

    /// Changes parts of a pod.
    pub(crate) async fn change_pod(&self, pod: &str, change: Value) -> Pod {
        self.change(pod, change).await
    }

    /// Asks for the end of a pod with its usual grace. It stays, terminating, because no kubelet ends it, until it is deleted;
    /// only a pod without a node, or one that has finished, is gone at once.
    pub(crate) async fn terminate_pod(&self, pod: &str) {
        let api: Api<Pod> = self.api();
        api.delete(pod, &DeleteParams::default()).await.expect("it is deleted");
    }

    /// Removes a pod at once.
    pub(crate) async fn delete_pod(&self, pod: &str) {
        let api: Api<Pod> = self.api();
        api.delete(pod, &DeleteParams::default().grace_period(0)).await.expect("it is deleted");
    }

    /// Replaces a pod by another of this manifest at once, as a StatefulSet's is: the same name, another UID.
    pub(crate) async fn replace_pod(&self, pod: &str, manifest: PodManifest) -> Pod {
        self.delete_pod(pod).await;
        self.create_pod(manifest).await
    }
}

/// Creates an object, and writes its status if the manifest has one.
pub(crate) async fn create<K>(api: &Api<K>, manifest: Value) -> K
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Serialize,
{
    let object: K = typed(manifest.clone());
    let created =
        api.create(&PostParams::default(), &object).await.unwrap_or_else(|error| panic!("{error}: {manifest}"));
    match manifest.get("status") {
        None => created,
        Some(status) => replace_status(api, &created, status.clone()).await,
    }
}

/// Replaces the whole status of an object.
pub(crate) async fn set_status<K>(api: &Api<K>, name: &str, status: Value) -> K
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Serialize,
{
    replace_status(api, &api.get(name).await.expect("the object"), status).await
}

/// Replaces the whole status of an object, of which nobody else knows anything newer.
async fn replace_status<K>(api: &Api<K>, object: &K, status: Value) -> K
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Serialize,
{
    let name = object.name_any();
    let mut object = json!(object);
    object["status"] = status;
    let replaced = api.replace_status(&name, &PostParams::default(), &typed::<K>(object.clone())).await;
    replaced.unwrap_or_else(|error| panic!("{error}: {object}"))
}

fn typed<K: DeserializeOwned>(object: Value) -> K {
    serde_json::from_value(object.clone()).unwrap_or_else(|error| panic!("{error}: {object}"))
}
