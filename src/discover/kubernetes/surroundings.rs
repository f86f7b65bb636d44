//! What a role may look at besides the object itself.
//!
//! A store that is not watched is `None`, and then nothing is found in it. Nothing here waits or asks anybody.

use std::sync::Arc;

use super::meta::{self, Draft, Names};
use super::object::{Job, Metadata, Namespace, Node, Object, ObjectKey, Owner, Pod, ReplicaSet, Service, Store};
use crate::config::AttachMetadata;

/// The other objects that are known at the moment, and what is to be attached of them.
pub(super) struct Surroundings<'a> {
    /// The names of labels.
    pub(super) names: &'a Names,
    /// What is to be attached.
    pub(super) attach: AttachMetadata,
    pub(super) nodes: Option<&'a Store<Node>>,
    pub(super) namespaces: Option<&'a Store<Namespace>>,
    pub(super) replica_sets: Option<&'a Store<ReplicaSet>>,
    pub(super) jobs: Option<&'a Store<Job>>,
    pub(super) pods: Option<&'a Store<Pod>>,
    pub(super) services: Option<&'a Store<Service>>,
}

impl Surroundings<'_> {
    /// The node of this name.
    pub(super) fn node(&self, name: &Arc<str>) -> Option<&Node> {
        find(self.nodes, &Arc::default(), name)
    }

    /// The pod of this name.
    pub(super) fn pod(&self, namespace: &Arc<str>, name: &Arc<str>) -> Option<&Pod> {
        find(self.pods, namespace, name)
    }

    /// The service of this name.
    pub(super) fn service(&self, namespace: &Arc<str>, name: &Arc<str>) -> Option<&Service> {
        find(self.services, namespace, name)
    }

    /// What controls the ReplicaSet or Job that controls an object.
    pub(super) fn controller_of_controller(&self, metadata: &Metadata) -> Option<&Owner> {
        let direct = metadata.controller.as_ref()?;
        let namespace = &metadata.namespace;
        let above = match direct.kind.as_str() {
            "ReplicaSet" => find(self.replica_sets, namespace, &direct.name)?.metadata(),
            "Job" => find(self.jobs, namespace, &direct.name)?.metadata(),
            _ => return None,
        };
        above.controller.as_ref()
    }

    /// Sets the labels of the namespace that an object lives in: its name, and its metadata if that is attached.
    pub(super) fn set_namespace(&self, draft: &mut Draft<'_>, metadata: &Metadata) {
        draft.set(meta::NAMESPACE, &metadata.namespace);
        if self.attach.namespace
            && let Some(namespace) = find(self.namespaces, &Arc::default(), &metadata.namespace)
        {
            draft.set_details(&meta::OF_NAMESPACE, namespace.metadata());
        }
    }
}

fn find<'s, T>(store: Option<&'s Store<T>>, namespace: &Arc<str>, name: &Arc<str>) -> Option<&'s T> {
    let key = ObjectKey { namespace: Arc::clone(namespace), name: Arc::clone(name) };
    store?.get(&key).map(|object| &**object)
}
