//! Manifests as a user gets them, as JSON.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use meshscrape::yaml::{self, Node};
use serde_json::{Map, Value};

use crate::support::process;

/// Where the manifests are.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy")
}

/// The overlays, each of which one may apply.
pub(crate) const OVERLAYS: [&str; 12] = [
    "any-ca",
    "cert-manager",
    "istio",
    "istio-cni",
    "mesh-listener",
    "mimir",
    "mimir-ha",
    "namespaced",
    "prometheus",
    "sharded",
    "spiffe-helper",
    "wide-jobs",
];

/// The objects of `kubectl kustomize` of an overlay.
pub(crate) fn overlay(name: &str) -> Vec<Value> {
    kustomization(&folder().join("kustomize/overlays").join(name))
}

/// The objects of `kubectl kustomize DIR`.
pub(crate) fn kustomization(dir: &Path) -> Vec<Value> {
    let output = Command::new(process::find("kubectl")).arg("kustomize").arg(dir).output().expect("kubectl runs");
    documents(&printed(&output))
}

/// The objects of `helm template` with these values.
pub(crate) fn chart(values: &str) -> Vec<Value> {
    let output = helm(values);
    documents(&printed(&output))
}

/// What `helm template` says to these values and an image.
pub(crate) fn helm(values: &str) -> Output {
    template(values, "meshscrape", &["--set=image.repository=meshscrape"])
}

/// What `helm template` says to these values and arguments, for a release `meshscrape` in a namespace.
pub(crate) fn template(values: &str, namespace: &str, arguments: &[&str]) -> Output {
    let mut helm = Command::new(process::find("helm"))
        .args(["template", "meshscrape", "--kube-version=1.34.0", "--values=-", "--namespace", namespace])
        .args(arguments)
        .arg(folder().join("chart/meshscrape"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("helm runs");
    helm.stdin.take().expect("a pipe").write_all(values.as_bytes()).expect("helm reads");
    helm.wait_with_output().expect("helm ends")
}

fn printed(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

/// The documents of a text in YAML.
pub(crate) fn documents(text: &str) -> Vec<Value> {
    let documents = format!("\n{text}");
    documents
        .split("\n---")
        .filter_map(|document| yaml::parse(document).expect("YAML"))
        .map(|node| json(&node))
        .collect()
}

/// A tree of YAML as Kubernetes reads it: with numbers, and octal ones that begin with 0.
fn json(node: &Node) -> Value {
    match &node.value {
        yaml::Value::Null => Value::Null,
        yaml::Value::Scalar { text, quoted: true } => text.as_str().into(),
        yaml::Value::Scalar { text, quoted: false } => match text.as_str() {
            "true" => true.into(),
            "false" => false.into(),
            octal if octal.len() > 1 && octal.starts_with('0') => {
                i64::from_str_radix(octal, 8).map_or_else(|_| octal.into(), Value::from)
            }
            other => other.parse::<i64>().map_or_else(|_| other.into(), Value::from),
        },
        yaml::Value::Sequence(items) => items.iter().map(json).collect(),
        yaml::Value::Mapping(pairs) => {
            let pair =
                |(key, value): &(Node, Node)| (json(key).as_str().expect("a key of text").to_owned(), json(value));
            Value::Object(pairs.iter().map(pair).collect::<Map<_, _>>())
        }
    }
}

/// The one object of this kind and name.
pub(crate) fn object<'o>(objects: &'o [Value], kind: &str, name: &str) -> &'o Value {
    let mut found = objects.iter().filter(|object| object["kind"] == kind && object["metadata"]["name"] == name);
    let object = found.next().unwrap_or_else(|| panic!("{kind} {name} among {:?}", names(objects)));
    assert!(found.next().is_none(), "{kind} {name} is there twice");
    object
}

/// Kind and name of each.
pub(crate) fn names(objects: &[Value]) -> Vec<String> {
    objects.iter().map(|object| format!("{} {}", text(&object["kind"]), text(&object["metadata"]["name"]))).collect()
}

/// The agents' DaemonSet or StatefulSet.
pub(crate) fn workload(objects: &[Value]) -> &Value {
    let is_workload = |object: &&Value| object["kind"] == "DaemonSet" || object["kind"] == "StatefulSet";
    objects.iter().find(is_workload).unwrap_or_else(|| panic!("no workload among {:?}", names(objects)))
}

/// The specification of the agents' pods.
pub(crate) fn pod(objects: &[Value]) -> &Value {
    &workload(objects)["spec"]["template"]["spec"]
}

/// The agent's own container.
pub(crate) fn container(objects: &[Value]) -> &Value {
    named(&pod(objects)["containers"], "meshscrape")
}

/// The item of a list with this `name`.
pub(crate) fn named<'v>(list: &'v Value, name: &str) -> &'v Value {
    let found = list.as_array().and_then(|items| items.iter().find(|item| item["name"] == name));
    found.unwrap_or_else(|| panic!("{name} in {list}"))
}

/// The agent's configuration.
pub(crate) fn configuration(objects: &[Value]) -> String {
    let volume = named(&pod(objects)["volumes"], "config");
    let map = object(objects, "ConfigMap", text(&volume["configMap"]["name"]));
    text(&map["data"]["meshscrape.yaml"]).to_owned()
}

/// A value that is text.
pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("text is expected, this is {value}"))
}
