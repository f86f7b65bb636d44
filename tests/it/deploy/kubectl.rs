//! Every overlay builds, and each item of its wiring is there.

mod configuration;

use serde_json::{Value, json};

use super::rendered::{OVERLAYS, container, folder, kustomization, named, names, object, overlay, pod, text, workload};

/// Those whose certificates come from an Istio sidecar.
const WITH_SIDECAR: [&str; 9] =
    ["istio", "istio-cni", "mesh-listener", "mimir", "mimir-ha", "namespaced", "prometheus", "sharded", "wide-jobs"];

#[test]
fn every_overlay_builds_and_is_listed() {
    let folders = std::fs::read_dir(folder().join("kustomize/overlays")).expect("the overlays");
    let mut there: Vec<_> =
        folders.map(|folder| folder.expect("a folder").file_name().into_string().expect("UTF-8")).collect();
    there.sort();
    assert_eq!(there, OVERLAYS);
    for name in OVERLAYS {
        assert!(!overlay(name).is_empty());
    }
    assert!(!kustomization(&folder().join("kustomize/base")).is_empty());
}

#[test]
fn the_sidecar_brings_certificates_and_nothing_else() {
    for name in WITH_SIDECAR {
        let objects = overlay(name);
        let template = &workload(&objects)["spec"]["template"]["metadata"];
        let (labels, annotations) = (&template["labels"], &template["annotations"]);
        assert_eq!(labels["sidecar.istio.io/inject"], "true", "{name}");
        assert_eq!(labels["security.istio.io/tlsMode"], "disabled", "{name}");

        let proxy = super::rendered::documents(text(&annotations["proxy.istio.io/config"]));
        let metadata = json!({
            "OUTPUT_CERTS": "/etc/istio-certs",
            "ISTIO_META_DNS_CAPTURE": "false",
            "ENVOY_SECURE_MERGED_METRICS_PORT": "15092",
            "METRICS_LOCALHOST_ACCESS_ONLY": "true",
        });
        assert_eq!(proxy[0], json!({ "concurrency": 1, "proxyMetadata": metadata }), "{name}");
        for (annotation, value) in [
            ("traffic.sidecar.istio.io/includeInboundPorts", ""),
            ("traffic.sidecar.istio.io/includeOutboundIPRanges", ""),
            ("sidecar.istio.io/rewriteAppHTTPProbers", "false"),
            ("prometheus.istio.io/merge-metrics", "false"),
        ] {
            assert_eq!(annotations[annotation], value, "{name}: {annotation}");
        }
        for resource in ["proxyCPU", "proxyMemory", "proxyMemoryLimit"] {
            assert!(annotations[format!("sidecar.istio.io/{resource}")].is_string(), "{name}: {resource}");
        }
        assert!(!workload(&objects).to_string().contains("INBOUND_CAPTURE_PORTS"), "it does nothing");

        // Both mounts of one volume, which is in memory; the agent's is read-only.
        let theirs: Value = serde_json::from_str(text(&annotations["sidecar.istio.io/userVolumeMount"])).expect("JSON");
        assert_eq!(theirs, json!([{ "name": "certificates", "mountPath": "/etc/istio-certs" }]), "{name}");
        let ours = named(&container(&objects)["volumeMounts"], "certificates");
        assert_eq!(
            ours,
            &json!({ "name": "certificates", "mountPath": "/etc/istio-certs", "readOnly": true }),
            "{name}"
        );
        let volume = named(&pod(&objects)["volumes"], "certificates");
        assert_eq!(volume["emptyDir"]["medium"], "Memory", "{name}");

        let scope = object(&objects, "Sidecar", "meshscrape");
        assert_eq!(scope["spec"]["egress"], json!([{ "hosts": ["~/*"] }]), "{name}");
        let selector = &workload(&objects)["spec"]["selector"]["matchLabels"];
        assert_eq!(&scope["spec"]["workloadSelector"]["labels"], selector, "{name}");
        let policy = &object(&objects, "NetworkPolicy", "meshscrape-istiod")["spec"];
        assert_eq!(policy["egress"][0]["ports"], json!([{ "port": 15012 }]), "{name}");
        let agents = json!([{ "podSelector": { "matchLabels": selector } }]);
        assert_eq!(policy["ingress"], json!([{ "from": agents, "ports": [{ "port": 15092 }] }]), "{name}");
    }
}

#[test]
fn without_a_sidecar_nothing_of_istio_is_left() {
    for name in OVERLAYS.iter().filter(|name| !WITH_SIDECAR.contains(name)) {
        let objects = overlay(name);
        let template = &workload(&objects)["spec"]["template"]["metadata"];
        assert_eq!(template["labels"]["sidecar.istio.io/inject"], "false", "{name}");
        let annotations = template["annotations"].as_object().expect("annotations");
        assert!(names(&objects).iter().all(|object| object != "NetworkPolicy meshscrape-istiod"), "{name}");
        assert!(annotations.keys().all(|key| !key.contains("istio.io")), "{name}: {annotations:?}");
        assert!(names(&objects).iter().all(|object| !object.starts_with("Sidecar")), "{name}");
    }
}

#[test]
fn certificates_of_other_issuers_are_mounted_read_only() {
    let objects = overlay("cert-manager");
    let csi = &named(&pod(&objects)["volumes"], "certificates")["csi"];
    assert_eq!(
        csi,
        &json!({
            "driver": "spiffe.csi.cert-manager.io",
            "readOnly": true,
            "volumeAttributes": { "spiffe.csi.cert-manager.io/fs-group": "65532" }
        })
    );
    assert_eq!(pod(&objects)["securityContext"]["runAsGroup"], 65532, "the group that may read the key");
    let requests = object(&objects, "Role", "meshscrape-certificates");
    assert_eq!(
        requests["rules"],
        json!([{ "apiGroups": ["cert-manager.io"], "resources": ["certificaterequests"], "verbs": ["create"] }])
    );

    let objects = overlay("spiffe-helper");
    let helper = named(&pod(&objects)["initContainers"], "spiffe-helper");
    assert_eq!(helper["restartPolicy"], "Always", "a sidecar of Kubernetes");
    assert_eq!(named(&pod(&objects)["volumes"], "spiffe-workload-api")["csi"]["driver"], "csi.spiffe.io");
    let map = text(&named(&pod(&objects)["volumes"], "spiffe-helper")["configMap"]["name"]).to_owned();
    let config = text(&object(&objects, "ConfigMap", &map)["data"]["helper.conf"]).to_owned();
    for line in [
        r#"svid_file_name = "cert-chain.pem""#,
        r#"svid_key_file_name = "key.pem""#,
        r#"svid_bundle_file_name = "root-cert.pem""#,
        "daemon_mode = true",
        // Both containers run as the pod's user, so nobody else need read the key.
        "key_file_mode = 0600",
    ] {
        assert!(config.lines().any(|one| one == line), "{line} in\n{config}");
    }
    let written = named(&helper["volumeMounts"], "certificates");
    assert!(config.contains(&format!("cert_dir = \"{}\"", text(&written["mountPath"]))));
    let socket = named(&helper["volumeMounts"], "spiffe-workload-api");
    assert!(config.contains(&format!("agent_address = \"{}/spire-agent.sock\"", text(&socket["mountPath"]))));
    assert!(helper["securityContext"]["runAsUser"].is_null(), "the user is that of the pod");

    let objects = overlay("any-ca");
    let secret = &named(&pod(&objects)["volumes"], "certificates")["secret"];
    assert_eq!(secret["defaultMode"], 0o440);
    assert_eq!(pod(&objects)["securityContext"]["fsGroup"], 65532, "the group that may read the files");
    let paths: Vec<_> = secret["items"].as_array().expect("items").iter().map(|item| text(&item["path"])).collect();
    assert_eq!(paths, ["cert-chain.pem", "key.pem", "root-cert.pem"]);
    for name in ["any-ca", "cert-manager", "spiffe-helper"] {
        assert_eq!(named(&container(&overlay(name))["volumeMounts"], "certificates")["readOnly"], true, "{name}");
    }
}

#[test]
fn containers_may_do_nothing() {
    for name in OVERLAYS {
        let objects = overlay(name);
        for workload in objects.iter().filter(|object| object["spec"]["template"].is_object()) {
            let pod = &workload["spec"]["template"]["spec"];
            let security = &pod["securityContext"];
            assert_eq!(security["runAsNonRoot"], true, "{name}");
            assert!(security["runAsUser"].as_i64() > Some(0), "{name}: a number, so that the kubelet can tell");
            assert_eq!(security["seccompProfile"]["type"], "RuntimeDefault", "{name}");
            assert_eq!(pod["automountServiceAccountToken"], false, "{name}");
            assert!(pod["hostNetwork"].is_null() && pod["hostPID"].is_null(), "{name}");
            let lists = [&pod["containers"], &pod["initContainers"]];
            for container in lists.into_iter().filter_map(Value::as_array).flatten() {
                let security = &container["securityContext"];
                assert_eq!(
                    security,
                    &json!({
                        "allowPrivilegeEscalation": false,
                        "capabilities": { "drop": ["ALL"] },
                        "readOnlyRootFilesystem": true
                    }),
                    "{name}"
                );
                assert!(container["resources"]["requests"]["cpu"].is_string(), "{name}");
                assert!(container["resources"]["limits"]["memory"].is_string(), "{name}");
            }
            for volume in pod["volumes"].as_array().expect("volumes") {
                assert!(volume["hostPath"].is_null(), "{name}: {volume}");
            }
        }
    }
}

#[test]
fn only_the_agent_holds_a_token() {
    for name in OVERLAYS {
        let objects = overlay(name);
        assert_eq!(object(&objects, "ServiceAccount", "meshscrape")["automountServiceAccountToken"], false);
        let mount = named(&container(&objects)["volumeMounts"], "api-token");
        assert_eq!(mount["mountPath"], "/var/run/secrets/kubernetes.io/serviceaccount", "{name}");
        assert_eq!(mount["readOnly"], true, "{name}");
        let sources = &named(&pod(&objects)["volumes"], "api-token")["projected"]["sources"];
        assert_eq!(sources[0]["serviceAccountToken"]["path"], "token", "{name}");
        assert_eq!(sources[1]["configMap"]["items"][0]["path"], "ca.crt", "{name}");
        assert_eq!(sources[2]["downwardAPI"]["items"][0]["path"], "namespace", "{name}");
        for helper in pod(&objects)["initContainers"].as_array().into_iter().flatten() {
            assert!(!helper["volumeMounts"].to_string().contains("api-token"), "{name}");
        }
    }
}

#[test]
fn the_namespace_enforces_what_the_pods_keep_except_beside_istio_init() {
    for name in OVERLAYS {
        let objects = overlay(name);
        let labels = &object(&objects, "Namespace", "meshscrape")["metadata"]["labels"];
        let has_istio_init = WITH_SIDECAR.contains(&name) && name != "istio-cni";
        let enforced = if has_istio_init { "privileged" } else { "restricted" };
        assert_eq!(labels["pod-security.kubernetes.io/enforce"], enforced, "{name}");
        for mode in ["audit", "warn"] {
            assert_eq!(labels[format!("pod-security.kubernetes.io/{mode}")], "restricted", "{name}");
        }
    }
}

#[test]
fn the_agent_reads_pods_and_nothing_else() {
    let pods = json!([{ "apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"] }]);
    for name in OVERLAYS {
        let objects = overlay(name);
        let rules: Vec<_> = objects.iter().filter(|object| object["rules"].is_array()).collect();
        let bound = objects.iter().filter(|object| object["roleRef"].is_object());
        for binding in bound {
            let (kind, role) = (text(&binding["roleRef"]["kind"]), text(&binding["roleRef"]["name"]));
            assert_eq!(object(&objects, kind, role)["metadata"]["namespace"], binding["metadata"]["namespace"]);
            let agent = json!([{ "kind": "ServiceAccount", "name": "meshscrape", "namespace": "meshscrape" }]);
            assert_eq!(binding["subjects"], agent, "{name}");
        }
        let pods_role = rules.iter().find(|role| role["metadata"]["name"] == "meshscrape").expect("a role");
        assert_eq!(pods_role["rules"], pods, "{name}");
        let kind = if name == "namespaced" { "Role" } else { "ClusterRole" };
        assert_eq!(pods_role["kind"], kind, "{name}");
        let more: Vec<_> =
            rules.iter().map(|role| text(&role["metadata"]["name"])).filter(|n| *n != "meshscrape").collect();
        let expected: &[&str] = match name {
            "cert-manager" => &["meshscrape-certificates"],
            "wide-jobs" => &["meshscrape-wide-jobs"],
            _ => &[],
        };
        assert_eq!(more, expected, "{name}");
    }
    let wide = overlay("wide-jobs");
    let rules = object(&wide, "ClusterRole", "meshscrape-wide-jobs")["rules"].as_array().expect("rules").clone();
    let mut resources: Vec<_> = rules.iter().map(|rule| text(&rule["resources"][0])).collect();
    resources.sort_unstable();
    let expected =
        ["endpoints", "endpointslices", "ingresses", "jobs", "namespaces", "nodes", "replicasets", "services"];
    assert_eq!(resources, expected);
    assert!(rules.iter().all(|rule| rule["verbs"] == json!(["get", "list", "watch"])));
}

#[test]
fn an_agent_runs_on_every_node_and_only_once() {
    let objects = overlay("istio");
    let spec = &object(&objects, "DaemonSet", "meshscrape")["spec"];
    assert_eq!(spec["updateStrategy"]["rollingUpdate"], json!({ "maxUnavailable": "10%", "maxSurge": 0 }));
    let pod = pod(&objects);
    assert_eq!(pod["tolerations"], json!([{ "operator": "Exists" }]));
    assert_eq!(pod["priorityClassName"], "meshscrape");
    assert!(object(&objects, "PriorityClass", "meshscrape")["value"].as_i64() > Some(0));
    // The flush deadline of `run` is 20 s.
    assert_eq!(pod["terminationGracePeriodSeconds"], 30);
    let node = named(&container(&objects)["env"], "NODE_NAME");
    assert_eq!(node["valueFrom"]["fieldRef"]["fieldPath"], "spec.nodeName");
}

#[test]
fn shards_are_as_many_as_agents() {
    let objects = overlay("sharded");
    let spec = &object(&objects, "StatefulSet", "meshscrape")["spec"];
    let env = &container(&objects)["env"];
    assert_eq!(named(env, "SHARDS")["value"], spec["replicas"].to_string());
    let shard = &named(env, "SHARD")["valueFrom"]["fieldRef"]["fieldPath"];
    assert_eq!(shard, "metadata.labels['apps.kubernetes.io/pod-index']");
    assert_eq!(spec["podManagementPolicy"], "Parallel");
    assert_eq!(object(&objects, "Service", "meshscrape")["metadata"]["name"], spec["serviceName"]);
    let budget = object(&objects, "PodDisruptionBudget", "meshscrape");
    assert_eq!(budget["spec"]["selector"], spec["selector"]);
    assert_eq!(budget["spec"]["maxUnavailable"], 1);

    let pair = overlay("mimir-ha");
    assert_eq!(object(&pair, "StatefulSet", "meshscrape")["spec"]["replicas"], 2);
    let names: Vec<_> =
        container(&pair)["env"].as_array().expect("env").iter().map(|variable| text(&variable["name"])).collect();
    assert_eq!(names, ["NODE_NAME", "POD_NAME"], "nothing is shared out");
}

#[test]
fn the_kubelet_asks_the_port_of_probes() {
    for name in OVERLAYS {
        let objects = overlay(name);
        let container = container(&objects);
        assert_eq!(container["ports"][0], json!({ "name": "metrics", "containerPort": 9464 }), "{name}");
        // Nothing narrows where it listens: a pod's address may be of IPv6.
        let args: Vec<_> = container["args"].as_array().expect("arguments").iter().map(text).collect();
        assert!(args.iter().all(|arg| !arg.contains("--listen") && !arg.contains("--api-listen")), "{name}: {args:?}");
        for (probe, path) in [("livenessProbe", "/-/healthy"), ("readinessProbe", "/-/ready")] {
            assert_eq!(container[probe]["httpGet"], json!({ "path": path, "port": "metrics" }), "{name}");
            assert!(container[probe]["timeoutSeconds"].as_i64() > Some(1), "{name}: a busy node is slow to answer");
        }
        // Who follows annotations is mostly nobody whom the NetworkPolicy lets in.
        let annotations = workload(&objects)["spec"]["template"]["metadata"]["annotations"].to_string();
        assert!(!annotations.contains("prometheus.io/scrape"), "{name}");
    }
}

/// Over mTLS, for the identities that are named: nowhere unless it is asked for.
#[test]
fn only_the_mesh_listener_serves_the_api_to_other_pods() {
    for name in OVERLAYS {
        let objects = overlay(name);
        let args: Vec<_> = container(&objects)["args"].as_array().expect("arguments").iter().map(text).collect();
        let mesh: Vec<_> = args.into_iter().filter(|argument| argument.starts_with("--mesh")).collect();
        let policies = names(&objects);
        if name != "mesh-listener" {
            assert_eq!((mesh.len(), container(&objects)["ports"].as_array().map(Vec::len)), (0, Some(1)), "{name}");
            assert!(policies.iter().all(|policy| policy != "NetworkPolicy meshscrape-mesh"), "{name}");
            continue;
        }
        let prometheus = "--mesh-allow=spiffe://cluster.local/ns/monitoring/sa/prometheus";
        assert_eq!(mesh, ["--mesh-listen=[::]:9466", prometheus]);
        assert_eq!(named(&container(&objects)["ports"], "mesh")["containerPort"], 9466);
        let policy = &object(&objects, "NetworkPolicy", "meshscrape-mesh")["spec"];
        let monitoring = json!({ "matchLabels": { "kubernetes.io/metadata.name": "monitoring" } });
        let from = json!([{ "namespaceSelector": monitoring }]);
        assert_eq!(policy["ingress"], json!([{ "from": from, "ports": [{ "port": 9466 }] }]));
        assert_eq!(&policy["podSelector"], &workload(&objects)["spec"]["selector"]);
        // The program takes these arguments together: what it complains of is the file.
        let program = std::process::Command::new(env!("CARGO_BIN_EXE_meshscrape"))
            .arg("run")
            .args(&mesh)
            .args(["--config", "/nowhere/meshscrape.yaml"])
            .output()
            .expect("the program runs");
        let said = String::from_utf8_lossy(&program.stderr);
        assert!(!program.status.success() && said.contains("/nowhere/meshscrape.yaml"), "{said}");
        // Its certificates are there where it looks for them.
        assert_eq!(named(&container(&objects)["volumeMounts"], "certificates")["mountPath"], "/etc/istio-certs");
    }
}

/// What an overlay brings is deleted with it, so no overlay brings a namespace that others use.
#[test]
fn no_overlay_makes_a_namespace_but_its_own() {
    for name in OVERLAYS {
        let objects = overlay(name);
        let namespaces: Vec<_> =
            names(&objects).into_iter().filter(|object| object.starts_with("Namespace ")).collect();
        assert_eq!(namespaces, ["Namespace meshscrape"], "{name}");
    }
}

#[test]
fn the_network_is_closed_but_for_what_the_agent_does() {
    for (name, receiver, port) in [("istio", "monitoring", 9090), ("mimir", "mimir", 8080)] {
        let objects = overlay(name);
        let policy = &object(&objects, "NetworkPolicy", "meshscrape")["spec"];
        assert_eq!(policy["policyTypes"], json!(["Ingress", "Egress"]));
        let from = |namespace: &str| json!({ "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": namespace } } });
        assert_eq!(policy["ingress"], json!([{ "from": [from("monitoring")], "ports": [{ "port": 9464 }] }]));
        assert_eq!(
            policy["egress"],
            json!([
                { "to": [{ "namespaceSelector": {} }], "ports": [{ "port": 15091 }, { "port": 15092 }] },
                { "to": [from(receiver)], "ports": [{ "port": port }] },
                { "ports": [{ "port": 53, "protocol": "UDP" }, { "port": 53, "protocol": "TCP" }] },
                { "ports": [{ "port": 443 }, { "port": 6443 }] }
            ]),
            "{name}"
        );
        assert_eq!(&policy["podSelector"], &workload(&objects)["spec"]["selector"], "{name}");
    }
}

#[test]
fn the_receiving_prometheus_takes_samples_from_the_agents_only() {
    let objects = overlay("prometheus");
    let deployment = &object(&objects, "Deployment", "prometheus")["spec"]["template"]["spec"];
    let arguments = deployment["containers"][0]["args"].as_array().expect("arguments");
    assert!(arguments.iter().any(|argument| argument == "--web.enable-remote-write-receiver"));
    let from = &object(&objects, "NetworkPolicy", "prometheus")["spec"]["ingress"];
    assert_eq!(from[0]["ports"], json!([{ "port": 9090 }]));
    assert_eq!(from[0]["from"][0]["podSelector"]["matchLabels"], json!({ "app.kubernetes.io/name": "meshscrape" }));
    let url = super::rendered::configuration(&objects);
    let service = object(&objects, "Service", "prometheus");
    assert_eq!(service["metadata"]["namespace"], "monitoring");
    assert!(url.contains("http://prometheus.monitoring.svc:9090/api/v1/write"), "{url}");
}
