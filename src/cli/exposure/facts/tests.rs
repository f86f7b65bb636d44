//! Pods as the API server shows them, and what is known of each.

use serde_json::{Value, json};

use super::*;

fn facts(change: impl FnOnce(&mut Value)) -> Facts {
    sighted(&Reach::default(), change)
}

fn sighted(reach: &Reach, change: impl FnOnce(&mut Value)) -> Facts {
    match sighting(reach, change) {
        Sighting::Meshed(facts) => *facts,
        other => panic!("{other:?}"),
    }
}

fn sighting(reach: &Reach, change: impl FnOnce(&mut Value)) -> Sighting {
    let mut pod = json!({
        "metadata": {"name": "cart-1", "namespace": "shop", "annotations": {}, "labels": {}},
        "spec": {"serviceAccountName": "cart", "containers": [
            {"name": "app"}, {"name": "istio-proxy", "args": ["proxy", "sidecar"], "env": []},
        ]},
        "status": {"phase": "Running", "podIP": "10.0.0.17"},
    });
    change(&mut pod);
    Sighting::of(&serde_json::from_value(pod).expect("a pod"), reach)
}

#[test]
fn the_environment_says_what_is_open() {
    let env = |value: Value| {
        facts(|pod| pod["spec"]["containers"][1]["env"] = json!([{"name": MERGED_VARIABLE, "value": value}]))
            .opening(Kind::Merged)
    };
    assert_eq!(env(json!("15092")), Opening::On(15092));
    for off in ["", "0", "x", "-1"] {
        assert_eq!(env(json!(off)), Opening::Off, "{off:?}");
    }
    assert_eq!(facts(|_| {}).opening(Kind::Merged), Opening::Off);
    let elsewhere = json!([{"name": MERGED_VARIABLE, "valueFrom": {"configMapKeyRef": {"key": "k", "name": "n"}}}]);
    let vague = facts(|pod| pod["spec"]["containers"][1]["env"] = elsewhere);
    assert!(vague.opening(Kind::Merged) == Opening::Unknown && vague.is_vague());
    let restricted = |value: &str| {
        let env = json!([{"name": LOCALHOST_ONLY_VARIABLE, "value": value}]);
        facts(|pod| pod["spec"]["containers"][1]["env"] = env).restricted
    };
    assert_eq!(["true", "1", "yes", "false"].map(restricted), [true, true, false, false].map(Some));
    let elsewhere = json!([{"name": LOCALHOST_ONLY_VARIABLE, "valueFrom": {"fieldRef": {"fieldPath": "x"}}}]);
    assert_eq!(facts(|pod| pod["spec"]["containers"][1]["env"] = elsewhere).restricted, None);
}

#[test]
fn who_is_part_of_the_mesh() {
    let role = |change: fn(&mut Value)| facts(change).role;
    assert_eq!(role(|_| {}), Role::Sidecar);
    assert_eq!(role(|pod| pod["spec"]["containers"][1]["args"][1] = json!("router")), Role::Gateway);
    assert_eq!(role(|pod| pod["spec"]["containers"][1]["args"][1] = json!("waypoint")), Role::Waypoint);
    assert_eq!(role(|pod| pod["spec"]["containers"][1]["args"][1] = json!("ztunnel")), Role::Ztunnel);
    assert_eq!(role(|pod| pod["spec"]["containers"] = json!([{"name": "istio-proxy"}])), Role::Gateway);
    let native = |pod: &mut Value| {
        let proxy = pod["spec"]["containers"].as_array_mut().and_then(Vec::pop).expect("the proxy");
        pod["spec"]["initContainers"] = json!([proxy]);
    };
    assert_eq!(role(native), Role::Sidecar);
    let ambient = |pod: &mut Value| {
        pod["spec"]["containers"] = json!([{"name": "app"}]);
        pod["metadata"]["annotations"]["ambient.istio.io/redirection"] = json!("enabled");
    };
    assert_eq!(role(ambient), Role::Ambient);
    let seen = |change: fn(&mut Value)| sighting(&Reach::default(), change);
    assert!(matches!(seen(|pod| pod["spec"]["containers"] = json!([{"name": "app"}])), Sighting::Foreign));
    assert!(matches!(seen(|pod| pod["status"]["phase"] = json!("Failed")), Sighting::Finished));
    let leaving: fn(&mut Value) = |pod| pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    assert!(matches!(seen(leaving), Sighting::Leaving));
}

#[test]
fn only_ports_of_the_convention_on_an_address_of_its_own_are_asked() {
    let announced = |text: &str| {
        facts(|pod| pod["metadata"]["annotations"][MERGED_ANNOTATION] = json!(text)).secure_ports().to_vec()
    };
    assert_eq!(announced("15092"), [15092]);
    assert_eq!(announced("15091"), [15091]);
    for other in ["22", "15020", "x@evil:443", "15092abc", ""] {
        assert_eq!(announced(other), [0_u16; 0], "{other:?}");
    }
    let opened = |port: &str, reach: &Reach| {
        let env = json!([{"name": ENVOY_VARIABLE, "value": port}]);
        sighted(reach, |pod| pod["spec"]["containers"][1]["env"] = env).secure_ports().to_vec()
    };
    let allowed = Reach { ports: vec![16091], ..Reach::default() };
    assert_eq!(opened("15091", &Reach::default()), [15091]);
    assert_eq!(opened("16091", &Reach::default()), [0_u16; 0]);
    assert_eq!(opened("16091", &allowed), [16091]);
    assert_eq!(opened("22", &allowed), [0_u16; 0]);
    let on_node = facts(|pod| pod["spec"]["hostNetwork"] = json!(true));
    assert_eq!(on_node.whereabouts, Whereabouts::OnNode);
    assert_eq!(facts(|pod| pod["status"]["podIP"] = json!("x")).whereabouts, Whereabouts::Nowhere);
}

#[test]
fn nobody_is_asked_at_an_address_that_no_pod_has() {
    let at = |ip: &str, reach: &Reach| {
        let pod = json!({
            "metadata": {"name": "cart-1", "namespace": "shop"},
            "spec": {"containers": [{"name": "app"}, {"name": "istio-proxy", "args": ["proxy", "sidecar"]}]},
            "status": {"phase": "Running", "podIP": ip},
        });
        match Sighting::of(&serde_json::from_value(pod).expect("a pod"), reach) {
            Sighting::Meshed(facts) => (facts.whereabouts, facts.misplaced.unwrap_or_default()),
            other => panic!("{other:?}"),
        }
    };
    for (ip, kind) in [
        ("127.0.0.1", "a loopback address"),
        ("::1", "a loopback address"),
        ("::ffff:127.0.0.1", "a loopback address"),
        ("169.254.169.254", "a link-local address"),
        ("fe80::1", "a link-local address"),
        ("0.0.0.0", "the unspecified address"),
        ("224.0.0.1", "a multicast address"),
    ] {
        let (whereabouts, why) = at(ip, &Reach::default());
        assert_eq!(whereabouts, Whereabouts::Nowhere, "{ip}");
        assert!(why.contains(ip) && why.contains(kind), "{ip}: {why}");
    }
    let reach = Reach { pod_cidrs: vec!["127.96.0.0/11".parse().expect("a range")], ports: Vec::new() };
    let listed = |ip: &str| at(ip, &reach).0;
    assert_eq!(listed("127.96.0.1"), Whereabouts::At(IpAddr::from([127, 96, 0, 1])));
    assert_eq!(listed("127.0.0.1"), Whereabouts::Nowhere);
    assert_eq!(listed("10.0.0.17"), Whereabouts::Nowhere, "they are nowhere else");
}

#[test]
fn what_inbound_capture_is_for() {
    let with = |name: &str, value: &str| facts(|pod| pod["metadata"]["annotations"][name] = json!(value));
    assert!(facts(|_| {}).is_captured(15092));
    assert!(!with(EXCLUDE_ANNOTATION, "8080, 15092").is_captured(15092));
    assert!(with(EXCLUDE_ANNOTATION, "8080, 15092").is_captured(15091));
    assert!(with(INCLUDE_ANNOTATION, "*").is_captured(15092));
    assert!(!with(INCLUDE_ANNOTATION, "").is_captured(15092));
    assert!(!with(INCLUDE_ANNOTATION, "8080").is_captured(15092));
    let both = facts(|pod| {
        pod["metadata"]["annotations"] = json!({INCLUDE_ANNOTATION: "8080,15092", EXCLUDE_ANNOTATION: "15092"});
    });
    assert!(both.is_captured(15092), "of a list nothing is excluded");
    assert!(!facts(|pod| pod["spec"]["containers"][1]["args"][1] = json!("router")).is_captured(15092));
}

#[test]
fn a_listener_of_before_is_announced_and_not_opened_by_the_proxy() {
    let announced = |env: Value| {
        facts(|pod| {
            pod["metadata"]["annotations"][MERGED_ANNOTATION] = json!("15091");
            pod["spec"]["containers"][1]["env"] = env;
        })
    };
    assert!(announced(json!([])).may_be_legacy(15091));
    assert!(!announced(json!([])).may_be_legacy(15092));
    assert!(!announced(json!([{"name": ENVOY_VARIABLE, "value": "15091"}])).may_be_legacy(15091));
}
