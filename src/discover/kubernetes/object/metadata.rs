//! What all objects have.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::ObjectKey;
use super::read::{Pairs, Text, nullable};

/// The `metadata` of an object.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(from = "Written")]
pub(crate) struct Metadata {
    /// Unique in the namespace.
    pub(crate) name: Arc<str>,
    /// Empty for kinds without namespaces.
    pub(crate) namespace: Arc<str>,
    /// Which of all objects that ever had this name.
    pub(crate) uid: Arc<str>,
    /// Its labels.
    pub(crate) labels: Pairs,
    /// Its annotations.
    pub(crate) annotations: Pairs,
    /// When it was created, in seconds since 1970; 0 if it does not say.
    pub(crate) created: i64,
    /// Its deletion has begun.
    pub(crate) terminating: bool,
    /// The owner that controls it.
    pub(crate) controller: Option<Owner>,
}

/// The kind and the name of another object in the same namespace.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Owner {
    /// `ReplicaSet`, `Job`, …
    pub(crate) kind: Text,
    /// Its name.
    pub(crate) name: Text,
}

impl Metadata {
    /// What the object is known by among those of its kind.
    pub(crate) fn key(&self) -> ObjectKey {
        ObjectKey { namespace: Arc::clone(&self.namespace), name: Arc::clone(&self.name) }
    }
}

/// As the API server writes it.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Written {
    name: Text,
    namespace: Text,
    uid: Text,
    labels: Pairs,
    annotations: Pairs,
    creation_timestamp: Option<Time>,
    deletion_timestamp: Option<IgnoredAny>,
    #[serde(deserialize_with = "nullable")]
    owner_references: Vec<OwnerReference>,
}

#[derive(Deserialize)]
struct OwnerReference {
    #[serde(default)]
    kind: Text,
    #[serde(default)]
    name: Text,
    controller: Option<bool>,
}

impl From<Written> for Metadata {
    fn from(written: Written) -> Self {
        let controller = written.owner_references.into_iter().find(|owner| owner.controller == Some(true));
        Self {
            name: written.name.into(),
            namespace: written.namespace.into(),
            uid: written.uid.into(),
            labels: written.labels,
            annotations: written.annotations,
            created: written.creation_timestamp.map_or(0, |time| time.0.as_second()),
            terminating: written.deletion_timestamp.is_some(),
            controller: controller.map(|owner| Owner { kind: owner.kind, name: owner.name }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Metadata {
        serde_json::from_str(json).expect("metadata")
    }

    #[test]
    fn what_is_used_of_it() {
        let metadata = read(
            r#"{"name": "n", "namespace": "ns", "uid": "u", "resourceVersion": "7", "generateName": "ignored",
                "managedFields": [{"manager": "kubectl"}], "creationTimestamp": "2024-02-29T12:00:01Z",
                "deletionTimestamp": "2024-02-29T12:00:02Z", "labels": {"a": "1"}, "annotations": {"b": "2"},
                "ownerReferences": [{"kind": "X", "name": "x"}, {"kind": "Y", "name": "y", "controller": false},
                    {"kind": "Z", "name": "z", "controller": true}, {"kind": "W", "name": "w", "controller": true}]}"#,
        );
        assert_eq!(metadata.key(), ObjectKey { namespace: "ns".into(), name: "n".into() });
        assert_eq!(&*metadata.uid, "u");
        assert_eq!(metadata.created, 1_709_208_001);
        assert!(metadata.terminating);
        let controller = metadata.controller.expect("the first that controls");
        assert_eq!((controller.kind.as_str(), controller.name.as_str()), ("Z", "z"));
    }

    #[test]
    fn nulls_and_absent_fields_are_empty() {
        let nulls = r#"{"name": "n", "namespace": null, "labels": null, "annotations": null, "creationTimestamp": null,
            "deletionTimestamp": null, "ownerReferences": null}"#;
        assert_eq!(read(nulls), read(r#"{"name": "n"}"#));
        assert!(!read(nulls).terminating);
    }
}
