//! Targets as tables: what the candidate says, what the job says, what comes of it.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::config::{
    CertificateFiles, EscapingScheme, Histograms, JobSecurity, Limits, OrdinaryTls, ScrapeConfig, ScrapeProtocol,
    SpiffeJob,
};
use crate::model::{
    Candidate, JobTargets, Labels, Match, Pod, Reason, Scheme, Target, Tenant, TenantRule, Tenants, TrustDomain,
    Verification,
};
use crate::relabel::{Action, NameScheme, Rule, RuleSpec};

/// An ordinary job with Prometheus's defaults.
pub(crate) fn ordinary_job() -> ScrapeConfig {
    ScrapeConfig {
        job_name: "j".into(),
        scrape_interval: Duration::from_secs(60),
        scrape_timeout: Duration::from_secs(10),
        scrape_protocols: ScrapeProtocol::TEXT.to_vec(),
        fallback_scrape_protocol: None,
        metrics_path: "/metrics".to_owned(),
        scheme: Scheme::Http,
        params: Vec::new(),
        honor_labels: false,
        honor_timestamps: true,
        track_timestamps_staleness: false,
        enable_compression: true,
        follow_redirects: true,
        enable_http2: true,
        require_complete: false,
        trust_target_labels: false,
        protect_external_labels: false,
        identity_from_annotations: false,
        limits: Limits::default(),
        histograms: Histograms::default(),
        names: NameScheme::Utf8,
        escaping: EscapingScheme::AllowUtf8,
        extra_scrape_metrics: false,
        relabel: Vec::new(),
        metric_relabel: Vec::new(),
        static_configs: Vec::new(),
        file_sd_configs: Vec::new(),
        http_sd_configs: Vec::new(),
        kubernetes_sd_configs: Vec::new(),
        pod_ports: Vec::new(),
        pod_cidrs: Vec::new(),
        namespace_target_limit: 0,
        security: JobSecurity::Ordinary(OrdinaryTls::default()),
        auth: None,
        oauth2: None,
        http_headers: Vec::new(),
        proxies: None,
        tenants: Vec::new(),
    }
}

/// A job that verifies SPIFFE IDs.
pub(crate) fn spiffe_job() -> ScrapeConfig {
    let files = CertificateFiles::in_dir("/certs".as_ref());
    let security = SpiffeJob { files, trust_domain: None, aliases: Vec::new(), rule: Match::Exact };
    ScrapeConfig { scheme: Scheme::Https, security: JobSecurity::Spiffe(security), ..ordinary_job() }
}

/// A candidate with these labels.
pub(crate) fn candidate(labels: &[(&str, &str)]) -> Candidate {
    Candidate { labels: labels.iter().copied().collect(), source: "test".into(), pod: None }
}

pub(super) fn domain() -> TrustDomain {
    TrustDomain::parse("cluster.local").expect("valid")
}

fn rule(source: &str, regex: &str, target: &str, replacement: &str) -> Rule {
    let spec = RuleSpec {
        source_labels: source.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect(),
        regex: Some(regex.to_owned()),
        target_label: Some(target.to_owned()),
        replacement: Some(replacement.to_owned()),
        ..RuleSpec::default()
    };
    Rule::new(spec, NameScheme::Utf8).expect("a usable rule")
}

fn rule_on(action: Action, source: &str, regex: &str, replacement: Option<&str>) -> Rule {
    let spec = RuleSpec {
        source_labels: source.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect(),
        regex: Some(regex.to_owned()),
        replacement: replacement.map(str::to_owned),
        action,
        ..RuleSpec::default()
    };
    Rule::new(spec, NameScheme::Utf8).expect("a usable rule")
}

pub(super) fn targets(job: &ScrapeConfig, candidates: &[&[(&str, &str)]]) -> JobTargets {
    let candidates: Vec<Candidate> = candidates.iter().map(|labels| candidate(labels)).collect();
    targets_of(job, &candidates, Some(&domain()))
}

/// The one target that comes of one candidate.
fn target(job: &ScrapeConfig, labels: &[(&str, &str)]) -> Arc<Target> {
    let targets = targets(job, &[labels]);
    assert_eq!(targets.active.len(), 1, "{:?}", targets.dropped);
    targets.active[0].clone()
}

/// Why one candidate comes to no target.
fn error(job: &ScrapeConfig, labels: &[(&str, &str)]) -> String {
    let targets = targets(job, &[labels]);
    assert_eq!((targets.active.len(), targets.dropped.len(), targets.dropped_count), (0, 1, 1));
    targets.dropped[0].error.clone().expect("malformed, not dropped by a rule")
}

pub(super) fn refusal(target: &Target) -> Reason {
    match &target.verification {
        Verification::Refused(failure) => failure.reason,
        other => panic!("{other:?}"),
    }
}

fn text(labels: &Labels) -> String {
    labels.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
}

#[test]
fn the_job_fills_in_what_the_candidate_lacks() {
    let mut job = ordinary_job();
    job.params = vec![("b".to_owned(), vec!["1 2".to_owned()]), ("a".to_owned(), vec!["x".to_owned(), "y".to_owned()])];
    let made = target(&job, &[("__address__", "10.0.0.1:80"), ("env", "prod")]);
    assert_eq!(
        text(&made.discovered),
        "__address__=10.0.0.1:80 __always_scrape_classic_histograms__=false \
         __convert_classic_histograms_to_nhcb__=false __metrics_path__=/metrics __param_a=x __param_b=1 2 \
         __scheme__=http __scrape_interval__=1m __scrape_native_histograms__=false __scrape_timeout__=10s env=prod job=j"
    );
    assert_eq!(text(&made.labels), "env=prod instance=10.0.0.1:80 job=j");
    assert_eq!(made.url(), "http://10.0.0.1:80/metrics?a=x&a=y&b=1+2");
    assert_eq!((made.interval.as_secs(), made.timeout.as_secs()), (60, 10));
    assert_eq!((&*made.pool, &made.verification), ("j", &Verification::None));
}

#[test]
fn which_histograms_are_wanted_is_said_by_the_job_and_by_labels() {
    let mut job = ordinary_job();
    job.histograms.native = true;
    let wanted = |labels: &[(&str, &str)]| {
        let read = target(&job, &[&[("__address__", "h:1")], labels].concat()).histograms;
        (read.native, read.classic_too, read.convert)
    };
    assert_eq!(wanted(&[]), (true, false, false));
    assert_eq!(wanted(&[("__scrape_native_histograms__", "F")]), (false, false, false));
    assert_eq!(wanted(&[("__always_scrape_classic_histograms__", "1")]), (true, true, false));
    assert_eq!(wanted(&[("__convert_classic_histograms_to_nhcb__", "True")]), (true, false, true));
    assert_eq!(wanted(&[("__scrape_native_histograms__", "")]), (true, false, false));
}

#[test]
fn the_candidate_wins_over_the_job() {
    let mut job = ordinary_job();
    job.params = vec![("a".to_owned(), vec!["x".to_owned(), "y".to_owned()])];
    let made = target(
        &job,
        &[
            ("__address__", "h:1"),
            ("job", "own"),
            ("instance", "me"),
            ("__scheme__", "https"),
            ("__metrics_path__", "probe"),
            ("__param_a", "z"),
            ("__param_c", "&"),
            ("__scrape_interval__", "1m30s"),
            ("__scrape_timeout__", "500ms"),
            ("__meta_x", "1"),
            ("__tmp", "1"),
        ],
    );
    assert_eq!(text(&made.labels), "instance=me job=own");
    assert_eq!(made.url(), "https://h:1/probe?a=z&a=y&c=%26");
    assert_eq!((made.interval, made.timeout), (Duration::from_secs(90), Duration::from_millis(500)));
    assert_eq!((&*made.pool, &made.verification), ("j", &Verification::HostName));
}

#[test]
fn paths_and_parameters_are_escaped_as_in_go() {
    for (path, expected) in [
        ("/metrics", "/metrics"),
        ("metrics", "/metrics"),
        ("/a?b", "/a%3Fb"),
        ("/a%20b", "/a%2520b"),
        ("/a b", "/a%20b"),
        ("/é", "/%C3%A9"),
        ("/a!*'()[]\"<>", "/a%21%2A%27%28%29%5B%5D%22%3C%3E"),
        ("/$&+,/:;=@", "/$&+,/:;=@"),
        ("/a#b", "/a%23b"),
        ("/~-_.", "/~-_."),
        ("/a\r\nb", "/a%0D%0Ab"),
    ] {
        let made = target(&ordinary_job(), &[("__address__", "h:1"), ("__metrics_path__", path)]);
        assert_eq!(&*made.path_and_query, expected, "{path:?}");
    }
    let mut job = ordinary_job();
    job.params = vec![
        ("b".to_owned(), vec!["1 2".to_owned(), "x&y".to_owned()]),
        ("a".to_owned(), vec!["é+~-_.*".to_owned()]),
        ("c".to_owned(), vec![]),
    ];
    let made = target(&job, &[("__address__", "h:1")]);
    assert_eq!(&*made.path_and_query, "/metrics?a=%C3%A9%2B~-_.%2A&b=1+2&b=x%26y");
}

#[test]
fn without_a_path_the_root_is_asked() {
    let mut job = ordinary_job();
    job.relabel = vec![rule_on(Action::LabelDrop, "", "__metrics_path__", None)];
    assert_eq!(&*target(&job, &[("__address__", "h:1")]).path_and_query, "/");
}

#[test]
fn rules_run_after_the_defaults_and_before_the_checks() {
    let mut job = ordinary_job();
    job.relabel = vec![
        rule("__meta_host,__meta_port", "(.+);(.+)", "__address__", "$1:$2"),
        rule("__address__", "(.*):.*", "host", "$1"),
        rule("job", "(.*)", "job", "${1}x"),
        rule_on(Action::Drop, "host", "out", None),
    ];
    let made = targets(
        &job,
        &[&[("__meta_host", "in"), ("__meta_port", "80")], &[("__meta_host", "out"), ("__meta_port", "80")]],
    );
    assert_eq!(made.active.len(), 1);
    assert_eq!(text(&made.active[0].labels), "host=in instance=in:80 job=jx");
    assert_eq!((made.dropped_count, made.dropped[0].by_rule, &made.dropped[0].error), (1, Some(3), &None));
    assert_eq!(made.dropped[0].discovered.value("__meta_host"), "out");
}

#[test]
fn malformed_targets_say_what_is_wrong() {
    for (labels, part) in [
        (&[("x", "y")][..], "no address"),
        (&[("__address__", "http://h:1")], "'/' may not stand in an address"),
        (&[("__address__", "1.2.3.4:x@evil.example:443")], "'@' may not stand in an address"),
        (&[("__address__", "h:0")], "\"0\" is not a port"),
        (&[("__address__", "h"), ("__scrape_interval__", "60")], "__scrape_interval__ \"60\" is not a duration"),
        (&[("__address__", "h"), ("__scrape_timeout__", "-1s")], "__scrape_timeout__ \"-1s\" is not a duration"),
        (&[("__address__", "h"), ("__scrape_interval__", "0s")], "scrape interval cannot be 0"),
        (&[("__address__", "h"), ("__scrape_native_histograms__", "yes")], "\"yes\" is neither \"true\" nor \"false\""),
        (&[("__address__", "h"), ("__scrape_timeout__", "0")], "scrape timeout cannot be 0"),
        (
            &[("__address__", "h"), ("__scrape_interval__", "5s")],
            "scrape timeout cannot be greater than scrape interval (\"10s\" > \"5s\")",
        ),
        (&[("__address__", "h"), ("__scheme__", "ftp")], "__scheme__ \"ftp\" is neither"),
    ] {
        let error = error(&ordinary_job(), labels);
        assert!(error.contains(part), "{labels:?}: {error}");
    }
}

#[test]
fn dropped_targets_are_counted_beyond_those_that_are_remembered() {
    let mut job = ordinary_job();
    job.limits.keep_dropped_targets = 1;
    job.relabel = vec![rule_on(Action::Drop, "__address__", "h:1", None)];
    let dropped: &[(&str, &str)] = &[("__address__", "h:1")];
    let made = targets(&job, &[dropped, dropped, &[("a", "malformed")], dropped]);
    let errors: Vec<_> = made.dropped.iter().map(|target| target.error.as_deref()).collect();
    assert_eq!((errors.as_slice(), made.dropped_count), (&[None, Some("no address")][..], 4));
    let rules: Vec<_> = made.dropped.iter().map(|target| target.by_rule).collect();
    assert_eq!(rules, [Some(0), None]);
}

#[test]
fn equal_targets_are_one_and_internal_labels_tell_them_apart() {
    let job = ordinary_job();
    let same: &[(&str, &str)] = &[("__address__", "h:1"), ("__meta_pod", "a")];
    let other_meta: &[(&str, &str)] = &[("__address__", "h:1"), ("__meta_pod", "b")];
    let other_tmp: &[(&str, &str)] = &[("__address__", "h:1"), ("__tmp", "b")];
    assert_eq!(targets(&job, &[same, same, other_meta]).active.len(), 1);
    assert_eq!(targets(&job, &[same, other_tmp]).active.len(), 2);
}

#[test]
fn names_of_targets_are_stable() {
    let id = target(&ordinary_job(), &[("__address__", "h:1")]).id;
    assert_eq!(id.to_string(), "39110e69aa2208c1", "a changed name would restart every series");
    let mut other_path = ordinary_job();
    other_path.metrics_path = "/other".to_owned();
    assert_ne!(target(&other_path, &[("__address__", "h:1")]).id, id);
}

#[test]
fn a_label_may_add_encryption_to_an_ordinary_job_and_not_remove_it() {
    let mut job = ordinary_job();
    job.scheme = Scheme::Https;
    assert_eq!(target(&job, &[("__address__", "h:1")]).verification, Verification::HostName);
    let made = target(&job, &[("__address__", "h:1"), ("__scheme__", "http")]);
    assert_eq!(refusal(&made), Reason::PlaintextRefused);
}

const POD: [(&str, &str); 4] = [
    ("__address__", "10.0.0.7:15092"),
    ("__meta_kubernetes_namespace", "shop"),
    ("__meta_kubernetes_pod_service_account_name", "cart"),
    ("__meta_kubernetes_pod_ip", "10.0.0.7"),
];

fn pod_with(more: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
    POD.into_iter().chain(more.iter().copied()).collect()
}

pub(super) fn expected(target: &Target) -> &str {
    match &target.verification {
        Verification::Spiffe(peer) => peer.expected().as_str(),
        other => panic!("{other:?}"),
    }
}

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

#[test]
fn a_pod_is_asked_on_its_own_address_only() {
    let at = |address: &'static str| {
        let mut labels = POD;
        labels[0].1 = address;
        targets(&spiffe_job(), &[&labels])
    };
    assert_eq!(at("10.0.0.7:9999").active.len(), 1, "the port may differ");
    for elsewhere in ["10.0.0.8:15092", "metadata.internal:80", "127.0.0.1:15092", "[::1]:15092"] {
        let made = at(elsewhere);
        assert!(made.active.is_empty(), "{elsewhere}");
        assert!(made.dropped[0].error.as_ref().is_some_and(|error| error.contains("10.0.0.7")), "{elsewhere}");
    }
    let mut labels = POD;
    labels[3].1 = "no address";
    labels[0].1 = "evil.example:15092";
    assert!(targets(&spiffe_job(), &[&labels]).active.is_empty());
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
fn protocols_are_offered_by_jobs_that_verify_and_only_those_that_a_scrape_speaks() {
    for (alpn, words) in [
        ("h2", "__alpn__: h2 means HTTP/2"),
        ("istio-h2", "__alpn__: istio-h2 means HTTP/2"),
        ("istio-peer-exchange", "metadata"),
        ("x\u{1b}", "\\u{1b}"),
    ] {
        let error =
            error(&spiffe_job(), &[("__address__", "h:1"), ("__spiffe_id__", "spiffe://td/a"), ("__alpn__", alpn)]);
        assert!(error.contains(words), "{alpn:?}: {error}");
    }
    let error = error(&ordinary_job(), &[("__address__", "h:1"), ("__alpn__", "istio-http/1.1")]);
    assert!(error.contains("jobs with tls_config.spiffe only"), "{error}");
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

#[test]
fn what_is_wrong_with_a_pod_is_told_once_whatever_the_number_of_its_ports() {
    let of = |namespace: &str, name: &str, port: &str| {
        candidate(&[
            ("__address__", "10.0.0.7:15092abc"),
            ("__meta_kubernetes_namespace", namespace),
            ("__meta_kubernetes_pod_name", name),
            ("__meta_kubernetes_pod_container_port_number", port),
        ])
    };
    let pods =
        [("shop", "a", "80"), ("shop", "a", "81"), ("shop", "b", "80"), ("bank", "a", "80"), ("shop", "a", "82")];
    let mut candidates = pods.map(|(namespace, name, port)| of(namespace, name, port)).to_vec();
    // Of what is no pod nothing says that it is the same thing again.
    candidates.extend([candidate(&[("__address__", "h:x")]), candidate(&[("__address__", "h:x")])]);
    let told = targets_of(&spiffe_job(), &candidates, Some(&domain()));
    let names: Vec<&str> =
        told.dropped.iter().map(|dropped| dropped.discovered.value("__meta_kubernetes_pod_name")).collect();
    assert_eq!((names, told.dropped_count), (vec!["a", "b", "a", "", ""], 5));
    let errors: Vec<&str> = told.dropped.iter().filter_map(|dropped| dropped.error.as_deref()).collect();
    assert!(errors[0].starts_with("pod shop/a: __address__ \"10.0.0.7:15092abc\""), "{errors:?}");

    // Rules drop ports, not pods: each is shown with the rule that did it.
    let mut job = spiffe_job();
    job.relabel = vec![rule_on(Action::Drop, "__meta_kubernetes_pod_name", "a", None)];
    let told = targets_of(&job, &candidates[..2], Some(&domain()));
    assert_eq!((told.dropped.len(), told.dropped_count), (2, 2));
}

#[test]
fn tenants_come_from_the_labels_after_relabelling_internal_ones_among_them() {
    let templates = ["{__meta_kubernetes_namespace}", "{__tenant}", "{app}", "{__meta_kubernetes_pod_name}"];
    let rules: Vec<_> = templates.map(|text| TenantRule::new(text, None).expect(text)).into();
    let spec = |source: &str, target: &str| RuleSpec {
        source_labels: vec![source.to_owned()],
        target_label: Some(target.to_owned()),
        ..RuleSpec::default()
    };
    let relabel = [spec("__meta_kubernetes_namespace", "__tenant"), spec("__meta_app", "app")];
    let relabel = relabel.map(|spec| Rule::new(spec, NameScheme::Utf8).expect("a rule")).into();
    let job = ScrapeConfig { tenants: rules.clone(), relabel, ..ordinary_job() };
    let found = [("__address__", "t:1"), ("__meta_kubernetes_namespace", "shop"), ("__meta_app", "cart")];
    let candidate = Candidate { labels: found.into_iter().collect(), source: "test".into(), pod: None };
    let target = judge(&job, &candidate, None).expect("a target");
    let tenants: Vec<_> = rules.iter().map(|rule| target.tenants.by(rule).map(Tenant::as_str)).collect();
    assert_eq!(tenants, [Some("shop"), Some("shop"), Some("cart"), None]);
    assert!(!target.labels.contains("__tenant"));

    let elsewhere = [("__address__", "t:1"), ("__meta_kubernetes_namespace", "bank"), ("__meta_app", "cart")];
    let other =
        judge(&job, &Candidate { labels: elsewhere.into_iter().collect(), ..candidate }, None).expect("a target");
    assert!(other.labels == target.labels && !other.succeeds(&target) && !other.continues(&target));
    let later = Target { tenants: Tenants::of(&rules[2..], &target.labels), ..Target::clone(&target) };
    assert!(later.succeeds(&target) && !later.continues(&target), "he goes on where only receivers have changed");
}
