//! The audit says the right thing of each pod, asks nothing that it need not, and its forms and exit codes hold.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::Output;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::printed;
use super::town::{MERGED, Town};
use crate::support::agent::eventually;
use crate::support::ca::Ca;
use crate::support::kubernetes::{Cluster, Namespace, pod};
use crate::support::loopback;
use crate::support::mesh::{Mesh, ONLY_13};
use crate::support::program::Program;
use crate::support::tls_server::{Reply, Server, Talk, always};

/// What is found on each pod of the town: IDs with the port they are about.
const EXPECTED: &[(&str, &[(&str, u16)])] = &[
    ("agent", &[]),
    ("ambient", &[("MS017", 0)]),
    ("closed", &[("MS014", 15092)]),
    ("disabled", &[]),
    ("edge", &[("MS002", 15092)]),
    ("elsewhere", &[("MS003", 0)]),
    ("envoy-only", &[]),
    ("estranged", &[("MS014", 15092)]),
    ("excluded", &[]),
    ("expired", &[("MS012", 15092)]),
    ("foreign-mesh", &[("MS011", 15092)]),
    ("hardened", &[]),
    ("impostor", &[("MS011", 15092)]),
    ("ingress", &[]),
    ("legacy", &[("MS015", 15091), ("MS016", 15091)]),
    ("legacy-edge", &[("MS015", 15091)]),
    ("listed", &[("MS009", 15092)]),
    ("makeshift", &[("MS004", 15092), ("MS014", 15092), ("MS016", 15092)]),
    ("native", &[("MS006", 0)]),
    ("odd", &[("MS003", 0)]),
    ("off", &[("MS001", 0), ("MS007", 15020), ("MS007", 15090)]),
    ("on-node", &[("MS010", 15092), ("MS018", 0)]),
    ("open", &[("MS005", 15020), ("MS007", 15020), ("MS007", 15090)]),
    ("overdue", &[("MS013", 15092)]),
    ("shut", &[("MS004", 15092)]),
    ("stale", &[("MS004", 15092)]),
    ("starting", &[("MS014", 15092)]),
    ("strict", &[("MS009", 15092)]),
    ("unmerged", &[]),
    ("unusual", &[("MS018", 16092)]),
    ("vague", &[("MS018", 0), ("MS018", 0), ("MS018", 0)]),
    ("waiting", &[("MS010", 15092), ("MS018", 0)]),
    ("waypoint", &[]),
    ("ztunnel", &[("MS007", 15020)]),
];

/// Why a scrape would fail, where one does.
const REASONS: &[(&str, &str)] = &[
    ("closed", "connect_refused"),
    ("estranged", "client_certificate_rejected"),
    ("expired", "certificate_expired"),
    ("foreign-mesh", "unknown_authority"),
    ("impostor", "identity_mismatch"),
    ("starting", "closed_in_handshake"),
    ("strict", "closed_after_handshake"),
];

/// A namespace, and an account that may list its pods and nothing else.
struct Stage {
    cluster: &'static Cluster,
    shop: Namespace,
    dir: TempDir,
    /// Of the account.
    kubeconfig: String,
    user: String,
}

impl Stage {
    async fn new() -> Self {
        let cluster = Cluster::shared().await;
        let (shop, dir) = (cluster.own_namespace("shop").await, TempDir::new().expect("a directory"));
        let (kubeconfig, user) = reader(cluster, &shop, &dir).await;
        Self { cluster, shop, dir, kubeconfig, user }
    }
}

/// A kubeconfig of an account that may list pods of this namespace, and nothing else.
async fn reader(cluster: &Cluster, shop: &Namespace, dir: &TempDir) -> (String, String) {
    let account = shop.account("auditor").await;
    shop.allow(cluster, &account, json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}])).await;
    let file = dir.path().join(shop.name());
    cluster.kubeconfig(&file, &cluster.url(), &shop.token(&account).await);
    (file.display().to_string(), account.user())
}

async fn audit(arguments: &[&str]) -> Output {
    Program::start(&[&["audit"], arguments].concat()).end().await
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

fn findings(pod: &Value) -> Vec<(&str, u16)> {
    let findings = pod["findings"].as_array().expect("a list").iter();
    let port = |finding: &Value| finding["port"].as_u64().map_or(0, |port| u16::try_from(port).expect("a port"));
    findings.map(|finding| (finding["id"].as_str().expect("an ID"), port(finding))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_pod_is_found_as_it_is() {
    let (town, dir) = (Town::new().await, TempDir::new().expect("a directory"));
    let (kubeconfig, user) = reader(town.cluster, &town.shop, &dir).await;
    let certs = town.mesh.certs.path().display().to_string();
    let fixed = [
        "-n",
        town.shop.name(),
        "--kubeconfig",
        &kubeconfig,
        "--certs-dir",
        &certs,
        "--timeout",
        "30s",
        "--pod-cidr",
        "127.0.0.0/8",
    ];
    let output = audit(&[&fixed, &["--output", "json"][..]].concat()).await;
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let pods: BTreeMap<&str, &Value> = document["pods"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|pod| (pod["name"].as_str().expect("a name"), pod))
        .collect();
    let found: Vec<_> = pods.iter().map(|(name, pod)| (*name, findings(pod))).collect();
    let expected: Vec<_> = EXPECTED.iter().map(|(name, ids)| (*name, ids.to_vec())).collect();
    assert_eq!(found, expected, "{document:#}");
    for (name, reason) in REASONS {
        assert_eq!(pods[name]["findings"][0]["reason"], *reason, "{name}");
    }
    assert_eq!(pods["legacy"]["findings"][0]["fix"].as_str().map(|fix| fix.contains("__alpn__")), Some(true));
    // What to change follows what the pod comes from, and how its ports are captured.
    for (name, workload, fix) in [
        ("strict", json!("statefulset/strict"), "kubectl patch statefulset strict -n "),
        ("edge", json!("gateway/edge"), "kubectl patch gateway.gateway.networking.k8s.io edge -n "),
        ("stale", json!(null), "in the pod template, add ENVOY_SECURE_MERGED_METRICS_PORT: \"15092\""),
        (
            "listed",
            json!("statefulset/listed"),
            "in the pod template, take 15091,15092 out of the annotation traffic.sidecar.istio.io/includeInboundPorts",
        ),
        ("unusual", json!("statefulset/unusual"), "give --port 16092 "),
    ] {
        let pod = pods[name];
        let found = pod["findings"][0]["fix"].as_str().unwrap_or_default();
        assert!(pod["workload"] == workload && found.starts_with(fix), "{pod:#}");
    }
    assert_eq!(pods["unmerged"]["workload"], "deployment/unmerged");
    let role = |name: &str| pods[name]["role"].as_str().unwrap_or_default();
    let roles = ["hardened", "native", "edge", "waypoint", "ztunnel", "ambient"].map(role);
    assert_eq!(roles, ["sidecar", "sidecar", "gateway", "waypoint", "ztunnel", "ambient"]);
    let summary = &document["summary"];
    assert_eq!(
        (&summary["listed"], &summary["meshed"], &summary["foreign"], &summary["finished"], &summary["leaving"]),
        (&json!(37), &json!(34), &json!(1), &json!(1), &json!(1))
    );
    let secured: Vec<&str> = pods.iter().filter(|(_, pod)| pod["secured"] == true).map(|(name, _)| *name).collect();
    let wanted = [
        "agent",
        "disabled",
        "envoy-only",
        "excluded",
        "hardened",
        "ingress",
        "legacy-edge",
        "native",
        "unmerged",
        "waypoint",
    ];
    assert_eq!(secured, wanted);
    assert_eq!(summary["secured"], secured.len());
    assert_eq!(
        (&document["version"], &document["connected"], &document["complete"]),
        (&json!(1), &json!(true), &json!(true))
    );

    let bystander = town.bystander.as_ref().expect("it is there").connections();
    assert_eq!(bystander, 0, "an annotation sends nobody to a port of its own");
    let asked: Vec<_> = town.cluster.asked().into_iter().filter(|asked| asked.user == user).collect();
    assert!(
        !asked.is_empty() && asked.iter().all(|asked| asked.verb == "list" && asked.uri.contains("/pods?")),
        "{asked:?}"
    );

    // The same as a table, with one more port that may be asked, and what makes the exit code.
    let output = audit(&[&fixed, &["--fail-on", "error", "--port", "16092"][..]].concat()).await;
    let table = text(&output.stdout).replace(town.shop.name(), "shop");
    assert_eq!(output.status.code(), Some(1), "{table}");
    assert!(
        table.contains("34 of 37 pods are in the mesh, 11 secured; ")
            && table.contains("\nleft out: 1 outside the mesh, "),
        "{table}"
    );
    assert!(table.find("error ") < table.find("warning ") && table.find("warning ") < table.find("note "), "{table}");
    // What the document shows of it was printed, in this order.
    let shown = printed("meshscrape audit -n shop");
    let (entries, end) = shown.rsplit_once("...\n").expect("an excerpt");
    assert_eq!(end, "");
    let mut shown: Vec<String> = Vec::new();
    for line in entries.lines() {
        match shown.last_mut() {
            Some(entry) if line.starts_with(' ') => entry.push_str(&format!("{line}\n")),
            _ => shown.push(format!("{line}\n")),
        }
    }
    assert!(shown.len() > 3, "{shown:?}");
    let mut rest = table.as_str();
    for entry in shown {
        let at = rest.find(&entry);
        let at = at.unwrap_or_else(|| panic!("docs/audit.md shows what is not printed there:\n{entry}\nin\n{rest}"));
        rest = &rest[at + entry.len()..];
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_connections_the_api_server_says_what_it_can() {
    let Stage { cluster, shop, dir: _dir, kubeconfig, user } = Stage::new().await;
    let proxy = json!({"name": "istio-proxy", "image": "proxy:1", "args": ["proxy", "sidecar"]});
    let replica = |name: &str| {
        let owned = pod(name).account("cart").owned_by("apps/v1", "ReplicaSet", "cart-5d7c9");
        owned.label("pod-template-hash", "5d7c9").container(proxy.clone()).running("192.0.2.1")
    };
    shop.create_pods(["cart-5d7c9-a", "cart-5d7c9-b", "cart-5d7c9-c"].map(replica)).await;
    // More than come in one answer.
    shop.create_pods((0..500).map(|number| pod(&format!("foreign-{number}")))).await;
    let fixed = ["-n", shop.name(), "--kubeconfig", &kubeconfig, "--no-connect"];

    let output = audit(&fixed).await;
    let expected = format!(
        "error    MS001  {ns}/cart-5d7c9-a and 2 more of deployment/cart
         no secure metrics port is open
         fix: open the port and name it: kubectl patch deployment cart -n {ns} -p '{{\"spec\":{{\"template\":{{\"metadata\":\
         {{\"annotations\":{{\"prometheus.istio.io/secure-port\":\"15092\",\"proxy.istio.io/config\":\"proxyMetadata: \
         {{ENVOY_SECURE_MERGED_METRICS_PORT: \\\"15092\\\"}}\"}}}}}}}}}}'
note     MS008  {ns}/cart-5d7c9-a and 2 more of deployment/cart
         the proxy does not restrict its plaintext ports 15020 and 15090
         fix: in the pod template, add METRICS_LOCALHOST_ACCESS_ONLY: \"true\" to the proxyMetadata of proxy.istio.io/config

3 of 503 pods are in the mesh; 3 errors, 0 warnings, 3 notes
left out: 500 outside the mesh
commands name the owner that the pod claims to have: look at it before you run one
no port was asked (--no-connect): this is what the API server says
",
        ns = shop.name()
    );
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(1), expected), "{}", text(&output.stderr));
    let asked: Vec<_> = cluster.asked().into_iter().filter(|asked| asked.user == user).collect();
    assert!(asked.len() == 2 && asked.iter().all(|asked| asked.uri.contains("limit=500")), "{asked:?}");

    let output = audit(&[&fixed, &["--output", "sarif"][..]].concat()).await;
    let log: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let run = &log["runs"][0];
    assert_eq!((&log["version"], &run["tool"]["driver"]["name"]), (&json!("2.1.0"), &json!("meshscrape")));
    let rules = run["tool"]["driver"]["rules"].as_array().expect("rules");
    let results = run["results"].as_array().expect("results");
    assert_eq!(results.len(), 6);
    for result in results {
        let rule = &rules[usize::try_from(result["ruleIndex"].as_u64().expect("an index")).expect("a small one")];
        assert_eq!((&rule["id"], &rule["defaultConfiguration"]["level"]), (&result["ruleId"], &result["level"]));
        let place = &result["locations"][0]["logicalLocations"][0]["fullyQualifiedName"];
        assert!(place.as_str().is_some_and(|place| place.starts_with(&format!("{}/cart-5d7c9-", shop.name()))));
        assert!(result["message"]["text"].as_str().is_some_and(|text| text.contains("Fix: ")));
    }
    let page = include_str!("../../../../docs/audit.md");
    for rule in rules {
        let (id, name) = (rule["id"].as_str().expect("an ID"), rule["name"].as_str().expect("a name"));
        let (level, when) = (&rule["defaultConfiguration"]["level"], &rule["shortDescription"]["text"]);
        let row = format!(
            "| {id} | `{name}` | {} | {} |",
            level.as_str().expect("a level"),
            when.as_str().expect("a sentence")
        );
        assert!(page.contains(&row), "docs/audit.md lacks this row:\n{row}");
        for text in ["shortDescription", "fullDescription", "help"] {
            assert!(rule[text]["text"].as_str().is_some_and(|text| text.ends_with('.')), "{rule}");
        }
    }

    let everywhere = ["--all", "--kubeconfig", &kubeconfig, "--no-connect"];
    let output = audit(&everywhere).await;
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{error}");
    assert!(error.contains("does not let us list pods in all namespaces"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_called_good_that_was_not_asked_in_time() {
    let Stage { cluster, shop, dir, kubeconfig, .. } = Stage::new().await;
    let mesh = Mesh::new(ONLY_13).await;
    let ip = loopback();
    let hanging = Server::start_at((ip, 15092).into(), Talk::HangBeforeHandshake);
    let env = json!([
        {"name": "ENVOY_SECURE_MERGED_METRICS_PORT", "value": "15092"},
        {"name": "METRICS_LOCALHOST_ACCESS_ONLY", "value": "true"},
    ]);
    let proxy = json!({"name": "istio-proxy", "image": "proxy:1", "args": ["proxy", "router"], "env": env});
    let edge = pod("edge").with(json!({"spec": {"containers": [proxy]}}));
    shop.create_pod(edge.annotation(MERGED, "15092").running(&ip.to_string())).await;
    let certs = mesh.certs.path().display().to_string();
    let fixed = ["-n", shop.name(), "--kubeconfig", &kubeconfig, "--certs-dir", &certs, "--output", "json"];
    // Where nobody is, nothing is secured.
    let (quiet, ghost) = (cluster.own_namespace("quiet").await, format!("{}-typo", shop.name()));
    let (reads_quiet, _) = reader(cluster, &quiet, &dir).await;
    quiet.create_pod(pod("foreign")).await;
    let admin = dir.path().join("admin");
    cluster.kubeconfig(&admin, &cluster.url(), cluster.admin_token());
    let admin = admin.display().to_string();
    for (namespace, kubeconfig, says) in [
        (quiet.name(), &reads_quiet, "has no pod of the mesh that runs"),
        (ghost.as_str(), &admin, "has no pods, or does not exist"),
    ] {
        let empty = ["-n", namespace, "--kubeconfig", kubeconfig, "--certs-dir", &certs];
        let output = audit(&empty).await;
        let (table, error) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(3), "{error}");
        assert!(error.contains(&format!("namespace {namespace} {says}")) && error.contains("--allow-empty"), "{error}");
        assert!(table.contains(" pods are in the mesh; 0 errors") && !table.contains("secured"), "{table}");
        let output = audit(&[&empty, &["--allow-empty"][..]].concat()).await;
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
        for (more, code, done) in [(&[][..], 3, false), (&["--allow-empty"], 0, true)] {
            let output = audit(&[&empty[..], &["--output", "sarif"], more].concat()).await;
            let log: Value = serde_json::from_slice(&output.stdout).expect("JSON");
            assert_eq!(output.status.code(), Some(code));
            assert_eq!(log["runs"][0]["invocations"][0]["executionSuccessful"], done);
        }
    }
    // No pod is on a loopback address, unless somebody says so.
    let output = audit(&fixed).await;
    let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((output.status.code(), findings(&document["pods"][0])), (Some(0), vec![("MS018", 0)]), "{document:#}");
    let message = document["pods"][0]["findings"][0]["message"].as_str().unwrap_or_default();
    assert!(message.contains("a loopback address"), "{message}");
    // It is a note, and no pod is secured for it.
    assert_eq!(
        (&document["summary"]["meshed"], &document["summary"]["secured"]),
        (&json!(1), &json!(0)),
        "{document:#}"
    );
    assert_eq!(audit(&[&fixed, &["--fail-on", "note"][..]].concat()).await.status.code(), Some(1));
    assert_eq!(hanging.connections(), 0);

    let there = ["--pod-cidr", "127.0.0.0/8", "--timeout", "1h", "--time-limit", "1s"];
    let output = audit(&[&fixed, &there[..]].concat()).await;
    let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((output.status.code(), &document["complete"]), (Some(3), &json!(false)), "{document:#}");
    assert_eq!(findings(&document["pods"][0]), [("MS018", 0)], "{document:#}");
    assert_eq!(hanging.connections(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plaintext_port_that_nobody_answers_on_is_given_up() {
    let Stage { shop, dir: _dir, kubeconfig, .. } = Stage::new().await;
    let mesh = Mesh::new(ONLY_13).await;
    // One address for all: who is there does not matter.
    let ip = loopback();
    let silent = Server::start_at((ip, 15020).into(), Talk::HangBeforeHandshake);
    let proxy = json!({"name": "istio-proxy", "image": "proxy:1", "args": ["proxy", "sidecar"]});
    let sidecar = |number: usize| pod(&format!("cart-{number}")).container(proxy.clone()).running(&ip.to_string());
    shop.create_pods((0..12).map(sidecar)).await;
    let certs = mesh.certs.path().display().to_string();
    let fixed = ["-n", shop.name(), "--kubeconfig", &kubeconfig, "--certs-dir", &certs, "--pod-cidr", "127.0.0.0/8"];
    let slowly = ["--timeout", "300ms", "--parallel", "1"];
    let output = audit(&[&fixed[..], &slowly, &["--output", "json"]].concat()).await;
    let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(document["givenUp"], json!([15020]), "{document:#}");
    assert_eq!(silent.connections(), 8, "the other port, on which it is refused, is asked to the end");
    for pod in document["pods"].as_array().expect("a list") {
        assert_eq!(findings(pod), [("MS001", 0), ("MS008", 0), ("MS018", 15020)], "nobody is called secured");
    }
    let table = text(&audit(&[&fixed[..], &slowly].concat()).await.stdout);
    assert!(!table.contains("note     MS018"), "{table}");
    assert!(
        table.contains(
            "\nnot seen (MS018): whether port 15020 of 12 pods gives metrics in plain text: 8 of a namespace"
        ),
        "{table}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_may_have_an_address_of_ipv6() {
    // A machine without it has no such pods.
    let Ok(listener) = std::net::TcpListener::bind((Ipv6Addr::LOCALHOST, 0)) else { return };
    let cluster = Cluster::shared().await;
    let (shop, dir) = (cluster.own_namespace("shop").await, TempDir::new().expect("a directory"));
    let kubeconfig = dir.path().join("kubeconfig");
    cluster.kubeconfig(&kubeconfig, &cluster.url(), cluster.admin_token());
    let mesh = Mesh::new(ONLY_13).await;
    let tls = mesh.tls(&mesh.ca.leaf(&format!("spiffe://cluster.local/ns/{}/sa/cart", shop.name())));
    let cart = Server::on(listener, Talk::Tls(tls, always(Reply::ok("merged 1\n"))));
    let port = cart.port().to_string();
    let env = json!([
        {"name": "ENVOY_SECURE_MERGED_METRICS_PORT", "value": port},
        {"name": "METRICS_LOCALHOST_ACCESS_ONLY", "value": "true"},
    ]);
    let proxy = json!({"name": "istio-proxy", "image": "proxy:1", "args": ["proxy", "sidecar"], "env": env});
    shop.create_pod(pod("cart").account("cart").container(proxy).annotation(MERGED, &port).running("::1")).await;
    let (kubeconfig, certs) = (kubeconfig.display().to_string(), mesh.certs.path().display().to_string());
    let fixed = ["-n", shop.name(), "--kubeconfig", &kubeconfig, "--certs-dir", &certs, "--port", &port];
    let fixed = [&fixed[..], &["--pod-cidr", "::1/128", "--timeout", "30s", "--output", "json"]].concat();
    let output = audit(&fixed).await;
    let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let found = &document["pods"][0];
    assert_eq!((&found["address"], &found["secured"]), (&json!("::1"), &json!(true)), "{document:#}");
    let output = Program::start(&[&["verify", "pod/cart"], &fixed[..]].concat()).end().await;
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_that_rotate_meanwhile_are_the_ones_that_count() {
    let Stage { shop, dir: _dir, kubeconfig, .. } = Stage::new().await;
    let mesh = Mesh::new(ONLY_13).await;
    let renewed = Ca::new("cluster.local");
    let proxy = json!({
        "name": "istio-proxy", "image": "proxy:1", "args": ["proxy", "router"],
        "env": [{"name": "ENVOY_SECURE_MERGED_METRICS_PORT", "value": "15092"}],
    });
    let (first, second) = (loopback(), loopback());
    let edge = |name: &str, ip: Ipv4Addr| {
        let made = pod(name).account("edge").with(json!({"spec": {"containers": [proxy]}}));
        made.annotation(MERGED, "15092").running(&ip.to_string())
    };
    shop.create_pods([edge("edge-1", first), edge("edge-2", second)]).await;
    // Its certificate has a root that is not there yet; ours stays what it is.
    let leaf = renewed.leaf(&format!("spiffe://cluster.local/ns/{}/sa/edge", shop.name()));
    let script = always(Reply::ok("merged 1\n"));
    let _second = Server::start_at((second, 15092).into(), Talk::Tls(mesh.tls(&leaf), script));
    let hanging = Server::start_at((first, 15092).into(), Talk::HangBeforeHandshake);

    let certs = mesh.certs.path().display().to_string();
    let fixed = ["audit", "-n", shop.name(), "--kubeconfig", &kubeconfig, "--certs-dir", &certs, "--output", "json"];
    let slowly = ["--pod-cidr", "127.0.0.0/8", "--parallel", "1", "--timeout", "1h"];
    let program = Program::start(&[&fixed[..], &slowly].concat());
    hanging.hanging().await;
    mesh.certs.write_roots(&[&renewed]);
    eventually("the new root is read", async || program.said().contains("peers may refuse us").then_some(())).await;
    drop(hanging);
    let output = program.end().await;
    let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let found = document["pods"].as_array().expect("a list").iter().map(findings).collect::<Vec<_>>();
    assert_eq!(found, [vec![("MS008", 0), ("MS014", 15092)], vec![("MS008", 0)]], "{document:#}");
}
