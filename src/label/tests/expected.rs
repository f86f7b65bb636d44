//! Who may answer for a target.

use proptest::prelude::*;

use super::*;

#[test]
fn a_pod_is_expected_to_be_its_service_account() {
    let made = target(&spiffe_job(), &POD);
    assert_eq!(expected(&made), "spiffe://cluster.local/ns/shop/sa/cart");
    assert_eq!(text(&made.labels), "instance=10.0.0.7:15092 job=j", "the identity never reaches a series");
}

#[test]
fn a_rule_may_replace_the_identity_by_name() {
    let mut job = spiffe_job();
    job.relabel = vec![rule("__meta_kubernetes_namespace", "(.*)", "__spiffe_id__", "spiffe://td/spire/$1")];
    assert_eq!(expected(&target(&job, &POD)), "spiffe://td/spire/shop");
}

#[test]
fn without_the_trust_domain_the_target_waits() {
    let wait = |job: &ScrapeConfig, labels: &[(&str, &str)]| {
        targets_of(job, &[candidate(labels)], None).active[0].as_ref().clone()
    };
    assert_eq!(refusal(&wait(&spiffe_job(), &POD)), Reason::IdentityUnknown);
    // Who names the identity himself does not depend on the trust domain, and who has no account waits for nothing.
    let named = wait(&spiffe_job(), &[("__address__", "h:1"), ("__spiffe_id__", "spiffe://td/a")]);
    assert_eq!(expected(&named), "spiffe://td/a");
    assert_eq!(refusal(&wait(&spiffe_job(), &[("__address__", "h:1")])), Reason::NoExpectedIdentity);
}

#[test]
fn without_a_well_formed_identity_nobody_may_answer() {
    for id in ["", "SPIFFE://td/a", "spiffe://TD/a", "spiffe://td/a/", "spiffe://td", "https://td/a", "a"] {
        let made = target(&spiffe_job(), &[("__address__", "h:1"), ("__spiffe_id__", id)]);
        assert_eq!(refusal(&made), Reason::NoExpectedIdentity, "{id:?}");
    }
    for phase in ["Succeeded", "Failed"] {
        let made = target(&spiffe_job(), &pod_with(&[("__meta_kubernetes_pod_phase", phase)]));
        assert_eq!(refusal(&made), Reason::NoExpectedIdentity, "{phase}");
    }
    let mut job = spiffe_job();
    job.relabel = vec![rule_on(Action::LabelDrop, "", "__spiffe_id__", None)];
    assert_eq!(refusal(&target(&job, &POD)), Reason::NoExpectedIdentity);
    // A role that knows no service account, such as node.
    assert_eq!(refusal(&target(&spiffe_job(), &POD[..2])), Reason::NoExpectedIdentity);
}

#[test]
fn an_identity_that_came_by_a_template_or_by_mapping_does_not_count() {
    let steered = pod_with(&[
        ("__meta_kubernetes_pod_annotation_name", "__spiffe_id__"),
        ("__meta_kubernetes_pod_annotation_x__spiffe_id__", "spiffe://cluster.local/ns/evil/sa/evil"),
    ]);
    let by_template = rule(
        "__meta_kubernetes_pod_annotation_name,__meta_kubernetes_pod_annotation_x__spiffe_id__",
        "(.*);(.*)",
        "${1}",
        "$2",
    );
    let by_mapping = rule_on(Action::LabelMap, "", "__meta_kubernetes_pod_annotation_x(.+)", Some("$1"));
    for rule in [by_template, by_mapping] {
        let mut job = spiffe_job();
        job.relabel = vec![rule];
        assert_eq!(refusal(&target(&job, &steered)), Reason::NoExpectedIdentity);
        job.identity_from_annotations = true;
        assert_eq!(expected(&target(&job, &steered)), "spiffe://cluster.local/ns/evil/sa/evil");
    }
}

#[test]
fn a_rule_that_names_the_identity_excuses_only_what_it_writes() {
    const EVIL: &str = "spiffe://cluster.local/ns/evil/sa/evil";
    let by_mapping = || rule_on(Action::LabelMap, "", "x(__spiffe_id__)", Some("$1"));
    let literal = |source, regex, replacement| rule(source, regex, SPIFFE_ID_LABEL, replacement);
    let spec = RuleSpec {
        regex: Some("x(__spiffe_id__)".to_owned()),
        target_label: Some(SPIFFE_ID_LABEL.to_owned()),
        action: Action::LabelMap,
        ..RuleSpec::default()
    };
    let mapping_that_names_it = Rule::new(spec, NameScheme::Utf8).expect("a usable rule");
    for (name, rules) in [
        ("it does not match", vec![by_mapping(), literal("nothing", "(.+)", "$1")]),
        ("it writes what stands there", vec![by_mapping(), literal("__spiffe_id__", "(.*)", "$1")]),
        ("it changes what stands there", vec![by_mapping(), literal("__spiffe_id__", "(.*)/evil", "$1/other")]),
        ("it is a labelmap", vec![mapping_that_names_it]),
    ] {
        let mut job = spiffe_job();
        job.relabel = rules;
        let made = target(&job, &pod_with(&[("x__spiffe_id__", EVIL)]));
        assert_eq!(refusal(&made), Reason::NoExpectedIdentity, "{name}");
    }
    let mut job = spiffe_job();
    job.relabel = vec![by_mapping(), literal("__meta_kubernetes_namespace", "(.*)", "spiffe://td/$1")];
    assert_eq!(expected(&target(&job, &pod_with(&[("x__spiffe_id__", EVIL)]))), "spiffe://td/shop");
}

#[test]
fn a_spiffe_job_scrapes_https_whatever_a_label_says() {
    for scheme in ["http", "HTTPS", "ftp", "https ", "unix"] {
        let made = target(&spiffe_job(), &pod_with(&[("__scheme__", scheme)]));
        assert_eq!(refusal(&made), Reason::PlaintextRefused, "{scheme:?}");
    }
    let mut job = spiffe_job();
    job.relabel = vec![rule_on(Action::LabelDrop, "", "__scheme__", None)];
    assert_eq!(refusal(&target(&job, &POD)), Reason::PlaintextRefused);
}

/// A candidate at 10.0.0.7 with labels of its own, and the pod that it is.
fn pod_candidate(labels: &[(&'static str, &'static str)], uid: &str, finished: bool, terminating: bool) -> Candidate {
    let pod = Pod {
        name: "shop/cart-1".into(),
        uid: uid.into(),
        ip: Some([10, 0, 0, 7].into()),
        created: 0,
        host_network: false,
        finished,
        terminating,
    };
    Candidate { pod: Some(Arc::new(pod)), ..candidate(&pod_with(labels)) }
}

#[test]
fn nobody_may_answer_for_a_finished_pod_whoever_names_an_identity() {
    let mut named = spiffe_job();
    named.relabel = vec![rule("__meta_kubernetes_namespace", "(.*)", "__spiffe_id__", "spiffe://td/spire/$1")];
    for job in [spiffe_job(), named] {
        let made =
            |finished| judge(&job, &pod_candidate(&[], "u", finished, false), Some(&domain())).expect("a target");
        assert_eq!(refusal(&made(true)), Reason::NoExpectedIdentity);
        assert!(matches!(made(false).verification, Verification::Spiffe(_)));
    }
    // Not even while the trust domain is not known yet.
    let waiting = judge(&spiffe_job(), &pod_candidate(&[], "u", true, false), None).expect("a target");
    assert_eq!(refusal(&waiting), Reason::NoExpectedIdentity);
}

#[test]
fn a_target_goes_on_while_its_pod_is_the_same_whatever_becomes_of_it() {
    let made = |labels: &[(&'static str, &'static str)], uid, terminating| {
        judge(&spiffe_job(), &pod_candidate(labels, uid, false, terminating), Some(&domain())).expect("a target")
    };
    let first = made(&[], "u", false);
    assert!(made(&[("__meta_kubernetes_pod_annotation_x", "y")], "u", true).continues(&first));
    let another = made(&[], "v", false);
    assert_eq!(another.id, first.id);
    assert!(!another.continues(&first), "another pod of the same name");
    let offered = made(&[("__alpn__", "istio-http/1.1")], "u", false);
    assert!(offered.id != first.id && !offered.continues(&first));
    assert!(offered.alpn.names().eq(["istio-http/1.1"]) && first.alpn.is_empty());
}

#[test]
fn names_of_one_trust_domain_are_accepted_for_each_other_only() {
    let mut job = spiffe_job();
    let JobSecurity::Spiffe(spiffe) = &mut job.security else { panic!("a SPIFFE job") };
    spiffe.aliases = vec![TrustDomain::parse("old").expect("valid")];
    let accepted = |id: &str| {
        let made = target(&job, &[("__address__", "h:1"), ("__spiffe_id__", id)]);
        match &made.verification {
            Verification::Spiffe(peer) => {
                peer.accepted().iter().map(|id| id.as_str().to_owned()).collect::<Vec<_>>().join(" ")
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(accepted("spiffe://cluster.local/a"), "spiffe://cluster.local/a spiffe://old/a");
    assert_eq!(accepted("spiffe://old/a"), "spiffe://old/a spiffe://cluster.local/a");
    assert_eq!(accepted("spiffe://foreign/a"), "spiffe://foreign/a");
}

proptest! {
    /// Whatever a pod's owner writes into labels that rules copy everywhere: somebody verified is asked, or nobody.
    #[test]
    fn no_label_weakens_a_spiffe_job(
        pairs in prop::collection::vec((
            prop::sample::select(vec![
                "__address__", "__scheme__", "__spiffe_id__", "__metrics_path__", "__param_a", "instance", "job",
                "__meta_a", "__meta_kubernetes_namespace", "__meta_kubernetes_pod_service_account_name",
            ]),
            prop_oneof![
                prop::sample::select(vec![
                    "http", "https", "h:1", "10.0.0.1", "x@h:1", "/m?a=b", "spiffe://td/a", "spiffe://TD/a", "__scheme__",
                    "__spiffe_id__", "", "1s",
                ]).prop_map(str::to_owned),
                any::<String>(),
            ],
        ), 0..8),
        known in any::<bool>(),
    ) {
        let mut job = spiffe_job();
        job.relabel = vec![
            rule("__meta_a,__param_a", "(.*);(.*)", "${1}", "$2"),
            rule_on(Action::LabelMap, "", "__meta_(.+)", Some("__$1__")),
        ];
        let domain = known.then(domain);
        let candidate = Candidate { labels: pairs.into_iter().collect(), source: "test".into(), pod: None };
        for target in targets_of(&job, &[candidate], domain.as_ref()).active {
            match &target.verification {
                Verification::Spiffe(_) => prop_assert_eq!(target.scheme, Scheme::Https),
                Verification::Refused(_) => {}
                other => prop_assert!(false, "{:?}", other),
            }
            let line = target.path_and_query.as_bytes();
            prop_assert!(line[0] == b'/' && line.iter().all(|byte| byte.is_ascii_graphic()), "{}", target.path_and_query);
            prop_assert!(target.labels.iter().all(|(name, _)| !name.starts_with("__")), "{}", target.labels);
        }
    }
}
