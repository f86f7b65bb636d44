//! Services and what stands behind them, as far as they are used.

use serde::Deserialize;

use super::read::{Pairs, Text, nullable};
use super::{Metadata, Object};
use crate::config::KubernetesRole;

/// A service.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Service {
    pub(crate) metadata: Metadata,
    #[serde(deserialize_with = "nullable")]
    pub(crate) spec: ServiceSpec,
}

impl Object for Service {
    const ROLE: Option<KubernetesRole> = Some(KubernetesRole::Service);
    const API: &'static str = "/api/v1";
    const PLURAL: &'static str = "services";

    fn metadata(&self) -> &Metadata {
        &self.metadata
    }
}

/// What a service is to be.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ServiceSpec {
    /// `ClusterIP`, `NodePort`, `LoadBalancer`, `ExternalName`.
    #[serde(rename = "type")]
    pub(crate) kind: Text,
    /// `None` if it is headless.
    #[serde(rename = "clusterIP")]
    pub(crate) cluster_ip: Text,
    pub(crate) external_name: Text,
    #[serde(rename = "loadBalancerIP")]
    pub(crate) load_balancer_ip: Text,
    /// `SingleStack`, `PreferDualStack`, `RequireDualStack`.
    pub(crate) ip_family_policy: Text,
    /// `IPv4`, `IPv6`; the first one is preferred.
    #[serde(deserialize_with = "nullable")]
    pub(crate) ip_families: Vec<Text>,
    #[serde(deserialize_with = "nullable")]
    pub(crate) ports: Vec<ServicePort>,
}

/// A port of a service.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct ServicePort {
    /// May be empty.
    pub(crate) name: Text,
    #[serde(deserialize_with = "nullable")]
    pub(crate) port: i32,
    pub(crate) protocol: Text,
}

/// The addresses behind a service of the same name, in the deprecated form.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Endpoints {
    pub(crate) metadata: Metadata,
    #[serde(deserialize_with = "nullable")]
    pub(crate) subsets: Vec<EndpointSubset>,
}

impl Object for Endpoints {
    const ROLE: Option<KubernetesRole> = Some(KubernetesRole::Endpoints);
    const API: &'static str = "/api/v1";
    const PLURAL: &'static str = "endpoints";

    fn metadata(&self) -> &Metadata {
        &self.metadata
    }
}

/// Each of the addresses has each of the ports.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct EndpointSubset {
    #[serde(deserialize_with = "nullable")]
    pub(crate) addresses: Vec<EndpointAddress>,
    #[serde(deserialize_with = "nullable")]
    pub(crate) not_ready_addresses: Vec<EndpointAddress>,
    #[serde(deserialize_with = "nullable")]
    pub(crate) ports: Vec<EndpointPort>,
}

/// One address behind a service.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct EndpointAddress {
    pub(crate) ip: Text,
    pub(crate) hostname: Text,
    pub(crate) node_name: Text,
    pub(crate) target_ref: Option<ObjectReference>,
}

/// One port behind a service.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct EndpointPort {
    /// May be empty.
    pub(crate) name: Text,
    #[serde(deserialize_with = "nullable")]
    pub(crate) port: i32,
    pub(crate) protocol: Text,
}

/// The object that stands behind an address.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct ObjectReference {
    pub(crate) kind: Text,
    pub(crate) namespace: Text,
    pub(crate) name: Text,
}

/// Some of the addresses behind a service.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct EndpointSlice {
    pub(crate) metadata: Metadata,
    /// `IPv4`, `IPv6`, `FQDN`.
    pub(crate) address_type: Text,
    #[serde(deserialize_with = "nullable")]
    pub(crate) endpoints: Vec<SliceEndpoint>,
    #[serde(deserialize_with = "nullable")]
    pub(crate) ports: Vec<SlicePort>,
}

impl Object for EndpointSlice {
    const ROLE: Option<KubernetesRole> = Some(KubernetesRole::EndpointSlice);
    const API: &'static str = "/apis/discovery.k8s.io/v1";
    const PLURAL: &'static str = "endpointslices";

    fn metadata(&self) -> &Metadata {
        &self.metadata
    }
}

/// One endpoint of a slice: each of its addresses has each of the slice's ports.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct SliceEndpoint {
    #[serde(deserialize_with = "nullable")]
    pub(crate) addresses: Vec<Text>,
    #[serde(deserialize_with = "nullable")]
    pub(crate) conditions: EndpointConditions,
    pub(crate) hostname: Text,
    pub(crate) node_name: Text,
    pub(crate) zone: Text,
    pub(crate) target_ref: Option<ObjectReference>,
    /// What older API servers say of where it runs.
    pub(crate) deprecated_topology: Pairs,
}

/// How an endpoint is; what is absent is not known.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct EndpointConditions {
    pub(crate) ready: Option<bool>,
    pub(crate) serving: Option<bool>,
    pub(crate) terminating: Option<bool>,
}

/// One port of a slice.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct SlicePort {
    pub(crate) name: Text,
    /// Absent: any port.
    pub(crate) port: Option<i32>,
    pub(crate) protocol: Text,
    pub(crate) app_protocol: Text,
}
