//! Nodes, as far as they are used.

use serde::Deserialize;

use super::pod::Condition;
use super::read::{Text, nullable};
use super::{Metadata, Object};
use crate::config::KubernetesRole;

/// A node.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Node {
    pub(crate) metadata: Metadata,
    #[serde(deserialize_with = "nullable")]
    pub(crate) spec: NodeSpec,
    #[serde(deserialize_with = "nullable")]
    pub(crate) status: NodeStatus,
}

impl Object for Node {
    const ROLE: Option<KubernetesRole> = Some(KubernetesRole::Node);
    const API: &'static str = "/api/v1";
    const PLURAL: &'static str = "nodes";

    fn metadata(&self) -> &Metadata {
        &self.metadata
    }
}

/// What a node is to be.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct NodeSpec {
    /// What the cloud calls it.
    #[serde(rename = "providerID")]
    pub(crate) provider_id: Text,
}

/// How a node is.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct NodeStatus {
    #[serde(deserialize_with = "nullable")]
    pub(crate) addresses: Vec<NodeAddress>,
    #[serde(deserialize_with = "nullable")]
    pub(crate) conditions: Vec<Condition>,
    #[serde(deserialize_with = "nullable")]
    pub(crate) daemon_endpoints: DaemonEndpoints,
}

/// One address of a node.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct NodeAddress {
    /// `InternalIP`, `Hostname`, …
    #[serde(rename = "type")]
    pub(crate) kind: Text,
    pub(crate) address: Text,
}

/// What listens on a node.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct DaemonEndpoints {
    #[serde(deserialize_with = "nullable")]
    pub(crate) kubelet_endpoint: DaemonEndpoint,
}

/// Where a daemon of a node listens.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct DaemonEndpoint {
    /// 0 where it is not said. The API spells it with a capital letter.
    #[serde(rename = "Port", deserialize_with = "nullable")]
    pub(crate) port: i32,
}
