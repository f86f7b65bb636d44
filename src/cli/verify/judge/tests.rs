//! Answers and the verdicts on them.

use std::net::IpAddr;
use std::time::UNIX_EPOCH;

use serde_json::{Value, json};

use super::*;
use crate::cli::exposure::{Reach, Securely, Sighting};
use crate::connect::Answered;
use crate::model::PeerReport;

const ID: &str = "spiffe://cluster.local/ns/shop/sa/cart";

fn expected() -> Peer {
    Peer::exactly(SpiffeId::parse(ID).expect("an ID"))
}

/// A sidecar with this environment and these annotations.
fn sidecar(env: Value, annotations: Value) -> Facts {
    let pod = json!({
        "metadata": {"name": "cart-1", "namespace": "shop", "annotations": annotations},
        "spec": {"serviceAccountName": "cart", "nodeName": "node-1", "containers": [
            {"name": "app"}, {"name": "istio-proxy", "args": ["proxy", "sidecar"], "env": env},
        ]},
        "status": {"phase": "Running", "podIP": "10.0.0.17"},
    });
    match Sighting::of(&serde_json::from_value(pod).expect("a pod"), &Reach::default()) {
        Sighting::Meshed(facts) => *facts,
        other => panic!("{other:?}"),
    }
}

fn open() -> Facts {
    let env = json!([{"name": "ENVOY_SECURE_MERGED_METRICS_PORT", "value": "15092"}]);
    sidecar(env, json!({"prometheus.istio.io/secure-port": "15092"}))
}

fn hardened() -> Facts {
    let env = json!([
        {"name": "ENVOY_SECURE_MERGED_METRICS_PORT", "value": "15092"},
        {"name": "METRICS_LOCALHOST_ACCESS_ONLY", "value": "true"},
    ]);
    sidecar(env, json!({"prometheus.istio.io/secure-port": "15092"}))
}

fn peer() -> PeerReport {
    PeerReport {
        identity: ID.to_owned(),
        exact: true,
        tls_version: "TLSv1.3".to_owned(),
        cipher: "TLS_AES_256_GCM_SHA384".to_owned(),
        not_after: UNIX_EPOCH,
        chain: Vec::new(),
    }
}

fn good<E>() -> Result<Answered, E> {
    Ok(Answered { status: 200, peer: peer(), overdue_after: UNIX_EPOCH })
}

/// Once it was known who it is.
fn broken_off(reason: Reason) -> Unanswered {
    Unanswered { failure: Failure::new(reason, "as it is"), peer: Some(peer()) }
}

fn refused<T, E: From<Failure>>(reason: Reason) -> Result<T, E> {
    Err(Failure::new(reason, "as it is").into())
}

fn plain(port: u16, outcome: Result<PlainAnswer, Failure>) -> Plainly {
    Plainly { port, outcome }
}

/// A pod in order: everything as it should be, no agent here.
fn evidence() -> Evidence {
    Evidence {
        ip: IpAddr::from([10, 0, 0, 17]),
        secure: vec![SecurePort {
            scrape: Securely { port: 15092, outcome: good(), wants_alpn: false },
            plain: plain(15092, Ok(PlainAnswer::Closed)),
            anonymous: refused(Reason::ClientCertificateRejected),
        }],
        plain_merged: plain(15020, Ok(PlainAnswer::Status(200))),
        plain_envoy: plain(15090, Ok(PlainAnswer::Status(200))),
        agent: Agent::Absent("no agent answers".to_owned()),
    }
}

/// The verdict of a check, and what was seen.
fn verdict(facts: &Facts, evidence: &Evidence, id: &str, port: u16) -> (Verdict, String) {
    let steps = judge(facts, &expected(), evidence);
    let step = steps.iter().find(|step| step.id == id && step.port == Some(port)).expect("a check of this name");
    assert_eq!(step.next.is_some(), step.verdict == Verdict::Failed, "{step:?}");
    (step.verdict, step.seen.clone())
}

fn told(health: &str, identity: &str) -> Agent {
    told_of("https://10.0.0.17:15092/stats/prometheus", health, identity)
}

fn told_of(url: &str, health: &str, identity: &str) -> Agent {
    let labels = json!({"__meta_kubernetes_namespace": "shop", "__meta_kubernetes_pod_name": "cart-1"});
    let target = json!({
        "id": "x", "scrapePool": "mesh", "scrapeUrl": url, "health": health,
        "discoveredLabels": labels, "expectedIdentity": identity, "lastError": "timeout: \u{1b}[31m", "hint": "look",
    });
    let targets = serde_json::from_value(json!({"activeTargets": [target]})).expect("as an agent tells it");
    Agent::Told { targets, named: true }
}

fn nothing(named: bool) -> Agent {
    Agent::Told { targets: serde_json::from_value(json!({})).expect("nothing"), named }
}

#[test]
fn a_pod_in_order_fails_nothing() {
    let steps = judge(&open(), &expected(), &evidence());
    let verdicts: Vec<_> = steps.iter().map(|step| (step.id, step.port.unwrap_or(0), step.verdict)).collect();
    assert_eq!(
        verdicts,
        [
            ("listener", 15092, Verdict::Ok),
            ("identity", 15092, Verdict::Ok),
            ("mtls", 15092, Verdict::Ok),
            ("plain_refused", 15092, Verdict::Ok),
            ("anonymous_refused", 15092, Verdict::Ok),
            ("target", 15092, Verdict::NotAsked),
            ("listener", 15091, Verdict::NotApplicable),
            ("plain", 15090, Verdict::Ok),
            ("plain_closed", 15020, Verdict::NotApplicable),
            ("plain_closed", 15090, Verdict::NotApplicable),
        ]
    );
}

#[test]
fn a_failed_scrape_fails_the_check_that_it_is_about_and_proves_nothing_else() {
    use Verdict::{Failed, NotAsked, Ok};
    for (reason, listener, identity) in [
        (Reason::ConnectRefused, Failed, NotAsked),
        (Reason::PlaintextServer, Failed, NotAsked),
        (Reason::ClosedInHandshake, Failed, NotAsked),
        (Reason::IdentityMismatch, Ok, Failed),
        (Reason::UnknownAuthority, Ok, Failed),
        (Reason::CertificateExpired, Ok, Failed),
        (Reason::ClientCertificateRejected, Ok, NotAsked),
        (Reason::Timeout, Failed, NotAsked),
    ] {
        let mut evidence = evidence();
        evidence.secure[0].scrape.outcome = refused(reason);
        let verdict = |id| verdict(&open(), &evidence, id, 15092).0;
        assert_eq!((verdict("listener"), verdict("identity")), (listener, identity), "{reason}");
        assert_eq!((verdict("mtls"), verdict("anonymous_refused")), (Failed, NotAsked), "{reason}");
    }
}

#[test]
fn what_was_verified_before_it_failed_counts() {
    for reason in [Reason::Timeout, Reason::ClosedAfterHandshake, Reason::ClientCertificateRejected] {
        let mut evidence = evidence();
        evidence.secure[0].scrape.outcome = Err(broken_off(reason));
        let verdict = |id| verdict(&open(), &evidence, id, 15092);
        assert_eq!(verdict("listener"), (Verdict::Ok, "TLSv1.3 TLS_AES_256_GCM_SHA384".to_owned()), "{reason}");
        assert_eq!(verdict("identity"), (Verdict::Ok, ID.to_owned()), "{reason}");
        let [mtls, plain, anonymous] = ["mtls", "plain_refused", "anonymous_refused"].map(|id| verdict(id).0);
        assert_eq!((mtls, plain, anonymous), (Verdict::Failed, Verdict::Ok, Verdict::NotAsked), "{reason}");
    }
}

#[test]
fn what_is_asked_to_be_refused_must_be() {
    let mut evidence = evidence();
    for (answer, wanted) in [
        (Ok(PlainAnswer::Closed), Verdict::Ok),
        (Ok(PlainAnswer::NotHttp), Verdict::Ok),
        (Ok(PlainAnswer::Status(503)), Verdict::Ok),
        (Ok(PlainAnswer::Status(200)), Verdict::Failed),
        (Ok(PlainAnswer::Status(404)), Verdict::Failed),
        (refused(Reason::Timeout), Verdict::NotAsked),
    ] {
        evidence.secure[0].plain.outcome = answer.clone();
        assert_eq!(verdict(&open(), &evidence, "plain_refused", 15092).0, wanted, "{answer:?}");
    }
    evidence.secure[0].plain.outcome = Ok(PlainAnswer::Closed);
    evidence.secure[0].scrape.outcome = refused(Reason::ClosedInHandshake);
    let nobody = verdict(&open(), &evidence, "plain_refused", 15092).0;
    assert_eq!(nobody, Verdict::NotAsked, "who closes everything may be something on the way");
    evidence.secure[0].scrape.outcome = good();
    for (answer, wanted) in [
        (refused(Reason::ClosedInHandshake), Verdict::Ok),
        (refused(Reason::TlsHandshake), Verdict::Ok),
        (refused(Reason::IdentityMismatch), Verdict::NotAsked),
        (good(), Verdict::Failed),
    ] {
        evidence.secure[0].anonymous = answer.clone();
        assert_eq!(verdict(&open(), &evidence, "anonymous_refused", 15092).0, wanted, "{answer:?}");
    }
}

#[test]
fn only_who_gets_metrics_in_plain_text_is_said_to_read_them() {
    for (status, reads) in [(200, true), (400, false), (404, false)] {
        let mut evidence = evidence();
        evidence.secure[0].plain.outcome = Ok(PlainAnswer::Status(status));
        let steps = judge(&open(), &expected(), &evidence);
        let next = steps.into_iter().find(|step| step.id == "plain_refused").and_then(|step| step.next);
        assert_eq!(next.expect("something to do").contains("reads it"), reads, "{status}");
    }
}

#[test]
fn the_target_is_up_as_the_same_identity() {
    let mut evidence = evidence();
    for (agent, wanted, says) in [
        (told("up", ID), Verdict::Ok, "https://10.0.0.17:15092/stats/prometheus in job mesh"),
        (told("up", ""), Verdict::Ok, "in job mesh"),
        (told("up", "spiffe://cluster.local/ns/shop/sa/other"), Verdict::Failed, "expects spiffe://"),
        (told("down", ID), Verdict::Failed, "is down: timeout: \\u{1b}"),
        (told("unknown", ID), Verdict::Failed, "has not been scraped yet"),
        (told_of("https://10.0.0.18:15092/x", "up", ID), Verdict::Failed, "is not at https://10.0.0.17:15092/"),
        (told_of("http://10.0.0.17:15092/x", "up", ID), Verdict::Failed, "is not at https://10.0.0.17:15092/"),
        (nothing(true), Verdict::Failed, "no job of its agent"),
        (nothing(false), Verdict::NotAsked, "has never heard of the pod"),
        (Agent::Silent("gone".to_owned()), Verdict::Failed, "gone"),
    ] {
        evidence.agent = agent;
        let (verdict, seen) = verdict(&open(), &evidence, "target", 15092);
        assert!(verdict == wanted && seen.contains(says), "{verdict:?} {seen}");
    }
    let unnamed = sidecar(json!([{"name": "ENVOY_SECURE_MERGED_METRICS_PORT", "value": "15092"}]), json!({}));
    assert_eq!(verdict(&unnamed, &evidence, "target", 15092).0, Verdict::Failed);
}

#[test]
fn an_agent_that_is_silent_is_to_be_forwarded_and_asked_there() {
    let silent = Evidence { agent: Agent::Silent("gone".to_owned()), ..evidence() };
    let steps = judge(&open(), &expected(), &silent);
    let next = steps.into_iter().find(|step| step.id == "target").and_then(|step| step.next).expect("something to do");
    for part in [
        "the agent's pod on node node-1",
        "`kubectl port-forward -n NAMESPACE AGENT_POD 9465`",
        "--agent http://127.0.0.1:9465",
    ] {
        assert!(next.contains(part), "{part}: {next}");
    }
}

#[test]
fn the_agents_rule_says_who_may_answer_for_the_target() {
    let of = |words: &str, rule: &str, ids: &[&str]| {
        let mut agent = told("up", words);
        if let Agent::Told { targets, .. } = &mut agent {
            let target = &mut targets.active_targets[0];
            target.identity_match = rule.to_owned();
            target.accepted_identities = ids.iter().map(|id| (*id).to_owned()).collect();
        }
        agent
    };
    let (alias, neighbour) = ("spiffe://old.local/ns/shop/sa/cart", "spiffe://cluster.local/ns/shop/sa/other");
    let (stranger, abroad) = ("spiffe://cluster.local/ns/other/sa/cart", "spiffe://else.local/ns/shop/sa/cart");
    let mut evidence = evidence();
    for (agent, wanted) in [
        (of(&format!("{ID} (or 1 more)"), "exact", &[ID, alias]), Verdict::Ok),
        (of(&format!("{alias} (or 1 more)"), "exact", &[alias, ID]), Verdict::Ok),
        (of("x", "exact", &[neighbour]), Verdict::Failed),
        (of("x", "namespace", &[neighbour]), Verdict::Ok),
        (of("x", "namespace", &[stranger]), Verdict::Failed),
        (of("x", "namespace", &[abroad]), Verdict::Failed),
        (of("x", "trust_domain", &[stranger]), Verdict::Ok),
        (of("x", "trust_domain", &[abroad]), Verdict::Failed),
        (of("x", "regex", &[ID]), Verdict::NotAsked),
        (of("x", "exact", &["cart"]), Verdict::NotAsked),
        (of(&format!("any service account of the namespace of {ID}"), "", &[]), Verdict::NotAsked),
        (of(ID, "", &[]), Verdict::Ok),
    ] {
        evidence.agent = agent;
        let (verdict, seen) = verdict(&open(), &evidence, "target", 15092);
        assert_eq!(verdict, wanted, "{seen}");
    }
}

#[test]
fn a_hardened_pod_must_keep_its_plaintext_ports_closed() {
    let mut evidence = evidence();
    assert_eq!(verdict(&hardened(), &evidence, "plain", 15090).0, Verdict::NotApplicable);
    assert_eq!(verdict(&hardened(), &evidence, "plain_closed", 15090).0, Verdict::Failed);
    evidence.plain_merged = plain(15020, Ok(PlainAnswer::Status(403)));
    evidence.plain_envoy = plain(15090, refused(Reason::ConnectRefused));
    for port in [15020, 15090] {
        assert_eq!(verdict(&hardened(), &evidence, "plain_closed", port).0, Verdict::Ok);
    }
    for (answer, wanted) in [
        // Our own proxy, if it captures what goes out, takes every connection and closes it.
        (PlainAnswer::Closed, Verdict::NotAsked),
        (PlainAnswer::NotHttp, Verdict::Failed),
        (PlainAnswer::Status(200), Verdict::Failed),
    ] {
        evidence.plain_envoy = plain(15090, Ok(answer));
        assert_eq!(verdict(&hardened(), &evidence, "plain_closed", 15090).0, wanted, "{answer:?}");
    }
    evidence.plain_envoy = plain(15090, refused(Reason::ConnectTimeout));
    assert_eq!(verdict(&hardened(), &evidence, "plain_closed", 15090).0, Verdict::NotAsked);
    assert_eq!(verdict(&open(), &evidence, "plain", 15090).0, Verdict::NotAsked, "something is in the way");
}

/// A restart closes nothing where Envoy's bootstrap does not know what the environment says.
#[test]
fn an_open_plaintext_port_is_closed_where_its_proxy_has_it_from() {
    let env = json!([{"name": "METRICS_LOCALHOST_ACCESS_ONLY", "value": "true"}]);
    let set = "proxyMetadata: {METRICS_LOCALHOST_ACCESS_ONLY: \"true\"}";
    let restart = "start the pod anew; if it answers still, its Istio does not know METRICS_LOCALHOST_ACCESS_ONLY";
    let write = "in the pod template, add METRICS_LOCALHOST_ACCESS_ONLY: \"true\" to the environment of the container \
                 istio-proxy, and to the proxyMetadata of proxy.istio.io/config";
    for (annotations, next) in [
        (json!({}), restart),
        (json!({"sidecar.istio.io/inject": "false"}), write),
        (json!({"sidecar.istio.io/inject": "false", "proxy.istio.io/config": "concurrency: 1"}), write),
        (json!({"sidecar.istio.io/inject": "false", "proxy.istio.io/config": set}), restart),
    ] {
        let facts = sidecar(env.clone(), annotations.clone());
        let steps = judge(&facts, &expected(), &evidence());
        let step = steps.iter().find(|step| step.id == "plain_closed" && step.port == Some(15090)).expect("a step");
        assert_eq!((step.verdict, step.next.as_deref()), (Verdict::Failed, Some(next)), "{annotations}");
    }
}

#[test]
fn what_a_pod_is_told_elsewhere_about_its_plaintext_ports_is_not_known() {
    let env = json!([
        {"name": "ENVOY_SECURE_MERGED_METRICS_PORT", "value": "15092"},
        {"name": "METRICS_LOCALHOST_ACCESS_ONLY", "valueFrom": {"fieldRef": {"fieldPath": "x"}}},
    ]);
    let hidden = sidecar(env, json!({"prometheus.istio.io/secure-port": "15092"}));
    let mut evidence = evidence();
    let verdict = |evidence: &Evidence, id, port| verdict(&hidden, evidence, id, port);
    assert_eq!(verdict(&evidence, "plain", 15090).0, Verdict::Ok);
    let (closed, seen) = verdict(&evidence, "plain_closed", 15020);
    assert!(closed == Verdict::NotAsked && seen.contains("METRICS_LOCALHOST_ACCESS_ONLY"), "{closed:?} {seen}");
    evidence.plain_merged = plain(15020, Ok(PlainAnswer::Status(403)));
    evidence.plain_envoy = plain(15090, refused(Reason::ConnectRefused));
    assert_eq!(verdict(&evidence, "plain_closed", 15020).0, Verdict::Ok);
    assert_eq!(verdict(&evidence, "plain", 15090).0, Verdict::NotAsked);
}

#[test]
fn a_pod_without_secure_ports_is_told_how_to_open_one() {
    let mut evidence = evidence();
    evidence.secure.clear();
    let off = sidecar(json!([]), json!({}));
    assert_eq!(verdict(&off, &evidence, "listener", 15092).0, Verdict::Failed);
    assert_eq!(verdict(&off, &evidence, "listener", 15091).0, Verdict::NotApplicable);
}

#[test]
fn a_port_beside_the_convention_is_asked_where_that_is_allowed_and_never_called_closed() {
    let env = json!([{"name": "ENVOY_SECURE_MERGED_METRICS_PORT", "value": "16092"}]);
    let unusual = sidecar(env, json!({"prometheus.istio.io/secure-port": "16092"}));
    let mut evidence = evidence();
    let asked = evidence.secure.remove(0);
    let (verdict_of, seen) = verdict(&unusual, &evidence, "listener", 16092);
    assert_eq!(verdict_of, Verdict::NotAsked);
    assert!(seen.contains("--port 16092"), "{seen}");
    assert_eq!(verdict(&unusual, &evidence, "listener", 15091).0, Verdict::NotApplicable);
    evidence.secure.push(SecurePort { scrape: Securely { port: 16092, ..asked.scrape }, ..asked });
    for id in ["listener", "identity", "mtls", "plain_refused", "anonymous_refused"] {
        assert_eq!(verdict(&unusual, &evidence, id, 16092).0, Verdict::Ok, "{id}");
    }
    // What is announced is asked, too, whatever is open.
    let env = json!([{"name": "ENVOY_SECURE_MERGED_METRICS_PORT", "value": "16092"}]);
    let other = sidecar(env, json!({"prometheus.istio.io/secure-port": "15092"}));
    evidence.secure[0].scrape = Securely { port: 15092, outcome: refused(Reason::ConnectRefused), wants_alpn: false };
    assert_eq!(verdict(&other, &evidence, "listener", 16092).0, Verdict::NotAsked);
    assert_eq!(verdict(&other, &evidence, "listener", 15092).0, Verdict::Failed);
}

#[test]
fn a_pod_whose_ports_are_not_known_is_not_verified() {
    let from = |name: &str| json!({"name": name, "valueFrom": {"configMapKeyRef": {"key": "k", "name": "n"}}});
    let (merged, envoy) = ("ENVOY_SECURE_MERGED_METRICS_PORT", "ENVOY_SECURE_METRICS_PORT");
    let mut evidence = evidence();
    let asked = std::mem::take(&mut evidence.secure);
    for (env, on_merged, on_envoy) in [
        (json!([from(merged), from(envoy)]), Verdict::NotAsked, Verdict::NotAsked),
        (json!([from(merged)]), Verdict::NotAsked, Verdict::NotApplicable),
        (json!([from(envoy)]), Verdict::NotApplicable, Verdict::NotAsked),
    ] {
        let vague = sidecar(env, json!({}));
        for (port, wanted, variable) in [(15092, on_merged, merged), (15091, on_envoy, envoy)] {
            let (verdict, seen) = verdict(&vague, &evidence, "listener", port);
            assert!(verdict == wanted && seen.contains(variable), "{port}: {verdict:?} {seen}");
        }
        assert_eq!(Outcome::of(&judge(&vague, &expected(), &evidence)), Outcome::Unproven);
    }
    evidence.secure = asked;
    assert_eq!(Outcome::of(&judge(&open(), &expected(), &evidence)), Outcome::Verified);
    evidence.secure[0].scrape.outcome = refused(Reason::ConnectRefused);
    assert_eq!(Outcome::of(&judge(&open(), &expected(), &evidence)), Outcome::Failed);
}

#[test]
fn a_captured_pod_is_told_the_change_that_ends_it() {
    let mut evidence = evidence();
    evidence.secure[0].scrape.outcome = refused(Reason::ClosedAfterHandshake);
    let mut agent = told("down", ID);
    if let Agent::Told { targets, .. } = &mut agent {
        targets.active_targets[0].reason = Reason::ClosedAfterHandshake.name().to_owned();
    }
    evidence.agent = agent;
    let next_of = |facts: &Facts, id: &str| {
        let steps = judge(facts, &expected(), &evidence);
        steps.into_iter().find(|step| step.id == id).and_then(|step| step.next).expect("something to do")
    };
    let next = |facts: &Facts| next_of(facts, MTLS);
    assert_eq!(next(&open()), open().source.excluding(15092));
    assert_eq!(next_of(&open(), "target"), next(&open()), "of its target, too");
    let env = json!([{"name": "ENVOY_SECURE_MERGED_METRICS_PORT", "value": "15092"}]);
    let excluded = json!({"traffic.sidecar.istio.io/excludeInboundPorts": "15092"});
    assert_eq!(next(&sidecar(env, excluded)), Reason::ClosedAfterHandshake.hint(), "nothing captures it");
}
