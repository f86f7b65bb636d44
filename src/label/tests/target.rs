//! What a target is asked, and what is dropped: address, path, scheme, protocols, tenants.

use super::*;

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
    assert_eq!(made.dropped_by_rule.into_iter().collect::<Vec<_>>(), [(0, 3)], "and so are those of each rule");
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
