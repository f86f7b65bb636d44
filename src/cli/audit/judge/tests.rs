//! A pod and what was seen of it, in each case that has a rule of its own.

use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Value, json};

use super::*;
use crate::cli::exposure::{Plainly, Reach, Sighting};
use crate::connect::{Answered, PlainAnswer};
use crate::model::{Peer, PeerReport, SpiffeId};

const ID: &str = "spiffe://cluster.local/ns/shop/sa/cart";

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_000_000)
}

/// A sidecar as the injector leaves it behind, with this environment and these annotations.
fn sidecar(env: &[(&str, &str)], annotations: &[(&str, &str)]) -> Facts {
    pod(env, annotations, |_| {})
}

fn pod(env: &[(&str, &str)], annotations: &[(&str, &str)], change: impl FnOnce(&mut Value)) -> Facts {
    reached(&Reach::default(), env, annotations, change)
}

fn reached(
    reach: &Reach,
    env: &[(&str, &str)],
    annotations: &[(&str, &str)],
    change: impl FnOnce(&mut Value),
) -> Facts {
    let env: Vec<Value> = env.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
    let annotations: serde_json::Map<_, _> =
        annotations.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
    let mut pod = json!({
        "metadata": {
            "name": "cart-5d7c9-x2x4z", "namespace": "shop", "annotations": annotations,
            "labels": {"pod-template-hash": "5d7c9"},
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "cart-5d7c9", "uid": "u", "controller": true
            }],
        },
        "spec": {"serviceAccountName": "cart", "containers": [
            {"name": "app"}, {"name": "istio-proxy", "args": ["proxy", "sidecar"], "env": env},
        ]},
        "status": {"phase": "Running", "podIP": "10.0.0.17"},
    });
    change(&mut pod);
    match Sighting::of(&serde_json::from_value(pod).expect("a pod"), reach) {
        Sighting::Meshed(facts) => *facts,
        other => panic!("{other:?}"),
    }
}

const OPEN: (&str, &str) = ("ENVOY_SECURE_MERGED_METRICS_PORT", "15092");
const HARD: (&str, &str) = ("METRICS_LOCALHOST_ACCESS_ONLY", "true");
const NAMED: (&str, &str) = ("prometheus.istio.io/secure-port", "15092");

fn answered(status: u16, overdue_after: SystemTime) -> Result<Answered, Failure> {
    let peer = PeerReport {
        identity: ID.to_owned(),
        exact: true,
        tls_version: "TLSv1.3".to_owned(),
        cipher: "TLS_AES_256_GCM_SHA384".to_owned(),
        not_after: overdue_after + Duration::from_secs(900),
        chain: Vec::new(),
    };
    Ok(Answered { status, peer, overdue_after })
}

fn good() -> Result<Answered, Failure> {
    answered(200, now() + Duration::from_secs(1))
}

fn refused(reason: Reason) -> Result<Answered, Failure> {
    Err(Failure::new(reason, "as it is"))
}

/// One secure port, and what each plain port gave: 200 where it is open.
fn seen(port: u16, outcome: Result<Answered, Failure>, open: &[u16]) -> Seen {
    let plain = [15020, 15090].map(|port| {
        let outcome = match open.contains(&port) {
            true => Ok(PlainAnswer::Status(200)),
            false if port == 15020 => Ok(PlainAnswer::Status(403)),
            false => Err(Failure::new(Reason::ConnectRefused, "refused")),
        };
        Plainly { port, outcome }
    });
    let outcome = outcome.map_err(Into::into);
    Seen { secure: vec![Securely { port, outcome, wants_alpn: false }], plain: plain.into() }
}

/// IDs with their ports.
fn ids(findings: &[Finding]) -> Vec<(&'static str, u16)> {
    findings.iter().map(|finding| (finding.rule.id(), finding.port.unwrap_or(0))).collect()
}

fn found(facts: &Facts, seen: &Seen) -> Vec<(&'static str, u16)> {
    ids(&judge(facts, Asked::All(seen), now()))
}

fn unasked(facts: &Facts) -> Vec<(&'static str, u16)> {
    ids(&judge(facts, Asked::Unwanted, now()))
}

#[test]
fn a_hardened_pod_has_nothing_to_say_and_an_open_one_its_plaintext() {
    let hard = sidecar(&[OPEN, HARD], &[NAMED]);
    assert_eq!(found(&hard, &seen(15092, good(), &[])), []);
    let open = sidecar(&[OPEN], &[NAMED]);
    assert_eq!(found(&open, &seen(15092, good(), &[15020, 15090])), [("MS007", 15020), ("MS007", 15090)]);
    assert_eq!(found(&open, &seen(15092, good(), &[])), [("MS008", 0)], "closed from here only");
    assert_eq!(unasked(&open), [("MS008", 0), ("MS010", 15092)]);
    let set = judge(&open, Asked::Unwanted, now()).remove(0).fix;
    assert_eq!(
        set,
        "in the pod template, add METRICS_LOCALHOST_ACCESS_ONLY: \"true\" to the proxyMetadata of proxy.istio.io/config"
    );
    let findings = judge(&hard, Asked::All(&seen(15092, good(), &[15020])), now());
    assert_eq!(ids(&findings), [("MS007", 15020)], "what was seen goes before what is said");
    let fix = &findings[0].fix;
    assert!(fix.starts_with("start the pod anew: kubectl rollout restart deployment/cart -n shop; "), "{fix}");
    // What is not injected has variables that Envoy's bootstrap does not look at.
    let edge = sidecar(&[OPEN, HARD], &[NAMED, ("sidecar.istio.io/inject", "false")]);
    let findings = judge(&edge, Asked::All(&seen(15092, good(), &[15090])), now());
    assert_eq!(ids(&findings), [("MS007", 15090)]);
    assert!(findings[0].fix.contains("{\"annotations\":{\"proxy.istio.io/config\":"), "{}", findings[0].fix);
}

#[test]
fn a_proxy_without_secure_ports_is_told_how_to_open_one() {
    let off = sidecar(&[HARD], &[]);
    let findings = judge(&off, Asked::Unwanted, now());
    assert_eq!(ids(&findings), [("MS001", 0)]);
    assert!(findings[0].fix.starts_with("open the port and name it: kubectl patch deployment cart -n shop -p '"));
}

#[test]
fn an_open_port_that_nobody_announces_is_found_by_nobody() {
    let gateway = pod(&[OPEN, HARD], &[], |pod| {
        pod["spec"]["containers"] = json!([pod["spec"]["containers"][1]]);
        pod["spec"]["containers"][0]["args"][1] = json!("router");
        pod["metadata"]["labels"]["gateway.networking.k8s.io/gateway-name"] = json!("edge");
    });
    let findings = judge(&gateway, Asked::All(&seen(15092, good(), &[])), now());
    assert_eq!(ids(&findings), [("MS002", 15092)]);
    assert!(findings[0].fix.starts_with("kubectl patch gateway.gateway.networking.k8s.io edge -n shop --type=merge"));
    let envoy = sidecar(&[("ENVOY_SECURE_METRICS_PORT", "15091"), HARD], &[]);
    let findings = judge(&envoy, Asked::All(&seen(15091, good(), &[])), now());
    assert_eq!(ids(&findings), [("MS002", 15091)]);
    assert!(findings[0].fix.contains("prometheus.istio.io/secure-envoy-port"), "{}", findings[0].fix);
    let both = sidecar(&[OPEN, ("ENVOY_SECURE_METRICS_PORT", "15091"), HARD], &[NAMED]);
    assert_eq!(found(&both, &seen(15092, good(), &[])), [], "one of them is enough");
}

#[test]
fn annotations_that_name_no_open_port() {
    for text in ["15092abc", "22", "15020", "x@evil:443"] {
        let odd = sidecar(&[OPEN, HARD], &[("prometheus.istio.io/secure-port", text)]);
        let findings = judge(&odd, Asked::All(&seen(15092, good(), &[])), now());
        assert_eq!(ids(&findings), [("MS003", 0)], "{text}");
        assert!(findings[0].message.contains(text) && findings[0].fix.contains("\"15092\""), "{:?}", findings[0]);
    }
    let closed = sidecar(&[HARD], &[NAMED]);
    let nobody = seen(15092, refused(Reason::ConnectRefused), &[]);
    assert_eq!(found(&closed, &nobody), [("MS004", 15092)], "why nobody answers is said once");
    let captured = seen(15092, refused(Reason::ClosedInHandshake), &[]);
    assert_eq!(found(&closed, &captured), [("MS004", 15092)], "so it is with a port that is off and captured");
    let free = [NAMED, ("traffic.sidecar.istio.io/excludeInboundPorts", "15092")];
    assert_eq!(found(&sidecar(&[HARD], &free), &captured), [("MS004", 15092), ("MS014", 15092)]);
    for (reason, id) in
        [(Reason::ConnectTimeout, "MS014"), (Reason::IdentityMismatch, "MS011"), (Reason::CertificateExpired, "MS012")]
    {
        let somebody = seen(15092, refused(reason), &[]);
        assert_eq!(found(&closed, &somebody), [("MS004", 15092), (id, 15092)], "{reason}: who is there is said, too");
    }
    let mut plain = seen(15092, refused(Reason::PlaintextServer), &[]);
    plain.plain.push(Plainly { port: 15092, outcome: Ok(PlainAnswer::Status(200)) });
    assert_eq!(found(&closed, &plain), [("MS004", 15092), ("MS014", 15092), ("MS016", 15092)]);
    let other = sidecar(&[("ENVOY_SECURE_METRICS_PORT", "15091"), HARD], &[NAMED]);
    assert_eq!(found(&other, &seen(15092, good(), &[])), [], "it is open: somebody who was verified answers");
}

#[test]
fn a_port_beside_the_convention_is_a_note_once_annotation_and_environment_agree() {
    let env = [("ENVOY_SECURE_MERGED_METRICS_PORT", "16092"), HARD];
    let named = |text| [("prometheus.istio.io/secure-port", text)];
    // What is told where nobody names it leads there.
    let findings = judge(&sidecar(&env, &[]), Asked::Unwanted, now());
    assert_eq!(ids(&findings), [("MS002", 16092), ("MS018", 16092)]);
    let fix = &findings[0].fix;
    assert!(fix.starts_with("in the pod template, set the annotation "), "no command sends scrapers there: {fix}");
    assert!(fix.ends_with("prometheus.istio.io/secure-port: \"16092\""), "{fix}");
    let plain = Seen { secure: Vec::new(), ..seen(1, good(), &[]) };
    let findings = judge(&sidecar(&env, &named("16092")), Asked::All(&plain), now());
    assert_eq!(ids(&findings), [("MS018", 16092)]);
    assert!(findings[0].fix.contains("ports of istio_sd_configs"), "{}", findings[0].fix);
    let allowed = Reach { ports: vec![16092], ..Reach::default() };
    let own = reached(&allowed, &env, &named("16092"), |_| {});
    assert_eq!(found(&own, &seen(16092, good(), &[])), []);
    // Where they do not agree, the annotation is to name what is open.
    for text in ["15092", "16093"] {
        let findings = judge(&sidecar(&env, &named(text)), Asked::Unwanted, now());
        let id = if text == "15092" { "MS004" } else { "MS003" };
        assert!(findings.iter().any(|finding| finding.rule.id() == id), "{findings:?}");
    }
    let findings = judge(&sidecar(&env, &named("16093")), Asked::Unwanted, now());
    assert!(findings[0].fix.contains("16092"), "{}", findings[0].fix);
    // With nothing open, naming another port does not help.
    let findings = judge(&sidecar(&[HARD], &named("16093")), Asked::Unwanted, now());
    assert_eq!(ids(&findings), [("MS001", 0), ("MS003", 0)]);
    assert!(findings[1].fix.contains("ENVOY_SECURE_MERGED_METRICS_PORT"), "{}", findings[1].fix);
}

#[test]
fn a_port_beside_the_convention_is_opened_by_the_variable_of_the_annotation_that_names_it() {
    let allowed = Reach { ports: vec![16092], ..Reach::default() };
    for kind in Kind::BOTH {
        let closed = reached(&allowed, &[HARD], &[(kind.annotation(), "16092")], |_| {});
        let findings = judge(&closed, Asked::All(&seen(16092, refused(Reason::ConnectRefused), &[])), now());
        assert_eq!(ids(&findings), [("MS004", 16092)]);
        let fix = &findings[0].fix;
        assert!(fix.starts_with(&format!("in the pod template, add {}: \"16092\" to ", kind.variable())), "{fix}");
        assert!(fix.ends_with(&format!(", and {}: \"16092\" to the annotations", kind.annotation())), "{fix}");
    }
}

#[test]
fn series_that_are_counted_twice() {
    let plain = [NAMED, ("prometheus.io/scrape", "true"), ("prometheus.io/port", "15020")];
    let pod = sidecar(&[OPEN], &plain);
    assert_eq!(found(&pod, &seen(15092, good(), &[15020])), [("MS005", 15020), ("MS007", 15020)]);
    assert_eq!(found(&sidecar(&[OPEN, HARD], &plain), &seen(15092, good(), &[])), [], "nobody gets it there");
    let own = [NAMED, ("prometheus.io/scrape", "true"), ("prometheus.io/port", "8080")];
    assert_eq!(found(&sidecar(&[OPEN, HARD], &own), &seen(15092, good(), &[])), [], "the application's own port");
    let both = [NAMED, ("prometheus.istio.io/secure-envoy-port", "15091")];
    let pod = sidecar(&[OPEN, ("ENVOY_SECURE_METRICS_PORT", "15091"), HARD], &both);
    assert_eq!(found(&pod, &seen(15092, good(), &[])), [("MS006", 0)]);
}

#[test]
fn a_plaintext_port_that_was_not_reached_is_not_called_closed() {
    let scraped = [NAMED, ("prometheus.io/scrape", "true"), ("prometheus.io/port", "15020")];
    let hard = sidecar(&[OPEN, HARD], &[NAMED]);
    let (open, twice) = (sidecar(&[OPEN], &scraped), sidecar(&[OPEN, HARD], &scraped));
    let is_secured = |facts: &Facts, seen: &Seen| {
        judge(facts, Asked::All(seen), now()).iter().all(|finding| finding.rule.leaves_secured())
    };
    for outcome in [
        Err(Failure::new(Reason::ConnectTimeout, "nothing came")),
        Err(Failure::new(Reason::ConnectFailed, "no route to host")),
        Err(Failure::new(Reason::Timeout, "no answer")),
        Ok(PlainAnswer::Closed),
    ] {
        let mut seen = seen(15092, good(), &[]);
        seen.plain[0].outcome = outcome.clone();
        assert_eq!(found(&hard, &seen), [("MS018", 15020)], "{outcome:?}");
        assert!(!is_secured(&hard, &seen), "{outcome:?}");
        assert_eq!(found(&open, &seen), [("MS005", 15020), ("MS008", 0), ("MS018", 15020)], "{outcome:?}");
        assert_eq!(found(&twice, &seen), [("MS018", 15020)], "the proxy is told to give nothing: {outcome:?}");
        seen.plain[1].outcome = outcome;
        assert_eq!(found(&hard, &seen), [("MS018", 15020), ("MS018", 15090)]);
    }
    for outcome in
        [Err(Failure::new(Reason::ConnectRefused, "refused")), Ok(PlainAnswer::Status(403)), Ok(PlainAnswer::NotHttp)]
    {
        let mut seen = seen(15092, good(), &[]);
        seen.plain[0].outcome = outcome.clone();
        assert!(is_secured(&hard, &seen), "{outcome:?}");
        assert_eq!(found(&open, &seen), [("MS008", 0)], "{outcome:?}");
    }
    let seen = seen(15092, good(), &[15020]);
    let both = [("MS005", 15020), ("MS007", 15020)];
    assert_eq!(found(&twice, &seen), both, "what was seen goes before what is said");
}

#[test]
fn every_way_of_a_secure_port_to_fail() {
    let pod = sidecar(&[OPEN, HARD], &[NAMED]);
    for (reason, id) in [
        (Reason::ClosedAfterHandshake, "MS009"),
        (Reason::IdentityMismatch, "MS011"),
        (Reason::UnknownAuthority, "MS011"),
        (Reason::NoSpiffeId, "MS011"),
        (Reason::InvalidSvid, "MS011"),
        (Reason::CertificateExpired, "MS012"),
        (Reason::CertificateNotYetValid, "MS012"),
        (Reason::ConnectRefused, "MS014"),
        (Reason::ClosedInHandshake, "MS014"),
        (Reason::ClientCertificateRejected, "MS014"),
        (Reason::Timeout, "MS014"),
    ] {
        let findings = judge(&pod, Asked::All(&seen(15092, refused(reason), &[])), now());
        assert_eq!(ids(&findings), [(id, 15092)], "{reason}");
        assert_eq!(findings[0].reason, Some(reason));
    }
    let excluded = [NAMED, ("traffic.sidecar.istio.io/excludeInboundPorts", "15091,15092")];
    let closed = seen(15092, refused(Reason::ClosedAfterHandshake), &[]);
    assert_eq!(found(&sidecar(&[OPEN, HARD], &excluded), &closed), [("MS014", 15092)], "nothing captures it");
    let fix = judge(&pod, Asked::All(&closed), now()).remove(0).fix;
    assert!(fix.contains("excludeInboundPorts\":\"15091,15092\""), "{fix}");
    let excluded = [NAMED, ("traffic.sidecar.istio.io/excludeInboundPorts", "8080")];
    let fix = judge(&sidecar(&[OPEN, HARD], &excluded), Asked::All(&closed), now()).remove(0).fix;
    assert!(fix.starts_with("in the pod template, add 15091,15092 to the annotation "), "{fix}");
    assert_eq!(found(&pod, &seen(15092, answered(404, now() + Duration::from_secs(1)), &[])), [("MS014", 15092)]);
    assert_eq!(found(&pod, &seen(15092, answered(200, now() - Duration::from_secs(1)), &[])), [("MS013", 15092)]);
}

#[test]
fn the_same_account_of_another_trust_domain_is_not_called_somebody_else() {
    let pod = sidecar(&[OPEN, HARD], &[NAMED]);
    let peer = Peer::exactly(SpiffeId::parse(ID).expect("an ID"));
    for (reason, presented, is_same) in [
        (Reason::IdentityMismatch, "spiffe://other.local/ns/shop/sa/cart (unverified)", true),
        (Reason::UnknownAuthority, "spiffe://other.local/ns/shop/sa/cart", true),
        (Reason::UnknownAuthority, ID, false),
        (Reason::IdentityMismatch, "spiffe://cluster.local/ns/shop/sa/other", false),
        (Reason::IdentityMismatch, "spiffe://other.local/ns/shop/sa/other", false),
    ] {
        let failure = Failure::new(reason, "as it is").expecting(&peer).presenting(presented);
        let findings = judge(&pod, Asked::All(&seen(15092, Err(failure), &[])), now());
        assert_eq!(ids(&findings), [("MS011", 15092)]);
        let fix = &findings[0].fix;
        assert_eq!(fix.contains("--trust-domain"), is_same, "{reason} {presented}: {fix}");
        assert!(fix.ends_with(reason.hint()), "what else it may be stays: {fix}");
    }
}

#[test]
fn a_listener_of_before_is_told_apart_and_its_plain_side_is_found() {
    let legacy = sidecar(&[HARD], &[("prometheus.istio.io/secure-port", "15091")]);
    let mut seen = seen(15091, good(), &[]);
    assert_eq!(found(&legacy, &seen), [("MS015", 15091)]);
    seen.secure[0].wants_alpn = true;
    let findings = judge(&legacy, Asked::All(&seen), now());
    assert!(findings[0].fix.contains("__alpn__: istio-http/1.1"), "{}", findings[0].fix);
    seen.plain.push(Plainly { port: 15091, outcome: Ok(PlainAnswer::Status(200)) });
    assert_eq!(found(&legacy, &seen), [("MS015", 15091), ("MS016", 15091)]);
    assert_eq!(unasked(&legacy), [("MS010", 15091), ("MS015", 15091)]);
}

#[test]
fn the_native_port_in_place_of_a_legacy_one_is_named_by_its_own_annotation() {
    for (annotation, start) in [
        ("prometheus.istio.io/secure-port", "open the port and name it: kubectl patch deployment cart -n shop -p '"),
        (
            "prometheus.istio.io/secure-envoy-port",
            "take the annotation prometheus.istio.io/secure-envoy-port away, and open the port and name it: kubectl ",
        ),
    ] {
        let findings = judge(&sidecar(&[HARD], &[(annotation, "15091")]), Asked::Unwanted, now());
        let finding = findings.iter().find(|finding| finding.rule == Rule::LegacyListener).expect("it is found");
        let fix = &finding.fix;
        assert!(fix.starts_with(start) && fix.contains("\"prometheus.istio.io/secure-port\":\"15092\""), "{fix}");
        assert!(!fix.contains("\"prometheus.istio.io/secure-envoy-port\""), "{fix}");
    }
}

#[test]
fn who_has_no_secure_port_by_nature() {
    let ambient = pod(&[], &[("ambient.istio.io/redirection", "enabled")], |pod| {
        pod["spec"]["containers"] = json!([{"name": "app"}]);
    });
    assert_eq!(found(&ambient, &Seen::default()), [("MS017", 0)]);
    let ztunnel = pod(&[], &[], |pod| {
        pod["spec"]["containers"] = json!([{"name": "istio-proxy", "args": ["proxy", "ztunnel"]}]);
    });
    let seen = Seen { secure: Vec::new(), plain: seen(1, good(), &[15020]).plain };
    assert_eq!(found(&ztunnel, &seen), [("MS007", 15020)]);
    assert_eq!(unasked(&ztunnel), [("MS008", 0)]);
}

#[test]
fn what_was_not_asked_is_told() {
    let elsewhere = pod(&[HARD], &[], |pod| {
        let from = json!({"name": OPEN.0, "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['p']"}}});
        pod["spec"]["containers"][1]["env"].as_array_mut().expect("a list").push(from);
    });
    let findings = judge(&elsewhere, Asked::Unwanted, now());
    assert_eq!(ids(&findings), [("MS018", 0)], "neither off nor on");
    assert!(findings[0].message.contains(OPEN.0), "{}", findings[0].message);
    assert_eq!(findings[0].fix, elsewhere.source.writing_out(OPEN.0));
    let hidden = pod(&[OPEN], &[NAMED], |pod| {
        let from = json!({"name": HARD.0, "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['p']"}}});
        pod["spec"]["containers"][1]["env"].as_array_mut().expect("a list").push(from);
    });
    let findings = judge(&hidden, Asked::All(&seen(15092, good(), &[])), now());
    assert_eq!(ids(&findings), [("MS018", 0)]);
    assert!(findings[0].message.contains(HARD.0), "{}", findings[0].message);
    assert_eq!(findings[0].fix, hidden.source.writing_out(HARD.0));
    assert_eq!(found(&hidden, &seen(15092, good(), &[15090])), [("MS007", 15090)]);
    let on_node = pod(&[OPEN, HARD], &[NAMED], |pod| pod["spec"]["hostNetwork"] = json!(true));
    let findings = judge(&on_node, Asked::Unwanted, now());
    assert_eq!(ids(&findings), [("MS010", 15092), ("MS018", 0)]);
    assert_eq!(findings[1].fix, "ask by hand: meshscrape scrape pod/cart-5d7c9-x2x4z -n shop --port 15092");
    let hostile = pod(&[OPEN, HARD], &[NAMED], |pod| {
        pod["spec"]["hostNetwork"] = json!(true);
        pod["metadata"]["name"] = json!("cart; rm -rf ~");
    });
    let fix = judge(&hostile, Asked::Unwanted, now()).remove(1).fix;
    assert!(!fix.contains("rm"), "no name that a shell would take apart: {fix}");
    let waiting = pod(&[OPEN, HARD], &[NAMED], |pod| pod["status"] = json!({"phase": "Pending"}));
    assert_eq!(unasked(&waiting), [("MS010", 15092), ("MS018", 0)]);
    for (ip, kind) in [("127.0.0.1", "loopback"), ("169.254.169.254", "link-local")] {
        let odd = pod(&[OPEN, HARD], &[NAMED], |pod| pod["status"]["podIP"] = json!(ip));
        let findings = judge(&odd, Asked::Unwanted, now());
        assert_eq!(ids(&findings), [("MS010", 15092), ("MS018", 0)]);
        assert!(findings[1].message.contains(ip) && findings[1].message.contains(kind), "{:?}", findings[1]);
    }
    let late = judge(&sidecar(&[OPEN, HARD], &[NAMED]), Asked::TooLate, now());
    assert_eq!(ids(&late), [("MS010", 15092), ("MS018", 0)]);
    assert!(late[1].message.contains("time limit"), "{:?}", late[1]);
}

#[test]
fn what_strangers_wrote_is_cleaned() {
    let odd = sidecar(&[OPEN, HARD], &[("prometheus.istio.io/secure-port", "\u{1b}[31m\u{202e}")]);
    for finding in judge(&odd, Asked::Unwanted, now()) {
        assert!(!finding.message.contains(['\u{1b}', '\u{202e}']), "{}", finding.message);
        assert!(!finding.fix.contains(['\u{1b}', '\u{202e}']), "{}", finding.fix);
    }
}
