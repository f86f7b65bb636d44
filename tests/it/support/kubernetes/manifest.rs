//! Manifests of the objects that tests have many of. Whatever a method does not say is merged in as JSON.

use serde_json::{Map, Value, json};

/// A pod with one container, `app`, that has not been started yet: neither a node nor an address nor a status.
pub(crate) fn pod(name: &str) -> PodManifest {
    let app = json!({"name": "app", "image": "registry.example/app:1"});
    PodManifest(json!({"metadata": {"name": name}, "spec": {"containers": [app]}}))
}

/// A node with these addresses, as (type, address), whose kubelet listens on 10250.
pub(crate) fn node(name: &str, addresses: &[(&str, &str)]) -> Value {
    let addresses: Vec<Value> =
        addresses.iter().map(|(kind, address)| json!({"type": kind, "address": address})).collect();
    json!({
        "metadata": {"name": name},
        "status": {"addresses": addresses, "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}}},
    })
}

/// What becomes a pod.
#[derive(Clone, Debug)]
pub(crate) struct PodManifest(Value);

impl PodManifest {
    /// Running, ready, with this address, and every container so far started.
    pub(crate) fn running(self, ip: &str) -> Self {
        let statuses = |containers: &Value| -> Value {
            let started = containers.as_array().into_iter().flatten().map(|container| {
                let (name, image) = (&container["name"], &container["image"]);
                let id = format!("containerd://{:032x}", rand::random::<u128>());
                json!({
                    "name": name, "image": image, "imageID": image, "containerID": id, "ready": true, "restartCount": 0,
                    "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
                })
            });
            started.collect()
        };
        let spec = &self.0["spec"];
        let status = json!({
            "phase": "Running",
            "podIP": ip,
            "podIPs": [{"ip": ip}],
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": statuses(&spec["containers"]),
            "initContainerStatuses": statuses(&spec["initContainers"]),
        });
        self.with(json!({"status": status}))
    }

    /// On this node, which need not exist.
    pub(crate) fn on(self, node: &str) -> Self {
        self.with(json!({"spec": {"nodeName": node}}))
    }

    /// Runs as this service account, which need not exist.
    pub(crate) fn account(self, account: &str) -> Self {
        self.with(json!({"spec": {"serviceAccountName": account}}))
    }

    pub(crate) fn label(self, key: &str, value: &str) -> Self {
        self.with(json!({"metadata": {"labels": {key: value}}}))
    }

    pub(crate) fn annotation(self, key: &str, value: &str) -> Self {
        self.with(json!({"metadata": {"annotations": {key: value}}}))
    }

    /// The container `app` declares a TCP port of this name.
    pub(crate) fn port(mut self, name: &str, number: u16) -> Self {
        push(&mut self.0["spec"]["containers"][0]["ports"], json!({"name": name, "containerPort": number}));
        self
    }

    /// Another container.
    pub(crate) fn container(mut self, container: Value) -> Self {
        push(&mut self.0["spec"]["containers"], container);
        self
    }

    /// Another init container; with `restartPolicy: Always` it is a native sidecar.
    pub(crate) fn init_container(mut self, container: Value) -> Self {
        push(&mut self.0["spec"]["initContainers"], container);
        self
    }

    /// Belongs to a controller, such as a ReplicaSet.
    pub(crate) fn owned_by(self, api_version: &str, kind: &str, name: &str) -> Self {
        let owner = json!({
            "apiVersion": api_version, "kind": kind, "name": name, "controller": true,
            "uid": format!("{:032x}", rand::random::<u128>()),
        });
        self.with(json!({"metadata": {"ownerReferences": [owner]}}))
    }

    /// Anything else: objects are merged, everything else is replaced.
    pub(crate) fn with(self, change: Value) -> Self {
        Self(with(self.0, change))
    }
}

impl From<PodManifest> for Value {
    fn from(manifest: PodManifest) -> Self {
        manifest.0
    }
}

fn push(list: &mut Value, item: Value) {
    if list.is_null() {
        *list = json!([]);
    }
    list.as_array_mut().expect("a list").push(item);
}

/// The manifest with these changes: objects are merged, everything else is replaced.
pub(crate) fn with(mut manifest: Value, change: Value) -> Value {
    merge(&mut manifest, change);
    manifest
}

fn merge(into: &mut Value, change: Value) {
    let Value::Object(change) = change else {
        *into = change;
        return;
    };
    if !into.is_object() {
        *into = Value::Object(Map::new());
    }
    for (key, value) in change {
        merge(&mut into[key], value);
    }
}
