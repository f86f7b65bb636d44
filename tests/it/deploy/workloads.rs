//! The patches for workloads set what each case needs, and say how they are applied, verified and taken off.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::rendered::{documents, folder, named, object, text};

const NATIVE: [(&str, &str); 2] =
    [("ENVOY_SECURE_METRICS_PORT", "15091"), ("ENVOY_SECURE_MERGED_METRICS_PORT", "15092")];
const MERGED: &str = "prometheus.istio.io/secure-port";
const ENVOY: &str = "prometheus.istio.io/secure-envoy-port";

fn files() -> Vec<PathBuf> {
    let files = std::fs::read_dir(folder().join("workloads")).expect("the patches");
    files.map(|file| file.expect("a file").path()).collect()
}

fn read(name: &str) -> Vec<Value> {
    documents(&std::fs::read_to_string(folder().join("workloads").join(name)).expect(name))
}

/// The variables that annotations give the proxy.
fn metadata(annotations: &Value) -> Value {
    documents(text(&annotations["proxy.istio.io/config"])).remove(0)["proxyMetadata"].take()
}

fn variables() -> Value {
    NATIVE.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect::<serde_json::Map<_, _>>().into()
}

#[test]
fn every_patch_says_how_it_is_applied_verified_and_taken_off() {
    let files = files();
    assert!(files.len() >= 10, "{files:?}");
    for file in files {
        let name = file.file_name().expect("a name").to_string_lossy().into_owned();
        let code = std::fs::read_to_string(&file).expect("a patch");
        let comment: Vec<_> = code.lines().take_while(|line| line.starts_with('#')).collect();
        for step in ["# Apply    ", "# Verify   ", "# Clean up "] {
            assert!(comment.iter().any(|line| line.starts_with(step)), "{name}: {step}");
        }
        let comment = comment.join("\n");
        assert!(comment.contains(&format!("deploy/workloads/{name}")), "{name} is in its own command");
        assert!(comment.contains("meshscrape scrape") || comment.contains("meshscrape targets"), "{name}");
    }
}

#[test]
fn sidecars_get_both_ports_by_the_proxy_configuration() {
    let httpbin = read("httpbin.yaml");
    let deployment = &object(&httpbin, "Deployment", "httpbin")["spec"]["template"];
    assert_eq!(deployment["spec"]["serviceAccountName"], "httpbin");
    let patch = read("sidecar.patch.yaml");
    for annotations in
        [&deployment["metadata"]["annotations"], &patch[0]["spec"]["template"]["metadata"]["annotations"]]
    {
        assert_eq!(metadata(annotations), variables());
        assert_eq!(annotations[ENVOY], "15091");
        assert!(annotations[MERGED].is_null(), "the injector's own value must win");
    }
}

#[test]
fn what_is_not_injected_gets_variables_and_annotations() {
    let template = &read("ingress-gateway.patch.yaml")[0]["spec"]["template"];
    let env = &named(&template["spec"]["containers"], "istio-proxy")["env"];
    for (name, value) in NATIVE {
        assert_eq!(named(env, name)["value"], value);
    }
    assert_eq!(template["metadata"]["annotations"], json!({ MERGED: "15092", ENVOY: "15091" }));

    // Istio makes these of a Gateway: it copies the Gateway's annotations to the pods, and takes no variables from them.
    let waypoint = read("waypoint.yaml");
    for gateway in [&read("gateway-api.patch.yaml")[0], object(&waypoint, "Gateway", "waypoint")] {
        assert_eq!(gateway["spec"]["infrastructure"]["annotations"], json!({ MERGED: "15092", ENVOY: "15091" }));
    }
    let opened = read("gateway-api.proxy-config.yaml");
    for (name, config) in [
        ("NAME", object(&opened, "ProxyConfig", "NAME-secure-metrics")),
        ("waypoint", object(&waypoint, "ProxyConfig", "waypoint-secure-metrics")),
    ] {
        assert_eq!(config["spec"]["environmentVariables"], variables(), "{name}");
        let selected = &config["spec"]["selector"]["matchLabels"];
        assert_eq!(selected, &json!({ "gateway.networking.k8s.io/gateway-name": name }));
    }
    assert_eq!(waypoint[1]["spec"]["gatewayClassName"], "istio-waypoint");
}

#[test]
fn hardened_workloads_keep_only_the_secure_ports() {
    let annotations = read("hardened.patch.yaml")[0]["spec"]["template"]["metadata"]["annotations"].take();
    let mut expected = variables();
    expected["METRICS_LOCALHOST_ACCESS_ONLY"] = "true".into();
    assert_eq!(metadata(&annotations), expected);
}

#[test]
fn strict_meshes_leave_both_ports_out_of_capture_or_out_of_their_mode() {
    let annotations = read("strict.patch.yaml")[0]["spec"]["template"]["metadata"]["annotations"].take();
    assert_eq!(annotations, json!({ "traffic.sidecar.istio.io/excludeInboundPorts": "15091,15092" }));
    let policy = &read("strict.peer-authentication.yaml")[0];
    assert_eq!(policy["kind"], "PeerAuthentication");
    let spec = &policy["spec"];
    assert_eq!(spec["portLevelMtls"], json!({ "15091": { "mode": "DISABLE" }, "15092": { "mode": "DISABLE" } }));
    assert_eq!(spec["mtls"]["mode"], "STRICT", "all other ports");
    assert!(spec["selector"]["matchLabels"].is_object(), "ports need a selector");
}

#[test]
fn legacy_listeners_lead_to_the_plain_port() {
    let sidecar = &read("legacy-sidecar.yaml")[0];
    let ingress = &sidecar["spec"]["ingress"];
    assert_eq!(
        (&ingress[0]["port"]["number"], &ingress[0]["defaultEndpoint"]),
        (&json!(15091), &json!("127.0.0.1:15020"))
    );
    assert_eq!(ingress[1]["port"]["number"], 8080, "the application's port is still served");
    assert_eq!(sidecar["spec"]["workloadSelector"]["labels"], json!({ "app": "httpbin" }));

    let gateway = read("legacy-gateway.yaml");
    let server = &object(&gateway, "Gateway", "metrics-gateway")["spec"]["servers"][0];
    assert_eq!((&server["port"]["number"], &server["tls"]["mode"]), (&json!(15091), &json!("ISTIO_MUTUAL")));
    let entry = &object(&gateway, "ServiceEntry", "gateway-admin")["spec"];
    let route = &object(&gateway, "VirtualService", "gateway-metrics")["spec"];
    let destination = &route["http"][0]["route"][0]["destination"];
    assert_eq!(destination["host"], entry["hosts"][0]);
    assert_eq!(destination["port"]["number"], entry["ports"][0]["number"]);
    assert_eq!(route["http"][0]["match"], json!([{ "uri": { "prefix": "/stats/prometheus" } }]));
    assert_eq!(route["gateways"], json!(["metrics-gateway"]));
}
