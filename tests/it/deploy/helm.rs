//! The chart renders what the overlays render.

use serde_json::{Map, Value, json};

use super::rendered::{chart, container, documents, helm, names, object, overlay, pod, template, text};

/// Each overlay and the values that make the chart render it.
pub(super) fn variants() -> [(&'static str, String); 12] {
    let mimir = "
remoteWrite: [{ name: mimir, url: 'http://mimir-gateway.mimir.svc/api/v1/push', headers: { X-Scope-OrgID: mesh } }]";
    [
        ("istio-cni", String::new()),
        // Of a chart, the namespace is not part: these differ in it alone, and in the receiver.
        ("istio", String::new()),
        ("mesh-listener", "meshListener: { allow: ['spiffe://cluster.local/ns/monitoring/sa/prometheus'] }".to_owned()),
        ("prometheus", String::new()),
        ("sharded", "kind: StatefulSet".to_owned()),
        ("namespaced", "rbac: { namespaces: [shop] }".to_owned()),
        ("wide-jobs", "rbac: { wideJobs: true }".to_owned()),
        ("cert-manager", "certificates: { from: csi-driver-spiffe }".to_owned()),
        ("spiffe-helper", "certificates: { from: spiffe-helper }".to_owned()),
        ("any-ca", "certificates: { from: secret }".to_owned()),
        (
            "mimir",
            format!(
                "networkPolicy: {{ receiver: {{ namespace: mimir, port: 8080 }} }}
config:
  externalLabels: {{ cluster: main }}{}",
                mimir.replace('\n', "\n  ")
            ),
        ),
        (
            "mimir-ha",
            format!(
                "networkPolicy: {{ receiver: {{ namespace: mimir, port: 8080 }} }}
kind: StatefulSet
replicas: 2
replicated: true
config:
  externalLabels: {{ cluster: main, __replica__: '${{POD_NAME}}' }}{}",
                mimir.replace('\n', "\n  ")
            ),
        ),
    ]
}

#[test]
fn the_chart_renders_the_overlays() {
    let rows = variants();
    assert_eq!(rows.len(), super::rendered::OVERLAYS.len());
    for (name, values) in rows {
        let (ours, theirs) = (normal(chart(&values)), normal(overlay(name)));
        assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>(), "{name}");
        for (object, value) in &theirs {
            assert_eq!(&ours[object], value, "{name}: {object}; the chart is on the left");
        }
    }
}

#[test]
fn a_value_that_the_chart_does_not_know_is_an_error() {
    for values in ["kid: DaemonSet", "kind: Deployment", "certificates: { from: vault }", "rbac: { namespace: shop }"] {
        assert!(!helm(values).status.success(), "{values}");
    }
}

/// Nothing is pulled from somewhere that happens to have something of this name.
#[test]
fn a_chart_without_an_image_says_what_to_give() {
    let output = template("", "meshscrape", &[]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && told.contains("--set image.repository=REGISTRY/meshscrape"), "{told}");
}

#[test]
fn a_mesh_listener_without_its_files_is_an_error() {
    let values = "certificates: { from: csi-driver-spiffe }
meshListener: { allow: ['spiffe://cluster.local/ns/monitoring/sa/prometheus'] }";
    let output = helm(values);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && told.contains("csi-driver-spiffe gives the files other names"), "{told}");
    assert!(!helm("meshListener: { allow: [prometheus] }").status.success(), "that is no SPIFFE ID");
}

/// Two releases of one name, in two namespaces, share nothing that lies outside of these, but for the class that a value names.
#[test]
fn releases_of_one_name_do_not_meet_outside_of_their_namespaces() {
    let wide = |namespace: &str| {
        let output = template("rbac: { wideJobs: true }", namespace, &["--set=image.repository=meshscrape"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let objects = documents(std::str::from_utf8(&output.stdout).expect("UTF-8"));
        let wide: Vec<_> = objects.into_iter().filter(|object| object["metadata"]["namespace"].is_null()).collect();
        names(&wide)
    };
    let (one, other) = (wide("one"), wide("other"));
    assert_eq!(one.len(), 5, "{one:?}");
    let shared: Vec<_> = one.iter().filter(|name| other.contains(name)).collect();
    assert_eq!(shared, ["PriorityClass meshscrape"]);
}

#[test]
fn what_is_added_stands_beside_what_the_agent_has() {
    let plain = chart("");
    let objects = chart(
        "extraArgs: [--log-level=debug]
extraEnv: [{ name: CLUSTER, value: main }]
extraVolumes: [{ name: receiver, secret: { secretName: receiver } }]
extraVolumeMounts: [{ name: receiver, mountPath: /etc/receiver, readOnly: true }]
networkPolicy: { extraEgress: [{ ports: [{ port: 10250 }] }] }",
    );
    let policy = |objects| &object(objects, "NetworkPolicy", "meshscrape")["spec"]["egress"];
    for (added, before, after) in [
        (json!("--log-level=debug"), &container(&plain)["args"], &container(&objects)["args"]),
        (json!({ "name": "CLUSTER", "value": "main" }), &container(&plain)["env"], &container(&objects)["env"]),
        (
            json!({ "name": "receiver", "mountPath": "/etc/receiver", "readOnly": true }),
            &container(&plain)["volumeMounts"],
            &container(&objects)["volumeMounts"],
        ),
        (
            json!({ "name": "receiver", "secret": { "secretName": "receiver" } }),
            &pod(&plain)["volumes"],
            &pod(&objects)["volumes"],
        ),
        (json!({ "ports": [{ "port": 10250 }] }), policy(&plain), policy(&objects)),
    ] {
        let mut expected = before.as_array().expect("a list").clone();
        expected.push(added);
        assert_eq!(after, &Value::Array(expected));
    }
}

#[test]
fn a_configuration_of_ones_own_stands_as_it_is_written() {
    let objects = chart("config: { file: \"# mine\\nscrape_configs: []\\n\" }");
    assert_eq!(super::rendered::configuration(&objects).trim_end(), "# mine\nscrape_configs: []");
}

/// The agent's objects by kind and name, without what only kustomize or only Helm writes: hashes in names, the chart's own
/// labels and checksum, the order of named things, the layout of configurations.
fn normal(objects: Vec<Value>) -> Map<String, Value> {
    let mut normal = Map::new();
    for mut object in objects {
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default().to_owned();
        if object["kind"] == "Namespace" || namespace == "monitoring" {
            continue;
        }
        if let Some(labels) = object.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
            labels.retain(|key, _| !key.starts_with("app.kubernetes.io/") && !key.starts_with("helm.sh/"));
            if labels.is_empty() {
                object["metadata"].as_object_mut().expect("metadata").remove("labels");
            }
        }
        if let Some(annotations) = object.pointer_mut("/spec/template/metadata/annotations") {
            annotations.as_object_mut().expect("annotations").remove("checksum/config");
        }
        if object["kind"] == "ConfigMap" {
            strip_hash(&mut object["metadata"]["name"]);
            let data = object["data"].as_object_mut().expect("data");
            for (key, value) in data {
                if key.ends_with(".yaml") {
                    *value = documents(text(value)).into_iter().collect();
                }
            }
        }
        if let Some(volumes) = object.pointer_mut("/spec/template/spec/volumes").and_then(Value::as_array_mut) {
            volumes.iter_mut().filter_map(|volume| volume.pointer_mut("/configMap/name")).for_each(strip_hash);
        }
        sort_named(&mut object);
        let name = format!("{} {namespace}/{}", text(&object["kind"]), text(&object["metadata"]["name"]));
        assert!(normal.insert(name.clone(), object).is_none(), "{name} is there twice");
    }
    normal
}

/// Takes off what kustomize puts behind the name of a generated ConfigMap.
fn strip_hash(name: &mut Value) {
    let Some((stem, hash)) = name.as_str().and_then(|name| name.rsplit_once('-')) else { return };
    if hash.len() == 10 && hash.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()) {
        *name = stem.into();
    }
}

fn sort_named(value: &mut Value) {
    match value {
        Value::Array(items) => {
            items.iter_mut().for_each(sort_named);
            if items.iter().all(|item| item["name"].is_string()) {
                items.sort_by_key(|item| text(&item["name"]).to_owned());
            }
        }
        Value::Object(fields) => fields.values_mut().for_each(sort_named),
        _ => {}
    }
}
