//! The commands of "getting started" that change a cluster, run by a shell in their order against a real API server, and what
//! they leave there.
//!
//! No kubelet and no Istio is here: what waits for pods, asks them, or builds an image does nothing.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::Kubectl;
use crate::deploy::rendered::{container, folder, named, object, text};
use crate::support::process;

/// What stands in for programs that are not here, and for what needs pods.
const STUBS: &str = r#"
podman() { :; }
meshscrape() { :; }
sleep() { :; }
istioctl() { echo '15091 15092'; }
kubectl() {
  case " $* " in
  *" rollout "* | *" exec "* | *" port-forward "* | *" get pod"*) ;;
  *" delete "*) command kubectl "--cache-dir=$CACHE" "$@" --wait=false ;;
  *) command kubectl "--cache-dir=$CACHE" "$@" ;;
  esac
}
"#;

impl Kubectl {
    /// Runs what stands between two texts of the page.
    fn follows(&self, page: &str, from: &str, until: &str) {
        let (_, rest) = page.split_once(from).unwrap_or_else(|| panic!("{from:?} in the page"));
        let (part, _) = rest.split_once(until).unwrap_or_else(|| panic!("{until:?} in the page"));
        let blocks = part.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
        let script = format!("set -eu\n{STUBS}{}", blocks.collect::<String>());
        let kubectl = process::find("kubectl");
        let beside = kubectl.parent().expect("a directory").display();
        let shell = Command::new("bash")
            .args(["-c", &script])
            .current_dir(self.dir.path())
            .env("PATH", format!("{beside}:{}", std::env::var("PATH").expect("PATH")))
            .env("KUBECONFIG", self.dir.path().join("config"))
            .env("CACHE", self.dir.path().join("cache"))
            .stdin(Stdio::null())
            .output()
            .expect("bash runs");
        let told = String::from_utf8_lossy(&shell.stderr);
        assert!(shell.status.success() && !told.contains("Warning"), "{script}\n{told}");
    }

    /// The objects of these kinds that are not being deleted, in all namespaces.
    fn kept(&self, kinds: &str) -> Vec<Value> {
        let output = self.run(&["get", kinds, "--all-namespaces", "--output=json"], "");
        let list: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let items = list["items"].as_array().expect("items").iter().cloned();
        items.filter(|object| object["metadata"]["deletionTimestamp"].is_null()).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_as_before_once_it_is_all_taken_away() {
    let page = std::fs::read_to_string(folder().join("../docs/getting-started.md")).expect("the page");
    let kubectl = Kubectl::start_with(&[]).await;
    std::os::unix::fs::symlink(folder(), kubectl.dir.path().join("deploy")).expect("a link");
    // Bookinfo runs already.
    for name in ["productpage-v1", "details-v1", "ratings-v1", "reviews-v1", "reviews-v2", "reviews-v3"] {
        kubectl.good(&["create", "deployment", name, "--image=bookinfo"], "");
    }
    let before = names(&kubectl, "namespaces,clusterroles,clusterrolebindings,priorityclasses");

    kubectl.follows(&page, "## 1. The image\n", "To take it all away again");
    let objects = kubectl.kept("daemonsets,deployments,networkpolicies,namespaces");
    assert_eq!(container(&objects)["image"], "registry.example/team/meshscrape:0.1.0");
    assert_eq!(object(&objects, "Deployment", "prometheus")["metadata"]["namespace"], "monitoring");
    let httpbin = &object(&objects, "Deployment", "httpbin")["spec"]["template"];
    let annotations = &httpbin["metadata"]["annotations"];
    assert!(text(&annotations["proxy.istio.io/config"]).contains("ENVOY_SECURE_MERGED_METRICS_PORT"));
    assert_eq!(annotations["traffic.sidecar.istio.io/excludeInboundPorts"], "15091,15092");
    assert_eq!(object(&objects, "Namespace", "try")["metadata"]["labels"]["istio-injection"], "enabled");
    let client = &object(&objects, "Deployment", "client")["spec"]["template"]["spec"];
    assert_eq!(named(&client["containers"], "curl")["command"], json!(["sleep", "infinity"]), "what exec names");
    for name in ["productpage-v1", "reviews-v3"] {
        let annotations = &object(&objects, "Deployment", name)["spec"]["template"]["metadata"]["annotations"];
        assert_eq!(annotations["prometheus.istio.io/secure-envoy-port"], "15091", "{name}");
    }

    kubectl.follows(&page, "To take it all away again", "Only if step 3 made the namespace");
    let left = names(&kubectl, "namespaces");
    assert!(left.contains(&"Namespace monitoring".to_owned()), "it may be somebody else's: {left:?}");
    kubectl.follows(&page, "Only if step 3 made the namespace", "## Without a cluster");
    assert_eq!(names(&kubectl, "namespaces,clusterroles,clusterrolebindings,priorityclasses"), before);
}

fn names(kubectl: &Kubectl, kinds: &str) -> Vec<String> {
    let mut names = crate::deploy::rendered::names(&kubectl.kept(kinds));
    names.sort();
    names
}
