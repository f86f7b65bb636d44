//! The objects of Kubernetes, trimmed to the fields that discovery uses.
//!
//! An agent that watches a large cluster holds all of these, so what is not used is not kept; unknown fields are ignored
//! and a `null` reads as absent, as in Go. Always holds: texts are shared with the labels that are made of them. What an
//! object means for scraping is not known here.

mod ingress;
mod metadata;
mod node;
mod pod;
mod read;
mod service;

use std::collections::HashMap;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::config::KubernetesRole;

pub(super) use ingress::{Ingress, IngressRule};
pub(super) use metadata::{Metadata, Owner};
pub(super) use node::Node;
pub(super) use pod::{Container, ContainerPort, Pod};
pub(super) use read::Pairs;
pub(super) use service::{
    EndpointAddress, EndpointPort, EndpointSlice, Endpoints, ObjectReference, Service, ServicePort, SliceEndpoint,
    SlicePort,
};

/// One kind of object: where the API server lists it.
pub(crate) trait Object: DeserializeOwned + PartialEq + Send + Sync + 'static {
    /// The role whose targets are made of them, if there is one.
    const ROLE: Option<KubernetesRole>;
    /// The path of its API group and version.
    const API: &'static str;
    /// Its name in paths.
    const PLURAL: &'static str;

    /// What all kinds have.
    fn metadata(&self) -> &Metadata;
}

/// What an object of one kind is known by.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ObjectKey {
    /// Empty for kinds without namespaces.
    pub(crate) namespace: Arc<str>,
    /// Unique in the namespace.
    pub(crate) name: Arc<str>,
}

/// All objects of one kind that are known.
pub(crate) type Store<T> = HashMap<ObjectKey, Arc<T>>;

/// A namespace: only its metadata is used.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Namespace {
    metadata: Metadata,
}

/// A ReplicaSet: only its metadata is used.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct ReplicaSet {
    metadata: Metadata,
}

/// A Job: only its metadata is used.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Job {
    metadata: Metadata,
}

impl Object for Namespace {
    const ROLE: Option<KubernetesRole> = None;
    const API: &'static str = "/api/v1";
    const PLURAL: &'static str = "namespaces";

    fn metadata(&self) -> &Metadata {
        &self.metadata
    }
}

impl Object for ReplicaSet {
    const ROLE: Option<KubernetesRole> = None;
    const API: &'static str = "/apis/apps/v1";
    const PLURAL: &'static str = "replicasets";

    fn metadata(&self) -> &Metadata {
        &self.metadata
    }
}

impl Object for Job {
    const ROLE: Option<KubernetesRole> = None;
    const API: &'static str = "/apis/batch/v1";
    const PLURAL: &'static str = "jobs";

    fn metadata(&self) -> &Metadata {
        &self.metadata
    }
}
