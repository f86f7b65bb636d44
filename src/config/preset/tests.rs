//! What becomes of pods under the rules of the preset, with rules of a job between them that mean no good.

use super::*;
use crate::model::Labels;
use crate::relabel::{self, NameScheme, Rule};

const MERGED: Pods = Pods { port: Port::Merged, host_network: false, include_merged: false };
const ENVOY: Pods = Pods { port: Port::Envoy, ..MERGED };

fn rules(pods: Pods, of_the_job: &[RuleSpec]) -> Vec<Rule> {
    let specs = pods.head().into_iter().chain(of_the_job.iter().cloned()).chain(tail("istio"));
    specs.map(|spec| Rule::new(spec, NameScheme::Legacy).expect("a rule")).collect()
}

/// A pod of the merged port with these labels changed; an empty value is none.
fn pod(changes: &[(&str, &str)]) -> Labels {
    let mut labels = Labels::new();
    for (name, value) in [
        ("job", "istio"),
        ("__address__", "10.0.0.1:8080"),
        ("__metrics_path__", "/stats/prometheus"),
        ("__meta_kubernetes_namespace", "shop"),
        ("__meta_kubernetes_pod_name", "cart-1"),
        ("__meta_kubernetes_pod_ip", "10.0.0.1"),
        ("__meta_kubernetes_pod_phase", "Running"),
        ("__meta_kubernetes_pod_host_network", "false"),
        ("__meta_kubernetes_pod_node_name", "node-a"),
        ("__meta_kubernetes_pod_service_account_name", "cart"),
        ("__meta_kubernetes_pod_container_name", "app"),
        ("__meta_kubernetes_pod_container_port_number", "8080"),
        ("__meta_kubernetes_pod_annotation_prometheus_istio_io_secure_port", "15092"),
        ("__meta_kubernetes_pod_annotationpresent_prometheus_istio_io_secure_port", "true"),
    ]
    .into_iter()
    .chain(changes.iter().copied())
    {
        labels.set(name, value);
    }
    labels
}

const MERGED_PORT: &str = "__meta_kubernetes_pod_annotation_prometheus_istio_io_secure_port";
const MERGED_PRESENT: &str = "__meta_kubernetes_pod_annotationpresent_prometheus_istio_io_secure_port";
const ENVOY_PORT: &str = "__meta_kubernetes_pod_annotation_prometheus_istio_io_secure_envoy_port";
const ENVOY_PRESENT: &str = "__meta_kubernetes_pod_annotationpresent_prometheus_istio_io_secure_envoy_port";

/// The labels that remain of a pod without its metadata; `None` if it is dropped.
fn target(pods: Pods, of_the_job: &[RuleSpec], mut labels: Labels) -> Option<Labels> {
    relabel::apply(&rules(pods, of_the_job), &mut labels).then(|| {
        labels.retain(|name, _| !name.starts_with("__meta_"));
        labels
    })
}

#[test]
fn a_pod_is_one_target_with_labels_from_the_api() {
    let found = target(MERGED, &[], pod(&[])).expect("a target");
    let expected = [
        ("__address__", "10.0.0.1:15092"),
        ("__metrics_path__", "/stats/prometheus"),
        ("instance", "10.0.0.1:15092"),
        ("job", "istio"),
        ("namespace", "shop"),
        ("node", "node-a"),
        ("pod", "cart-1"),
        ("service_account", "cart"),
    ];
    assert_eq!(found.iter().collect::<Vec<_>>(), expected);
    let other_port = pod(&[
        ("__address__", "10.0.0.1:9999"),
        ("__meta_kubernetes_pod_container_name", "sidecar"),
        ("__meta_kubernetes_pod_container_port_number", "9999"),
    ]);
    let by_container = [copy("__meta_kubernetes_pod_container_name", "container")];
    let seen = [pod(&[]), other_port].map(|pod| target(MERGED, &by_container, pod));
    assert_eq!(seen, [Some(found.clone()), Some(found)], "whatever the job's rules make of containers");
}

#[test]
fn which_pods_are_taken() {
    let host_network = ("__meta_kubernetes_pod_host_network", "true");
    let both = [(ENVOY_PORT, "15091"), (ENVOY_PRESENT, "true")];
    let envoy_only = [both[0], both[1], (MERGED_PORT, ""), (MERGED_PRESENT, "")];
    let everything = Pods { host_network: true, ..MERGED };
    let doubly = Pods { include_merged: true, ..ENVOY };
    for (pods, changes, expected) in [
        (MERGED, &[][..], Some("10.0.0.1:15092")),
        (MERGED, &[("__meta_kubernetes_pod_phase", "Succeeded")], None),
        (MERGED, &[("__meta_kubernetes_pod_phase", "Failed")], None),
        (MERGED, &[("__meta_kubernetes_pod_phase", "Pending")], Some("10.0.0.1:15092")),
        (MERGED, &[host_network], None),
        (everything, &[host_network], Some("10.0.0.1:15092")),
        (MERGED, &[(MERGED_PRESENT, "")], None),
        (MERGED, &both, Some("10.0.0.1:15092")),
        (MERGED, &envoy_only, None),
        (ENVOY, &[], None),
        (ENVOY, &both, None),
        (ENVOY, &envoy_only, Some("10.0.0.1:15091")),
        (doubly, &both, Some("10.0.0.1:15091")),
        (doubly, &[], None),
    ] {
        let found = target(pods, &[], pod(changes));
        let address = found.as_ref().and_then(|labels| labels.get("__address__"));
        assert_eq!(address, expected, "{pods:?} {changes:?}");
    }
}

#[test]
fn an_annotation_goes_into_the_address_whatever_it_says() {
    for (ip, annotation, address) in [
        ("10.0.0.1", "15092", "10.0.0.1:15092"),
        ("10.0.0.1", "15092abc", "10.0.0.1:15092abc"),
        ("10.0.0.1", "0", "10.0.0.1:0"),
        ("10.0.0.1", "x@evil:443", "10.0.0.1:x@evil:443"),
        ("10.0.0.1", "15092;9.9.9.9:1", "10.0.0.1:15092;9.9.9.9:1"),
        ("10.0.0.1", "15092\n", "10.0.0.1:15092\n"),
        ("10.0.0.1", "", "10.0.0.1:"),
        ("fd00::1", "15092", "[fd00::1]:15092"),
        ("fd00::1", "", "[fd00::1]:"),
        ("fd00::1", "]:1;", "[fd00::1]:]:1;"),
    ] {
        let found = target(MERGED, &[], pod(&[("__meta_kubernetes_pod_ip", ip), (MERGED_PORT, annotation)]));
        assert_eq!(found.as_ref().map(|labels| labels.value("__address__")), Some(address), "{annotation:?}");
    }
}

#[test]
fn a_pod_chooses_only_paths_that_the_port_has() {
    for (path, merged, envoy) in [
        ("/stats/prometheus", true, true),
        ("/stats/prometheus/a-b/C_1", true, true),
        ("/metrics", true, false),
        ("/metrics/x", true, false),
        ("/metricsfoo", false, false),
        ("/metrics/", false, false),
        ("/metrics//x", false, false),
        ("/metrics/..", false, false),
        ("/metrics/../stats/prometheus", false, false),
        ("/stats/prometheus?usedonly", false, false),
        ("/stats/prometheus/%2e%2e", false, false),
        ("/stats/prometheus\n", false, false),
        ("stats/prometheus", false, false),
        ("/actuator/prometheus", false, false),
        ("/quitquitquit", false, false),
    ] {
        let annotations = [
            ("__meta_kubernetes_pod_annotation_prometheus_io_path", path),
            (ENVOY_PORT, "15091"),
            (ENVOY_PRESENT, "true"),
        ];
        for (pods, has) in [(MERGED, merged), (Pods { include_merged: true, ..ENVOY }, envoy)] {
            let found = target(pods, &[], pod(&annotations)).expect("a target");
            let expected = if has { path } else { METRICS_PATH };
            assert_eq!(found.value("__metrics_path__"), expected, "{:?}", pods.port);
        }
    }
}

#[test]
fn nothing_that_a_pod_says_stays_in_place_of_what_the_api_says() {
    let labelmap = RuleSpec {
        action: Action::LabelMap,
        regex: Some("__meta_kubernetes_pod_label_(.+)".to_owned()),
        ..RuleSpec::default()
    };
    let names = ["job", "instance", "namespace", "pod", "node", "service_account"];
    let forged: Vec<(String, &str)> =
        names.iter().map(|name| (format!("__meta_kubernetes_pod_label_{name}"), "forged")).collect();
    let mut changes: Vec<(&str, &str)> = forged.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    // Also where the API says nothing.
    changes.push(("__meta_kubernetes_pod_node_name", ""));
    let found = target(MERGED, &[labelmap, copy("__meta_kubernetes_pod_label_pod", "app")], pod(&changes));
    let found = found.expect("a target");
    assert!(found.iter().all(|(_, value)| value != "forged"), "{found:?}");
    assert_eq!((found.get("node"), found.get("app"), found.value("namespace")), (None, None, "shop"));
}

#[test]
fn the_application_is_named_by_the_best_label_there_is() {
    let [name, app, canonical] = ["app_kubernetes_io_name", "app", "service_istio_io_canonical_name"]
        .map(|label| format!("__meta_kubernetes_pod_label_{label}"));
    let all = [(name.as_str(), "best"), (app.as_str(), "good"), (canonical.as_str(), "last")];
    for (changes, expected) in
        [(&all[..], Some("best")), (&all[1..], Some("good")), (&all[2..], Some("last")), (&all[3..], None)]
    {
        let found = target(MERGED, &[], pod(changes)).expect("a target");
        assert_eq!(found.get("app"), expected);
    }
}

#[test]
fn the_name_of_the_job_is_no_template() {
    let mut labels = Labels::new();
    let rules: Vec<Rule> =
        tail("a$1${x}$$").into_iter().map(|spec| Rule::new(spec, NameScheme::Utf8).expect("a rule")).collect();
    assert!(relabel::apply(&rules, &mut labels));
    assert_eq!(labels.get("job"), Some("a$1${x}$$"));
}
