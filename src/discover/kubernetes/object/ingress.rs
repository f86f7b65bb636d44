//! Ingresses, as far as they are used.

use serde::Deserialize;

use super::read::{Text, nullable};
use super::{Metadata, Object};
use crate::config::KubernetesRole;

/// An ingress.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Ingress {
    pub(crate) metadata: Metadata,
    #[serde(deserialize_with = "nullable")]
    pub(crate) spec: IngressSpec,
}

impl Object for Ingress {
    const ROLE: Option<KubernetesRole> = Some(KubernetesRole::Ingress);
    const API: &'static str = "/apis/networking.k8s.io/v1";
    const PLURAL: &'static str = "ingresses";

    fn metadata(&self) -> &Metadata {
        &self.metadata
    }
}

/// What an ingress is to be.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct IngressSpec {
    pub(crate) ingress_class_name: Text,
    #[serde(deserialize_with = "nullable")]
    pub(crate) tls: Vec<IngressTls>,
    #[serde(deserialize_with = "nullable")]
    pub(crate) rules: Vec<IngressRule>,
}

/// Hosts that are served over TLS.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct IngressTls {
    #[serde(deserialize_with = "nullable")]
    pub(crate) hosts: Vec<Text>,
}

/// What one host serves.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct IngressRule {
    /// Empty: any host.
    pub(crate) host: Text,
    pub(crate) http: Option<HttpRule>,
}

/// Paths of a host.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct HttpRule {
    #[serde(deserialize_with = "nullable")]
    pub(crate) paths: Vec<HttpPath>,
}

/// One path of a host.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct HttpPath {
    pub(crate) path: Text,
}
