//! A pod as a target: which port of it, and whose identity; or one sentence on why it is none, and what would help.
//!
//! Everything here is a pure function of the pod as the API server shows it. What its owner wrote (names, annotations)
//! may choose the port and ask for a path, and nothing else.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Pod;

use super::Stop;
use crate::cli::exposure::Role;
use crate::cli::istio::{
    ENVOY_ANNOTATION, ENVOY_PORT, ENVOY_VARIABLE, INJECT, MERGED_ANNOTATION, MERGED_PORT, MERGED_VARIABLE,
    PATH_ANNOTATION, PLAIN_MERGED_PORT, PROXY_CONTAINER, annotation, is_ignored, is_opted_out,
};
use crate::cli::remedy::Source;
use crate::model::clean;

/// What helps where no proxy of Istio's can have the port.
const BY_NUMBER: &str = "if something of it does serve metrics over mTLS, write --port NUMBER";

/// The port that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WantedPort {
    /// The one with merged metrics.
    Merged,
    /// The one with Envoy's own.
    Envoy,
    /// This one, whatever it is.
    Number(u16),
}

/// A pod that can be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) service_account: String,
    pub(super) ip: IpAddr,
    pub(super) port: u16,
    /// What the pod says its path is; whether the port has it is another question.
    pub(super) path: Option<String>,
}

impl WantedPort {
    /// Reads the argument.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        match text {
            "merged" => Ok(Self::Merged),
            "envoy" => Ok(Self::Envoy),
            _ => port_of(text)
                .map(Self::Number)
                .ok_or_else(|| "merged, envoy or a port from 1 to 65535 is expected".into()),
        }
    }

    /// The annotation that names it, the variable that opens it, and its number by convention; where the number itself
    /// was asked for, that.
    pub(super) fn in_istio(self) -> Result<(&'static str, &'static str, u16), u16> {
        match self {
            Self::Merged => Ok((MERGED_ANNOTATION, MERGED_VARIABLE, MERGED_PORT)),
            Self::Envoy => Ok((ENVOY_ANNOTATION, ENVOY_VARIABLE, ENVOY_PORT)),
            Self::Number(port) => Err(port),
        }
    }
}

/// A port as an annotation may name it: digits, and nothing else.
pub(in crate::cli) fn port_of(text: &str) -> Option<u16> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|port| *port != 0)
}

/// `ip:port`, with brackets where they belong.
pub(super) fn host_port(ip: IpAddr, port: u16) -> String {
    std::net::SocketAddr::new(ip, port).to_string()
}

/// A name of Kubernetes as it was typed; other characters would lead elsewhere in the API server's paths.
pub(in crate::cli) fn checked(name: &str) -> Result<&str, Stop> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
    if !name.is_empty() && name.len() <= 253 && name.bytes().all(allowed) && !name.starts_with('.') {
        return Ok(name);
    }
    Err(Stop::Usage(format!("{:?} is no name that Kubernetes gives: write pod/NAME -n NAMESPACE", clean(name))))
}

/// Where the pod is asked.
pub(super) fn place(pod: &Pod, wanted: WantedPort) -> Result<Place, Stop> {
    let shown = shown(pod);
    let no = |why: String, hint: Option<String>| Stop::NoTarget { why, hint };
    let spec = pod.spec.as_ref();
    let status = pod.status.as_ref();
    let phase = status.and_then(|status| status.phase.as_deref()).unwrap_or("Unknown");
    if matches!(phase, "Succeeded" | "Failed") {
        let why = format!("pod {shown} has ended ({phase}): its address may belong to another pod already");
        return Err(no(why, Some("name a pod that runs".to_owned())));
    }
    let ip = status.and_then(|status| status.pod_ip.as_deref()).unwrap_or_default();
    if ip.is_empty() {
        let why = format!("pod {shown} has no address yet (phase {})", clean(phase));
        return Err(no(why, Some("it gets one when its sandbox runs: see kubectl describe pod".to_owned())));
    }
    let ip: IpAddr =
        ip.parse().map_err(|_| no(format!("the address {:?} of pod {shown} is no IP address", clean(ip)), None))?;
    let host_network = spec.and_then(|spec| spec.host_network).unwrap_or(false);
    if host_network && wanted.in_istio().is_ok() {
        let why = format!(
            "pod {shown} uses the network of its node: Istio puts no proxy into such pods, and the address is not its own"
        );
        return Err(no(why, Some(BY_NUMBER.to_owned())));
    }
    let account = spec.and_then(|spec| spec.service_account_name.as_deref()).filter(|name| !name.is_empty());
    Ok(Place {
        namespace: pod.metadata.namespace.clone().unwrap_or_default(),
        name: pod.metadata.name.clone().unwrap_or_default(),
        service_account: account.unwrap_or("default").to_owned(),
        ip,
        port: port(pod, ip, wanted)?,
        path: annotation(pod, PATH_ANNOTATION).map(str::to_owned),
    })
}

/// `namespace/name`, safe to show.
pub(super) fn shown(pod: &Pod) -> String {
    let text = |text: &Option<String>| clean(text.as_deref().unwrap_or_default()).into_owned();
    format!("{}/{}", text(&pod.metadata.namespace), text(&pod.metadata.name))
}

fn port(pod: &Pod, ip: IpAddr, wanted: WantedPort) -> Result<u16, Stop> {
    let (named, variable, usual) = match wanted.in_istio() {
        Ok(names) => names,
        Err(number) => return Ok(number),
    };
    let shown = shown(pod);
    let what = if wanted == WantedPort::Merged { "merged metrics" } else { "Envoy's metrics" };
    let no = |why: String, hint: String| Stop::NoTarget { why, hint: Some(hint) };
    // Who opens no port has none, whatever its annotations say.
    match Role::of(pod) {
        Some(Role::Sidecar | Role::Gateway | Role::Waypoint) => {}
        Some(Role::Ztunnel) => {
            let url = format!("http://{}", host_port(ip, PLAIN_MERGED_PORT));
            let hint = format!("it has its metrics in plain text: meshscrape scrape {url}");
            return Err(no(format!("pod {shown} is a ztunnel: it has no secure metrics port"), hint));
        }
        Some(Role::Ambient) => {
            let why = format!("pod {shown} is in ambient mode: it has no proxy, so no secure metrics port");
            return Err(no(why, "nothing to do, or move the workload to a sidecar".to_owned()));
        }
        None => {
            let why = format!("pod {shown} has no container {PROXY_CONTAINER}, which would open the port of {what}");
            return Err(no(why, joining(pod)));
        }
    }
    match annotation(pod, named) {
        None => {
            let why = format!("pod {shown} has no annotation {named}, which would name the port of {what}");
            Err(no(why, Source::of(pod).opening(named, variable, usual)))
        }
        Some(text) => match port_of(text) {
            Some(port @ (MERGED_PORT | ENVOY_PORT)) => Ok(port),
            Some(port) => Err(no(
                format!("the annotation {named} of pod {shown} names port {port}, which is no secure port of Istio"),
                format!(
                    "write --port {port} if it is right, and allow the port in ports of istio_sd_configs (pod_ports of other jobs)"
                ),
            )),
            None => Err(no(
                format!("the annotation {named} of pod {shown} is {:?}, and no port", clean(text)),
                format!("correct it in the pod template: {named}: \"{usual}\""),
            )),
        },
    }
}

/// How a pod without a proxy comes to have one, if it can.
fn joining(pod: &Pod) -> String {
    let way = match pod.metadata.namespace.as_deref() {
        Some(namespace) if is_ignored(pod) => format!("Istio injects no proxy into pods of {namespace}"),
        _ if is_opted_out(pod) => {
            format!(
                "{INJECT}: \"false\" keeps Istio from injecting one: where that is not meant, take it out of the pod template"
            )
        }
        _ => "let Istio inject the proxy first, by the label of the namespace, and make the pod anew".to_owned(),
    };
    format!("{way}; {BY_NUMBER}")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::cli::istio::PROXY_CONFIG_ANNOTATION;

    /// A running pod of a Deployment, with these annotations, changed by `change`.
    fn pod(annotations: Value, change: impl FnOnce(&mut Value)) -> Pod {
        let mut pod = json!({
            "metadata": {
                "name": "cart-5d7c9-x2x4z", "namespace": "shop", "annotations": annotations,
                "labels": {"pod-template-hash": "5d7c9"},
                "ownerReferences": [{
                    "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "cart-5d7c9", "uid": "u", "controller": true
                }],
            },
            "spec": {"containers": [{"name": PROXY_CONTAINER}], "serviceAccountName": "cart"},
            "status": {"phase": "Running", "podIP": "10.0.0.17"},
        });
        change(&mut pod);
        serde_json::from_value(pod).expect("a pod")
    }

    fn merged() -> Value {
        json!({ MERGED_ANNOTATION: "15092" })
    }

    fn refused(pod: &Pod, wanted: WantedPort) -> (String, String) {
        match place(pod, wanted) {
            Err(Stop::NoTarget { why, hint }) => (why, hint.unwrap_or_default()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_annotated_pod_is_a_place() {
        let both = json!({ MERGED_ANNOTATION: "15092", ENVOY_ANNOTATION: "15091" });
        let pod = pod(both, |_| {});
        let found = place(&pod, WantedPort::Merged).expect("a place");
        assert_eq!(
            found,
            Place {
                namespace: "shop".into(),
                name: "cart-5d7c9-x2x4z".into(),
                service_account: "cart".into(),
                ip: IpAddr::from([10, 0, 0, 17]),
                port: 15092,
                path: None,
            }
        );
        assert_eq!(place(&pod, WantedPort::Envoy).map(|place| place.port), Ok(15091));
        assert_eq!(place(&pod, WantedPort::Number(15020)).map(|place| place.port), Ok(15020));
    }

    #[test]
    fn a_pod_without_service_account_has_the_default_one() {
        for name in [Value::Null, json!("")] {
            let pod = pod(merged(), |pod| pod["spec"]["serviceAccountName"] = name);
            assert_eq!(place(&pod, WantedPort::Merged).map(|place| place.service_account), Ok("default".into()));
        }
    }

    #[test]
    fn each_thing_that_is_missing_has_its_sentence() {
        let (why, hint) = refused(&pod(json!({}), |_| {}), WantedPort::Merged);
        assert_eq!(
            why,
            "pod shop/cart-5d7c9-x2x4z has no annotation prometheus.istio.io/secure-port, which would name the port of \
             merged metrics"
        );
        assert_eq!(
            hint,
            "open the port and name it: kubectl patch deployment cart -n shop -p '{\"spec\":{\"template\":{\"metadata\":\
             {\"annotations\":{\"prometheus.istio.io/secure-port\":\"15092\",\"proxy.istio.io/config\":\
             \"proxyMetadata: {ENVOY_SECURE_MERGED_METRICS_PORT: \\\"15092\\\"}\"}}}}}'"
        );
        let (why, hint) = refused(&pod(merged(), |_| {}), WantedPort::Envoy);
        assert!(
            why.ends_with(
                "has no annotation prometheus.istio.io/secure-envoy-port, which would name the port of Envoy's metrics"
            ),
            "{why}"
        );
        assert!(hint.contains("ENVOY_SECURE_METRICS_PORT: \\\"15091\\\""), "{hint}");

        for (change, says) in [
            (json!({"status": {"phase": "Succeeded", "podIP": "10.0.0.17"}}), "has ended (Succeeded)"),
            (json!({"status": {"phase": "Failed"}}), "has ended (Failed)"),
            (json!({"status": {"phase": "Pending"}}), "has no address yet (phase Pending)"),
            (json!({"status": null}), "has no address yet (phase Unknown)"),
            (
                json!({"status": {"phase": "Running", "podIP": "x"}}),
                "\"x\" of pod shop/cart-5d7c9-x2x4z is no IP address",
            ),
            (json!({"spec": {"containers": [], "hostNetwork": true}}), "uses the network of its node"),
        ] {
            let pod = pod(merged(), |pod| {
                for (key, value) in change.as_object().expect("an object") {
                    pod[key] = value.clone();
                }
            });
            let (why, _) = refused(&pod, WantedPort::Merged);
            assert!(why.contains(says), "{change}: {why}");
        }
        let host = pod(json!({}), |pod| pod["spec"]["hostNetwork"] = json!(true));
        assert_eq!(place(&host, WantedPort::Number(9)).map(|place| place.port), Ok(9), "it was asked for");
    }

    #[test]
    fn a_pod_without_a_proxy_is_not_told_to_open_its_port() {
        let by_number = "; if something of it does serve metrics over mTLS, write --port NUMBER";
        for (metadata, says) in [
            (json!({}), "let Istio inject the proxy first, by the label of the namespace, and make the pod anew"),
            (json!({"namespace": "kube-system"}), "Istio injects no proxy into pods of kube-system"),
            (
                json!({"labels": {INJECT: "false"}}),
                "sidecar.istio.io/inject: \"false\" keeps Istio from injecting one: where that is not meant, take it out of \
                 the pod template",
            ),
        ] {
            // It may say that it has the port: nothing is there to open it.
            for annotations in [json!({}), merged()] {
                let bare = pod(annotations, |pod| {
                    pod["spec"]["containers"] = json!([{"name": "app"}]);
                    for (key, value) in metadata.as_object().expect("an object") {
                        pod["metadata"][key] = value.clone();
                    }
                });
                let (why, hint) = refused(&bare, WantedPort::Merged);
                let wanted = "has no container istio-proxy, which would open the port of merged metrics";
                assert!(why.ends_with(wanted), "{why}");
                assert_eq!(hint, format!("{says}{by_number}"));
                assert_eq!(place(&bare, WantedPort::Number(9)).map(|place| place.port), Ok(9), "it was asked for");
            }
        }
    }

    #[test]
    fn ambient_mode_has_no_secure_port_to_open() {
        let ambient = pod(json!({"ambient.istio.io/redirection": "enabled"}), |pod| {
            pod["spec"]["containers"] = json!([{"name": "app"}]);
        });
        let (why, hint) = refused(&ambient, WantedPort::Merged);
        assert!(why.ends_with("is in ambient mode: it has no proxy, so no secure metrics port"), "{why}");
        assert_eq!(hint, "nothing to do, or move the workload to a sidecar");
        let ztunnel = pod(json!({}), |pod| {
            pod["spec"]["containers"] = json!([{"name": PROXY_CONTAINER, "args": ["proxy", "ztunnel"]}]);
        });
        let (why, hint) = refused(&ztunnel, WantedPort::Envoy);
        assert!(why.ends_with("is a ztunnel: it has no secure metrics port"), "{why}");
        assert_eq!(hint, "it has its metrics in plain text: meshscrape scrape http://10.0.0.17:15020");
    }

    #[test]
    fn an_annotation_that_is_no_port_of_istio_is_named_and_not_followed() {
        for text in ["15092abc", "0", "70000", "x@evil:443", "", " 15092", "+15092", "0x3af4", "\u{202e}29051"] {
            let (why, hint) = refused(&pod(json!({ MERGED_ANNOTATION: text }), |_| {}), WantedPort::Merged);
            assert!(
                why.contains("secure-port of pod shop/cart-5d7c9-x2x4z is \"") && why.ends_with("\", and no port"),
                "{why}"
            );
            assert!(!why.contains('\u{202e}'), "{why}");
            assert_eq!(hint, "correct it in the pod template: prometheus.istio.io/secure-port: \"15092\"");
        }
        let (why, hint) = refused(&pod(json!({ MERGED_ANNOTATION: "22" }), |_| {}), WantedPort::Merged);
        assert!(why.contains("names port 22, which is no secure port of Istio"), "{why}");
        assert!(hint.contains("--port 22"), "{hint}");
    }

    #[test]
    fn the_hint_names_the_workload_only_where_a_patch_would_be_right() {
        let generic = "in the pod template, add ENVOY_SECURE_MERGED_METRICS_PORT: \"15092\" to the proxyMetadata of \
                       proxy.istio.io/config, and prometheus.istio.io/secure-port: \"15092\" to the annotations";
        let owner = |kind: &str, name: &str| json!([{"apiVersion": "v1", "kind": kind, "name": name, "uid": "u", "controller": true}]);
        let hint = |annotations: Value, owners: Value| {
            refused(&pod(annotations, |pod| pod["metadata"]["ownerReferences"] = owners), WantedPort::Merged).1
        };
        assert!(hint(json!({}), owner("StatefulSet", "db")).contains("kubectl patch statefulset db -n shop -p '"));
        assert!(hint(json!({}), owner("DaemonSet", "log")).contains("kubectl patch daemonset log -n shop -p '"));
        assert_eq!(hint(json!({}), owner("ReplicaSet", "by-hand")), generic);
        assert_eq!(hint(json!({}), owner("Job", "once")), generic);
        assert_eq!(hint(json!({}), Value::Null), generic);
        let has = json!({ PROXY_CONFIG_ANNOTATION: "concurrency: 1" });
        assert_eq!(hint(has, owner("StatefulSet", "db")), generic, "a patch would replace what is there");
    }

    #[test]
    fn names_that_would_lead_elsewhere_are_refused() {
        assert_eq!(checked("cart-5d7c9.x"), Ok("cart-5d7c9.x"));
        for bad in ["", "..", "../nodes", "a/b", "A", "a%2fb", "a?b", "a b"] {
            assert!(matches!(checked(bad), Err(Stop::Usage(_))), "{bad:?}");
        }
    }

    #[test]
    fn the_port_argument() {
        assert_eq!(WantedPort::parse("merged"), Ok(WantedPort::Merged));
        assert_eq!(WantedPort::parse("envoy"), Ok(WantedPort::Envoy));
        assert_eq!(WantedPort::parse("15020"), Ok(WantedPort::Number(15020)));
        for bad in ["", "0", "65536", "MERGED", "-1"] {
            assert!(WantedPort::parse(bad).is_err(), "{bad:?}");
        }
    }
}
