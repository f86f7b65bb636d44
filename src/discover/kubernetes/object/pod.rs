//! Pods, as far as they are used.

use serde::Deserialize;

use super::read::{Text, nullable};
use super::{Metadata, Object};
use crate::config::KubernetesRole;

/// A pod.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Pod {
    pub(crate) metadata: Metadata,
    #[serde(deserialize_with = "nullable")]
    pub(crate) spec: PodSpec,
    #[serde(deserialize_with = "nullable")]
    pub(crate) status: PodStatus,
}

impl Object for Pod {
    const ROLE: Option<KubernetesRole> = Some(KubernetesRole::Pod);
    const API: &'static str = "/api/v1";
    const PLURAL: &'static str = "pods";

    fn metadata(&self) -> &Metadata {
        &self.metadata
    }
}

/// What a pod is to be.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct PodSpec {
    /// Empty until it is scheduled.
    pub(crate) node_name: Text,
    /// The API server fills in `default`.
    pub(crate) service_account_name: Text,
    #[serde(deserialize_with = "nullable")]
    pub(crate) host_network: bool,
    #[serde(deserialize_with = "nullable")]
    pub(crate) containers: Vec<Container>,
    /// Native sidecars are among them.
    #[serde(deserialize_with = "nullable")]
    pub(crate) init_containers: Vec<Container>,
}

/// A container of a pod.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Container {
    pub(crate) name: Text,
    pub(crate) image: Text,
    #[serde(deserialize_with = "nullable")]
    pub(crate) ports: Vec<ContainerPort>,
}

/// A port that a container declares.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ContainerPort {
    /// May be empty.
    pub(crate) name: Text,
    #[serde(deserialize_with = "nullable")]
    pub(crate) container_port: i32,
    /// `TCP`, `UDP`, `SCTP`.
    pub(crate) protocol: Text,
}

/// How a pod is.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct PodStatus {
    /// `Pending`, `Running`, `Succeeded`, `Failed`, `Unknown`.
    pub(crate) phase: Text,
    /// Empty while it starts, and once it is evicted.
    #[serde(rename = "podIP")]
    pub(crate) pod_ip: Text,
    #[serde(rename = "hostIP")]
    pub(crate) host_ip: Text,
    #[serde(deserialize_with = "nullable")]
    pub(crate) conditions: Vec<Condition>,
    #[serde(deserialize_with = "nullable")]
    pub(crate) container_statuses: Vec<ContainerStatus>,
    #[serde(deserialize_with = "nullable")]
    pub(crate) init_container_statuses: Vec<ContainerStatus>,
}

/// One thing that is said of a pod or a node.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Condition {
    /// What.
    #[serde(rename = "type")]
    pub(crate) kind: Text,
    /// `True`, `False`, `Unknown`.
    pub(crate) status: Text,
}

/// How a container is.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct ContainerStatus {
    pub(crate) name: Text,
    /// `containerd://…`; empty until it runs.
    #[serde(rename = "containerID")]
    pub(crate) container_id: Text,
}
