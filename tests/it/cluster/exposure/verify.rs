//! The steps of Istio's task, for each kind of pod.

use std::collections::BTreeMap;

use serde_json::Value;
use tempfile::TempDir;

use super::town::Town;
use crate::support::agent::{self, Running, eventually};
use crate::support::http;
use crate::support::program::Program;

/// An agent that scrapes these pods of the town on their merged ports.
async fn agent_of(town: &Town, dir: &TempDir, pods: &[(&str, String)]) -> Running {
    let targets: String = pods
        .iter()
        .map(|(name, ip)| {
            format!(
                "  - targets: ['{ip}:15092']\n    labels: {{__meta_kubernetes_namespace: {}, __meta_kubernetes_pod_name: {name}, \
                 __spiffe_id__: '{}'}}\n",
                town.shop.name(),
                town.id(name)
            )
        })
        .collect();
    let config = format!(
        "scrape_configs:\n- job_name: mesh\n  scrape_interval: 1s\n  metrics_path: /stats/prometheus\n  tls_config: \
         {{certs_dir: '{}', spiffe: {{trust_domain_aliases: [old.local]}}}}\n  static_configs:\n{targets}",
        town.mesh.certs.path().display()
    );
    let agent = agent::start(dir.path(), &config).await;
    eventually("the certificates are loaded", async || {
        let ready = http::get(agent.listen(), "/-/ready").await.expect("an answer");
        (ready.status == 200).then_some(())
    })
    .await;
    agent
        .until("all have been scraped", |targets| {
            targets.len() == pods.len() && targets.iter().all(|target| target["health"] != "unknown")
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
        &[("plain_refused", 15092, "ok", "closed without a byte"), ("target", 15092, "failed", "no job of its agent")],
    ),
    (
        "native",
        1,
        &[
            ("mtls", 15091, "ok", "200"),
            ("target", 15091, "not_applicable", "the merged port"),
            ("target", 15092, "failed", ""),
        ],
    ),
    ("ingress", 1, &[("mtls", 15092, "ok", "200")]),
    ("waypoint", 1, &[("anonymous_refused", 15092, "ok", "TLS alert 116")]),
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
    (
        "envoy-only",
        1,
        &[
            ("listener", 15092, "not_applicable", ""),
            ("identity", 15091, "ok", "/sa/envoy-only"),
            ("anonymous_refused", 15091, "ok", "TLS alert 116"),
        ],
    ),
    (
        "legacy",
        1,
        &[
            ("mtls", 15091, "ok", "istio-http/1.1"),
            ("plain_refused", 15091, "failed", "200 in plain text"),
            ("anonymous_refused", 15091, "ok", "TLS alert 116"),
        ],
    ),
    ("legacy-edge", 1, &[("mtls", 15091, "ok", "200"), ("plain_refused", 15091, "ok", "closed")]),
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
    (
        "closed",
        1,
        &[
            ("listener", 15092, "failed", "connect_refused"),
            ("identity", 15092, "not_asked", ""),
            ("plain_refused", 15092, "not_asked", ""),
        ],
    ),
    ("starting", 1, &[("listener", 15092, "failed", "closed_in_handshake")]),
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
];

#[tokio::test(flavor = "multi_thread")]
async fn each_step_of_the_task_has_its_verdict() {
    let (town, dir) = (Town::new().await, TempDir::new().expect("a directory"));
    let kubeconfig = dir.path().join("kubeconfig");
    town.cluster.kubeconfig(&kubeconfig, &town.cluster.url(), town.cluster.admin_token());
    let scraped = ["hardened", "open", "impostor"];
    let mut pods = Vec::new();
    for name in scraped {
        pods.push((name, town.ip(name).await));
    }
    let agent = agent_of(&town, &dir, &pods).await;
    let (kubeconfig, certs) = (kubeconfig.display().to_string(), town.mesh.certs.path().display().to_string());
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

    let output = verify("hardened", &[]).await;
    let table = String::from_utf8(output.stdout).expect("UTF-8");
    let ip = town.ip("hardened").await;
    let expected = format!(
        "pod {ns}/hardened  {ip}  {id}
  15092 speaks TLS                            ok              TLSv1.3 TLS_AES_256_GCM_SHA384
  15092 is who it must be                     ok              {id}
  15092 answers 200 over mTLS                 ok              200
  15092 refuses plain HTTP                    ok              503 from inbound capture, which finds a port that takes TLS only
  15092 refuses whoever shows no certificate  ok              the peer answered with TLS alert 116 (CertificateRequired)
  15092 is up in its job                      ok              https://{ip}:15092/stats/prometheus in job mesh
  15091 speaks TLS                            not applicable  the proxy does not open it (ENVOY_SECURE_METRICS_PORT)
  15090 speaks plain text                     not applicable  METRICS_LOCALHOST_ACCESS_ONLY is set
  15020 is closed to others                   ok              403
  15090 is closed to others                   ok              refused
8 ok, 0 failed, 2 not applicable, 0 not asked
",
        ns = town.shop.name(),
        id = town.id("hardened")
    );
    assert_eq!(table, expected);

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
