//! The steps of Istio's task, for each kind of pod.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::printed;
use super::town::{MERGED, Town};
use crate::support::agent::{self, Running, eventually};
use crate::support::kubernetes::{Cluster, pod};
use crate::support::mesh::{Mesh, ONLY_13};
use crate::support::program::Program;
use crate::support::tls_server::{Reply, Server, Talk, Then, always};
use crate::support::{http, loopback};

/// An agent that discovers the pods of the town by their annotations; one of them a rule drops.
/// Each of `wanted` has come out so, by a key of its target and the value there.
async fn agent_of(town: &Town, dir: &TempDir, kubeconfig: &str, wanted: &[(&str, (&str, &str))]) -> Running {
    let config = format!(
        "scrape_configs:
- job_name: mesh
  scrape_interval: 5s
  scrape_timeout: 5s
  pod_cidrs: [127.0.0.0/8]
  tls_config: {{certs_dir: '{}', spiffe: {{trust_domain_aliases: [old.local]}}}}
  istio_sd_configs:
  - port: merged
    scope: cluster
    ports: [15091, 15092, 16092]
    kubeconfig_file: '{kubeconfig}'
    namespaces: {{names: [{}]}}
  relabel_configs:
  - {{source_labels: [__meta_kubernetes_pod_name], regex: excluded, action: drop}}
",
        town.mesh.certs.path().display(),
        town.shop.name()
    );
    let agent = agent::start(dir.path(), &config).await;
    eventually("the certificates are loaded", async || {
        let ready = http::get(agent.listen(), "/-/ready").await.expect("an answer");
        (ready.status == 200).then_some(())
    })
    .await;
    agent
        .until("all have been scraped", |targets| {
            wanted.iter().all(|(name, (key, value))| {
                let is_it = |target: &&Value| target["discoveredLabels"]["__meta_kubernetes_pod_name"] == *name;
                targets.iter().find(is_it).is_some_and(|target| target[*key] == *value)
            })
        })
        .await;
    agent
}

/// A check by its ID and port, its verdict, and a part of what was seen.
type Check = (&'static str, u64, &'static str, &'static str);

/// Of each pod the exit code, and the checks that tell its kind from others.
const EXPECTED: &[(&str, i32, &[Check])] = &[
    (
        "hardened",
        0,
        &[("plain_refused", 15092, "ok", "503 from inbound capture"), ("target", 15092, "ok", "in job mesh")],
    ),
    (
        "excluded",
        1,
        &[("plain_refused", 15092, "ok", "closed without a byte"), ("target", 15092, "failed", "of job mesh drops it")],
    ),
    ("disabled", 0, &[("plain_refused", 15092, "ok", "closed without a byte"), ("target", 15092, "ok", "")]),
    ("agent", 0, &[("plain_refused", 15092, "ok", "closed without a byte"), ("plain_closed", 15020, "ok", "403")]),
    ("unmerged", 0, &[("target", 15092, "ok", ":15092/metrics in job mesh")]),
    ("overdue", 0, &[("mtls", 15092, "ok", "200")]),
    (
        "native",
        0,
        &[
            ("mtls", 15091, "ok", "200"),
            ("target", 15091, "not_applicable", "the merged port"),
            ("target", 15092, "ok", ""),
        ],
    ),
    ("ingress", 0, &[("mtls", 15092, "ok", "200")]),
    ("waypoint", 0, &[("anonymous_refused", 15092, "ok", "TLS alert 116")]),
    (
        "open",
        0,
        &[
            ("plain", 15090, "ok", "200 in plain text"),
            ("plain_closed", 15020, "not_applicable", "METRICS_LOCALHOST_ACCESS_ONLY is not set"),
            ("target", 15092, "ok", ""),
        ],
    ),
    ("off", 1, &[("listener", 15092, "failed", "no secure metrics port is open"), ("plain", 15090, "ok", "")]),
    ("edge", 1, &[("mtls", 15092, "ok", "200"), ("target", 15092, "failed", "no annotation names the port")]),
    ("odd", 1, &[("mtls", 15092, "ok", "200"), ("target", 15092, "failed", "no annotation names the port")]),
    ("elsewhere", 1, &[("mtls", 15092, "ok", "200"), ("target", 15092, "failed", "no annotation names the port")]),
    (
        "envoy-only",
        1,
        &[
            ("listener", 15092, "not_applicable", ""),
            ("identity", 15091, "ok", "/sa/envoy-only"),
            ("anonymous_refused", 15091, "ok", "TLS alert 116"),
            ("target", 15091, "failed", "of job mesh drops it"),
        ],
    ),
    (
        "legacy",
        1,
        &[
            ("mtls", 15091, "ok", "istio-http/1.1"),
            ("plain_refused", 15091, "failed", "200 in plain text"),
            ("anonymous_refused", 15091, "ok", "TLS alert 116"),
            ("target", 15091, "failed", "is down: "),
        ],
    ),
    ("legacy-edge", 0, &[("mtls", 15091, "ok", "200"), ("plain_refused", 15091, "ok", "closed")]),
    (
        "strict",
        1,
        &[
            ("listener", 15092, "ok", "TLS"),
            ("identity", 15092, "ok", "/sa/strict"),
            ("mtls", 15092, "failed", "closed_after_handshake"),
            ("anonymous_refused", 15092, "not_asked", ""),
        ],
    ),
    ("listed", 1, &[("mtls", 15092, "failed", "closed_after_handshake")]),
    (
        "closed",
        1,
        &[
            ("listener", 15092, "failed", "connect_refused"),
            ("identity", 15092, "not_asked", ""),
            ("plain_refused", 15092, "not_asked", ""),
        ],
    ),
    ("shut", 1, &[("listener", 15092, "failed", "closed_in_handshake"), ("plain_refused", 15092, "not_asked", "503")]),
    ("starting", 1, &[("listener", 15092, "failed", "closed_in_handshake"), ("plain_refused", 15092, "not_asked", "")]),
    ("estranged", 1, &[("listener", 15092, "ok", ""), ("mtls", 15092, "failed", "client_certificate_rejected")]),
    (
        "impostor",
        1,
        &[
            ("listener", 15092, "ok", ""),
            ("identity", 15092, "failed", "identity_mismatch"),
            ("target", 15092, "failed", "is down: "),
        ],
    ),
    ("foreign-mesh", 1, &[("identity", 15092, "failed", "unknown_authority")]),
    ("expired", 1, &[("identity", 15092, "failed", "certificate_expired")]),
    ("stale", 1, &[("listener", 15092, "failed", "connect_refused")]),
    (
        "makeshift",
        1,
        &[
            ("listener", 15092, "failed", "plaintext_server"),
            ("plain_refused", 15092, "failed", "200 in plain text"),
            ("identity", 15092, "not_asked", ""),
        ],
    ),
    ("unusual", 8, &[("listener", 16092, "not_asked", "give --port 16092"), ("listener", 15091, "not_applicable", "")]),
    (
        "vague",
        8,
        &[
            ("listener", 15092, "not_asked", "ENVOY_SECURE_MERGED_METRICS_PORT"),
            ("listener", 15091, "not_asked", "ENVOY_SECURE_METRICS_PORT"),
            ("plain_closed", 15020, "ok", "403"),
        ],
    ),
];

/// The text without what differs from one run to the next: names, addresses, and how exactly a connection ended.
fn comparable(text: &str, namespace: &str, ip: &str) -> String {
    let text = text.replace(namespace, "shop").replace(ip, "10.0.0.17");
    let cut = |line: &str| line.split_once("closed_after_handshake: ").map_or(line, |(before, _)| before).to_owned();
    text.lines().map(cut).collect::<Vec<_>>().join("\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn each_step_of_the_task_has_its_verdict() {
    let (town, dir) = (Town::new().await, TempDir::new().expect("a directory"));
    let kubeconfig = dir.path().join("kubeconfig");
    town.cluster.kubeconfig(&kubeconfig, &town.cluster.url(), town.cluster.admin_token());
    let kubeconfig = kubeconfig.display().to_string();
    let scraped: Vec<_> = EXPECTED
        .iter()
        .filter(|(_, code, _)| *code == 0)
        .map(|(name, ..)| *name)
        .chain(["unusual"])
        .map(|name| (name, ("health", "up")))
        .chain([
            ("legacy", ("reason", "closed_in_handshake")),
            ("impostor", ("reason", "identity_mismatch")),
            ("strict", ("reason", "closed_after_handshake")),
        ])
        .collect();
    let agent = agent_of(&town, &dir, &kubeconfig, &scraped).await;
    let certs = town.mesh.certs.path().display().to_string();
    let url = format!("http://{}", agent.api());
    let verify = async |pod: &str, more: &[&str]| {
        let pod = format!("pod/{pod}");
        let fixed = ["verify", &pod, "-n", town.shop.name(), "--kubeconfig", &kubeconfig, "--certs-dir", &certs];
        Program::start(
            &[&fixed[..], &["--agent", &url, "--timeout", "30s", "--pod-cidr", "127.0.0.0/8"], more].concat(),
        )
        .end()
        .await
    };
    for (name, code, steps) in EXPECTED {
        let output = verify(name, &["--output", "json"]).await;
        let document: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{name}: {error}: {}", String::from_utf8_lossy(&output.stderr)));
        assert_eq!(output.status.code(), Some(*code), "{name}: {document:#}");
        assert_eq!((&document["ok"], &document["version"]), (&(*code == 0).into(), &1.into()), "{name}");
        assert_eq!(document["expectedIdentity"], town.id(name));
        let found: BTreeMap<(&str, u64), &Value> = document["steps"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|step| ((step["id"].as_str().expect("an ID"), step["port"].as_u64().expect("a port")), step))
            .collect();
        for (id, port, verdict, says) in *steps {
            let step = found.get(&(*id, *port)).unwrap_or_else(|| panic!("{name}: no {id} of {port}: {document:#}"));
            assert_eq!(step["verdict"], *verdict, "{name}: {step:#}");
            assert!(step["seen"].as_str().is_some_and(|seen| seen.contains(says)), "{name}: {says:?}: {step:#}");
            assert_eq!(step["next"].is_string(), *verdict == "failed", "{name}: {step:#}");
        }
    }
    let table = String::from_utf8_lossy(&verify("unusual", &[]).await.stdout).into_owned();
    assert!(table.ends_with("\nnot verified: no secure port of the pod was asked\n"), "{table}");
    let allowed = verify("unusual", &["--port", "16092"]).await;
    let table = String::from_utf8_lossy(&allowed.stdout).into_owned();
    assert_eq!(allowed.status.code(), Some(0), "{table}");
    assert!(
        table.contains("16092 is up in its job") && table.contains(":16092/stats/prometheus in job mesh"),
        "{table}"
    );

    for name in ["hardened", "strict"] {
        let table = String::from_utf8(verify(name, &[]).await.stdout).expect("UTF-8");
        let shown = printed(&format!("meshscrape verify pod/{name} -n shop"));
        let table = comparable(&table, town.shop.name(), &town.ip(name).await);
        assert_eq!(table, comparable(&shown, "shop", "10.0.0.17"), "docs/audit.md shows another text");
    }

    for (name, says) in [
        ("ambient", "is in ambient mode"),
        ("ztunnel", "is a ztunnel"),
        ("foreign", "is no part of the mesh"),
        ("over", "has ended"),
        ("leaving", "is being deleted"),
        ("waiting", "has no address of its own"),
        ("on-node", "has no address of its own"),
        ("nobody", "there is no pod "),
    ] {
        let output = verify(name, &[]).await;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(8), "{name}: {error}");
        assert!(error.contains(says) && output.stdout.is_empty(), "{name}: {error}");
    }
    agent.stop().await;
}

/// Who it is was seen before the time was over, and that counts.
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_too_slow_with_its_answer_is_called_nothing_else() {
    let cluster = Cluster::shared().await;
    let (shop, dir, mesh) =
        (cluster.own_namespace("shop").await, TempDir::new().expect("a directory"), Mesh::new(ONLY_13).await);
    let kubeconfig = dir.path().join("kubeconfig");
    cluster.kubeconfig(&kubeconfig, &cluster.url(), cluster.admin_token());
    let (kubeconfig, certs) = (kubeconfig.display().to_string(), mesh.certs.path().display().to_string());
    let id = format!("spiffe://cluster.local/ns/{}/sa/slow", shop.name());
    let ip = loopback();
    let silence = always(Reply::raw("", Then::Hang));
    let _slow = Server::start_at((ip, 15092).into(), Talk::Tls(mesh.tls(&mesh.ca.leaf(&id)), silence));
    let env = json!([{"name": "ENVOY_SECURE_MERGED_METRICS_PORT", "value": "15092"}]);
    let proxy = json!({"name": "istio-proxy", "image": "proxy:1", "args": ["proxy", "router"], "env": env});
    let slow = pod("slow").account("slow").with(json!({"spec": {"containers": [proxy]}}));
    shop.create_pod(slow.annotation(MERGED, "15092").running(&ip.to_string())).await;
    let arguments = [
        "verify",
        "pod/slow",
        "-n",
        shop.name(),
        "--kubeconfig",
        &kubeconfig,
        "--certs-dir",
        &certs,
        "--pod-cidr",
        "127.0.0.0/8",
        "--timeout",
        "5s",
        "--output",
        "json",
    ];
    let output = Program::start(&arguments).end().await;
    let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(output.status.code(), Some(1), "{document:#}");
    let step = |id: &str| {
        let steps = document["steps"].as_array().expect("a list").iter();
        steps.into_iter().find(|step| step["id"] == id && step["port"] == 15092).expect("a step").clone()
    };
    for (name, verdict, says) in [
        ("listener", "ok", "TLSv1.3"),
        ("identity", "ok", id.as_str()),
        ("mtls", "failed", "no answer to the request"),
        ("anonymous_refused", "not_asked", "timeout"),
    ] {
        let step = step(name);
        assert_eq!(step["verdict"], verdict, "{document:#}");
        assert!(step["seen"].as_str().is_some_and(|seen| seen.contains(says)), "{says}: {step:#}");
    }
    assert_eq!(step("plain_refused")["verdict"], "ok", "{document:#}");
}
