//! A real API server takes what `deploy/` holds, without a warning, and grants the agent what it needs and no more.
//!
//! Istio's and the Gateway API's kinds are CRDs of our own making (`tests/fixtures/crds`).

mod getting_started;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use kube::api::PostParams;
use kube::{Api, Client};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::rendered::{OVERLAYS, documents, folder, object, overlay, pod, text, workload};
use crate::support::agent::eventually;
use crate::support::kubernetes::Cluster;
use crate::support::process;

/// A cluster of its own, since what is applied here has fixed names, and `kubectl` for it.
struct Kubectl {
    program: PathBuf,
    dir: TempDir,
    admin: Client,
    _cluster: Cluster,
}

impl Kubectl {
    /// With the kinds of Istio, and the namespaces that manifests suppose.
    async fn start() -> Self {
        Self::start_with(&["istio-system", "meshscrape", "monitoring", "shop"]).await
    }

    /// The same with these namespaces.
    async fn start_with(namespaces: &[&str]) -> Self {
        let cluster = Cluster::start().await;
        let dir = tempfile::tempdir().expect("a directory");
        cluster.kubeconfig(&dir.path().join("config"), &cluster.url(), cluster.admin_token());
        let kubectl = Self { program: process::find("kubectl"), dir, admin: cluster.admin(), _cluster: cluster };
        let crds = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/crds");
        kubectl.good(&["apply", "--filename", crds], "");
        kubectl.good(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"], "");
        for namespace in namespaces {
            kubectl.good(&["create", "namespace", namespace], "");
        }
        kubectl
    }

    fn run(&self, arguments: &[&str], input: &str) -> Output {
        use std::io::Write as _;
        let mut child = Command::new(&self.program)
            .args(arguments)
            .env("KUBECONFIG", self.dir.path().join("config"))
            // Of the server's API, which others of this run do not have.
            .arg("--cache-dir")
            .arg(self.dir.path().join("cache"))
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("kubectl runs");
        // It may end without having read all.
        let _ = child.stdin.take().expect("a pipe").write_all(input.as_bytes());
        child.wait_with_output().expect("kubectl ends")
    }

    /// Runs it; it must succeed and warn of nothing.
    fn good(&self, arguments: &[&str], input: &str) {
        let output = self.run(arguments, input);
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && !told.contains("Warning"), "{arguments:?}: {told}");
    }

    /// Would the server take these objects?
    fn takes(&self, objects: &[Value]) {
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": objects });
        self.good(
            &["apply", "--server-side", "--dry-run=server", "--validate=strict", "--filename=-"],
            &list.to_string(),
        );
    }

    /// Whether the agent's account may do this.
    async fn may(&self, verb: &str, resource: &str, namespace: &str) -> bool {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let (resource, group) = resource.split_once('.').unwrap_or((resource, ""));
        let attributes = json!({
            "verb": verb, "group": group, "resource": resource, "subresource": subresource, "namespace": namespace
        });
        let user = "system:serviceaccount:meshscrape:meshscrape";
        let review = json!({ "metadata": {}, "spec": { "user": user, "resourceAttributes": attributes } });
        let review = serde_json::from_value(review).expect("a review");
        let reviews = Api::<SubjectAccessReview>::all(self.admin.clone());
        reviews.create(&PostParams::default(), &review).await.expect("an answer").status.expect("a verdict").allowed
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_api_server_takes_every_overlay_and_chart() {
    let kubectl = Kubectl::start().await;
    for name in OVERLAYS {
        let (namespaces, objects): (Vec<_>, Vec<_>) =
            overlay(name).into_iter().partition(|object| object["kind"] == "Namespace");
        for namespace in namespaces {
            kubectl.good(&["apply", "--server-side", "--filename=-"], &namespace.to_string());
        }
        kubectl.takes(&objects);
    }
    for (_, values) in super::helm::variants() {
        kubectl.takes(&super::rendered::chart(&values));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_are_within_what_pod_security_calls_restricted() {
    let kubectl = Kubectl::start().await;
    let labels = json!({ "pod-security.kubernetes.io/enforce": "restricted" });
    let namespace =
        json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "strict", "labels": labels } });
    kubectl.good(&["apply", "--filename=-"], &namespace.to_string());
    let as_pod = |objects: &[Value], change: &dyn Fn(&mut Value)| {
        let mut spec = pod(objects).clone();
        // The class is not in this cluster.
        spec.as_object_mut().expect("a pod").remove("priorityClassName");
        change(&mut spec);
        let labels = &workload(objects)["spec"]["template"]["metadata"]["labels"];
        let metadata = json!({ "name": "agent", "namespace": "strict", "labels": labels });
        json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec }).to_string()
    };
    let create = ["create", "--dry-run=server", "--validate=strict", "--filename=-"];
    for name in OVERLAYS {
        kubectl.good(&create, &as_pod(&overlay(name), &|_| {}));
    }

    // What Istio without its CNI plugin would add, and why the default namespace only warns.
    let istio_init = json!([{
        "name": "istio-init",
        "image": "proxyv2",
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "runAsNonRoot": false,
            "runAsUser": 0,
            "capabilities": { "add": ["NET_ADMIN", "NET_RAW"], "drop": ["ALL"] }
        }
    }]);
    let refused = kubectl.run(&create, &as_pod(&overlay("istio"), &|spec| spec["initContainers"] = istio_init.clone()));
    let told = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && told.contains("istio-init"), "{told}");
}

/// What the agents' own sidecars offer is in order: injected as Istio does it, their pods leave an audit nothing to find.
#[tokio::test(flavor = "multi_thread")]
async fn an_audit_finds_nothing_on_the_agents_own_pods() {
    let kubectl = Kubectl::start().await;
    let objects = overlay("istio");
    kubectl.good(&["apply", "--filename=-"], &object(&objects, "ServiceAccount", "meshscrape").to_string());
    let mut agent = workload(&objects)["spec"]["template"].clone();
    agent["apiVersion"] = "v1".into();
    agent["kind"] = "Pod".into();
    agent["metadata"]["name"] = "agent".into();
    agent["metadata"]["namespace"] = "meshscrape".into();
    // The class is not in this cluster.
    agent["spec"].as_object_mut().expect("a pod").remove("priorityClassName");
    // The injector makes variables of proxyMetadata, and an annotation of the merged port.
    let annotations = &mut agent["metadata"]["annotations"];
    let metadata = documents(text(&annotations["proxy.istio.io/config"])).remove(0)["proxyMetadata"].take();
    annotations["prometheus.istio.io/secure-port"] = metadata["ENVOY_SECURE_MERGED_METRICS_PORT"].clone();
    let variables = metadata.as_object().expect("variables").iter();
    let env: Vec<_> = variables.map(|(name, value)| json!({ "name": name, "value": value })).collect();
    agent["spec"]["initContainers"] =
        json!([{ "name": "istio-proxy", "image": "proxyv2", "restartPolicy": "Always", "env": env }]);
    kubectl.good(&["create", "--filename=-"], &agent.to_string());
    let running = json!({ "status": { "phase": "Running", "podIP": "10.0.0.7", "podIPs": [{ "ip": "10.0.0.7" }] } });
    let patch = ["patch", "pod/agent", "--namespace=meshscrape", "--subresource=status", "--type=merge", "--patch"];
    kubectl.good(&[&patch[..], &[&running.to_string()]].concat(), "");

    let audit = Command::new(env!("CARGO_BIN_EXE_meshscrape"))
        .args(["audit", "--namespace=meshscrape", "--no-connect", "--fail-on=note", "--output=json", "--kubeconfig"])
        .arg(kubectl.dir.path().join("config"))
        .output()
        .expect("the program runs");
    let told = String::from_utf8_lossy(&audit.stderr);
    let report: Value = serde_json::from_slice(&audit.stdout).unwrap_or_else(|error| panic!("{error}: {told}"));
    assert_eq!(report["pods"].as_array().map(Vec::len), Some(1), "{report}");
    assert_eq!(report["pods"][0]["findings"], json!([]));
    assert_eq!(audit.status.code(), Some(0), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_may_read_pods_and_do_nothing_else() {
    let kubectl = Kubectl::start().await;
    let verbs = ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"];
    let resources = [
        "pods",
        "pods/log",
        "pods/exec",
        "pods/portforward",
        "pods/status",
        "secrets",
        "configmaps",
        "nodes",
        "nodes/proxy",
        "nodes/metrics",
        "services",
        "endpoints",
        "endpointslices.discovery.k8s.io",
        "ingresses.networking.k8s.io",
        "namespaces",
        "replicasets.apps",
        "jobs.batch",
        "serviceaccounts/token",
        "certificaterequests.cert-manager.io",
    ];
    let read = ["get", "list", "watch"];
    let wide = [
        "pods",
        "nodes",
        "services",
        "endpoints",
        "endpointslices.discovery.k8s.io",
        "ingresses.networking.k8s.io",
        "namespaces",
        "replicasets.apps",
        "jobs.batch",
    ];
    for name in ["istio", "wide-jobs", "namespaced", "cert-manager"] {
        let objects = overlay(name);
        let rights: Vec<_> =
            objects.iter().filter(|object| object["rules"].is_array() || object["roleRef"].is_object()).collect();
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": rights }).to_string();
        kubectl.good(&["apply", "--server-side", "--filename=-"], &list);
        eventually("the rights are known", async || kubectl.may("list", "pods", "shop").await.then_some(())).await;
        for namespace in ["shop", "meshscrape"] {
            for resource in resources {
                for verb in verbs {
                    let expected = match (name, resource, verb) {
                        ("namespaced", "pods", verb) => read.contains(&verb) && namespace == "shop",
                        ("cert-manager", "certificaterequests.cert-manager.io", verb) => {
                            verb == "create" && namespace == "meshscrape"
                        }
                        ("wide-jobs", resource, verb) => read.contains(&verb) && wide.contains(&resource),
                        (_, "pods", verb) => read.contains(&verb),
                        _ => false,
                    };
                    let may = kubectl.may(verb, resource, namespace).await;
                    assert_eq!(may, expected, "{name}: {verb} {resource} in {namespace}");
                }
            }
        }
        kubectl.good(&["delete", "--filename=-"], &list);
        eventually("the rights are gone", async || (!kubectl.may("list", "pods", "shop").await).then_some(())).await;
    }
}

/// The commands that the comments of the patches give, as they stand.
#[tokio::test(flavor = "multi_thread")]
async fn the_commands_of_the_patches_work() {
    let kubectl = Kubectl::start().await;
    let httpbin = folder().join("workloads/httpbin.yaml");
    kubectl.good(&["apply", "--namespace=default", "--filename", &httpbin.display().to_string()], "");
    let template = json!({
        "metadata": { "labels": { "app": "istio-ingressgateway" } },
        "spec": { "containers": [{ "name": "istio-proxy", "image": "proxyv2" }] }
    });
    let gateway = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": { "name": "istio-ingressgateway", "namespace": "istio-system" },
        "spec": { "selector": { "matchLabels": { "app": "istio-ingressgateway" } }, "template": template }
    });
    let api_gateway = json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": { "name": "httpbin", "namespace": "default" },
        "spec": { "gatewayClassName": "istio", "listeners": [{ "name": "http", "port": 80, "protocol": "HTTP" }] }
    });
    for object in [gateway, api_gateway] {
        kubectl.good(&["apply", "--filename=-"], &object.to_string());
    }

    let mut ran = 0;
    for file in std::fs::read_dir(folder().join("workloads")).expect("the patches") {
        let file = file.expect("a file").path();
        for command in applied(&file) {
            let command = command.replace("NAMESPACE", "default").replace("NAME", "httpbin");
            // Before a pipe stands what names the object in the file.
            let (command, input) = match command.split_once(" | ") {
                Some((_, command)) => {
                    (command, std::fs::read_to_string(&file).expect("a file").replace("NAME", "httpbin"))
                }
                None => (command.as_str(), String::new()),
            };
            let mut words: Vec<_> = command.split_whitespace().skip(1).collect();
            words.push("--dry-run=server");
            kubectl.good(&words, &input);
            ran += 1;
        }
    }
    assert!(ran >= 10, "{ran} commands");
}

/// The commands under "Apply" of a file's comment that change objects.
fn applied(file: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(file).expect("a patch");
    let lines = text.lines().map_while(|line| line.strip_prefix('#'));
    let steps = lines.skip_while(|line| !line.starts_with(" Apply ")).take_while(|line| !line.starts_with(" Verify "));
    let commands = steps.map(|line| line.trim_start_matches(" Apply").trim_start());
    let changes =
        |command: &&str| ["kubectl patch ", "kubectl apply ", "sed "].iter().any(|begin| command.starts_with(begin));
    commands.filter(changes).map(str::to_owned).collect()
}

/// The right patch leaves the container as it was, and adds the variables.
#[tokio::test(flavor = "multi_thread")]
async fn the_gateways_own_variables_stay() {
    let kubectl = Kubectl::start().await;
    let container = json!({ "name": "istio-proxy", "image": "proxyv2", "env": [{ "name": "OWN", "value": "1" }] });
    let deployment = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": { "name": "istio-ingressgateway", "namespace": "istio-system" },
        "spec": {
            "selector": { "matchLabels": { "app": "gateway" } },
            "template": { "metadata": { "labels": { "app": "gateway" } }, "spec": { "containers": [container] } }
        }
    });
    kubectl.good(&["apply", "--filename=-"], &deployment.to_string());
    let command = applied(&folder().join("workloads/ingress-gateway.patch.yaml")).remove(0);
    let mut words: Vec<_> = command.split_whitespace().skip(1).collect();
    words.push("--output=json");
    let patched: Value = serde_json::from_slice(&kubectl.run(&words, "").stdout).expect("JSON");
    let patched = [patched];
    let container =
        &object(&patched, "Deployment", "istio-ingressgateway")["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["image"], "proxyv2");
    let mut names: Vec<_> = container["env"].as_array().expect("env").iter().map(|v| text(&v["name"])).collect();
    names.sort_unstable();
    assert_eq!(names, ["ENVOY_SECURE_MERGED_METRICS_PORT", "ENVOY_SECURE_METRICS_PORT", "OWN"]);
}
