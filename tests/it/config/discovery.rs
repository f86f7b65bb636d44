//! What the file says about Kubernetes, lists over HTTP and jobs in other files, as values.

use std::path::{Path, PathBuf};
use std::time::Duration;

use meshscrape::config::{
    self, ApiServer, AttachMetadata, Auth, CertificateFiles, Config, FileSd, HttpSd, JobSecurity, KubernetesAccess,
    KubernetesRole, KubernetesSd, KubernetesSelector, OrdinaryTls, Proxies, Proxy, ScrapeConfig, SecretSource,
};
use meshscrape::label;
use meshscrape::model::{Candidate, Labels, Match, Scheme, TrustDomain, Verification};
use meshscrape::relabel::Rule;

use super::{corpus, environment, good, lines, load};

fn job<'c>(config: &'c Config, name: &str) -> &'c ScrapeConfig {
    config.scrape_configs.iter().find(|job| &*job.job_name == name).expect(name)
}

/// Pods of the cluster that this runs in.
fn pods() -> KubernetesSd {
    KubernetesSd {
        role: KubernetesRole::Pod,
        access: KubernetesAccess::InCluster,
        namespaces: Vec::new(),
        own_namespace: false,
        selectors: Vec::new(),
        attach: AttachMetadata::default(),
    }
}

fn server(access: &KubernetesAccess) -> &ApiServer {
    let KubernetesAccess::Server(server) = access else { panic!("{access:?}") };
    server
}

#[test]
fn kubernetes_is_asked_as_the_file_says() {
    let config = good("discovery");
    let in_cluster = job(&config, "in-cluster");
    let selector =
        |role, label: &str, field: &str| KubernetesSelector { role, label: label.to_owned(), field: field.to_owned() };
    let expected = KubernetesSd {
        namespaces: vec!["shop".to_owned(), "shop-2".to_owned()],
        own_namespace: true,
        selectors: vec![
            selector(
                KubernetesRole::Pod,
                "app in (cart, checkout),!legacy,tier!=test",
                "spec.nodeName=node-a.example,status.phase!=Failed",
            ),
            selector(KubernetesRole::Node, "disk=ssd", ""),
        ],
        attach: AttachMetadata { node: true, namespace: true, deployment: true, job: true, cronjob: true },
        ..pods()
    };
    assert_eq!(in_cluster.kubernetes_sd_configs[0], expected);
    let roles: Vec<_> = in_cluster.kubernetes_sd_configs.iter().map(|sd| sd.role).collect();
    assert_eq!(roles, KubernetesRole::ALL);
    assert_eq!(in_cluster.pod_ports, [8080, 15092]);
    assert_eq!(in_cluster.pod_cidrs.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.0.0.0/8", "fd00::/8"]);
    assert_eq!(in_cluster.namespace_target_limit, 100);

    let kubeconfig = KubernetesAccess::Kubeconfig(corpus().join("kubeconfig"));
    assert_eq!(job(&config, "by-kubeconfig").kubernetes_sd_configs, [KubernetesSd { access: kubeconfig, ..pods() }]);
    let by_url = &job(&config, "by-url").kubernetes_sd_configs;
    let first = server(&by_url[0].access);
    assert_eq!(first.url, "https://kubernetes.example:6443/prefix");
    assert_eq!(first.tls.ca_file, Some(corpus().join("ca.pem")));
    assert_eq!(first.tls.server_name.as_deref(), Some("kubernetes"));
    let token = SecretSource::File(corpus().join("token"));
    assert_eq!(first.auth, Some(Auth::Authorization { kind: "Bearer".to_owned(), credentials: token }));
    let second = server(&by_url[1].access);
    assert_eq!((second.url.as_str(), &second.tls), ("http://127.0.0.1:8001", &OrdinaryTls::default()));
}

#[test]
fn lists_are_fetched_as_the_file_says_and_their_passwords_are_not_shown() {
    let config = good("discovery");
    let [first, second] = &job(&config, "lists").http_sd_configs[..] else { panic!("two lists") };
    let HttpSd { url, refresh_interval, tls, auth, oauth2, follow_redirects, http_headers, proxies } = first;
    assert_eq!(
        (url.expose(), *refresh_interval, *follow_redirects),
        ("https://lists.example/targets", Duration::from_secs(30), false)
    );
    assert_eq!(tls.ca_file, Some(corpus().join("ca.pem")));
    assert!(matches!(auth, Some(Auth::Authorization { .. })) && http_headers.is_empty() && proxies.is_none());
    assert_eq!(*oauth2, None);
    assert_eq!(
        second.url.expose(),
        "http://shop:canary-in-the-environment@lists.example/targets",
        "it is sent, though"
    );
    assert_eq!((second.refresh_interval, second.follow_redirects), (Duration::from_secs(60), true));
    assert!(config.effective.contains("url: \"http://${NAMESPACE}:${TOKEN}@lists.example/targets\""));

    let text = "
scrape_configs:
  - {job_name: a, http_sd_configs: [{url: 'https://me:canary-1@lists.example/a?token=canary-2'}]}
  - {job_name: b, kubernetes_sd_configs: [{role: pod, api_server: 'https://a', bearer_token: canary-3}]}
";
    let config = config::parse(Path::new("secrets.yaml"), text, &environment).config.expect("accepted");
    let shown = format!("{config:?}\n{}", config.effective);
    assert!(!shown.contains("canary"), "{}", shown.lines().find(|line| line.contains("canary")).unwrap_or_default());
    assert!(config.effective.contains("url: \"https://<secret>:<secret>@lists.example/a?<secret>\""));
}

#[test]
fn jobs_of_other_files_stand_behind_those_of_the_file() {
    let config = good("jobs_files");
    let names: Vec<_> = config.scrape_configs.iter().map(|job| &*job.job_name).collect();
    assert_eq!(names, ["here", "shop", "shop-pods", "other"]);
    assert!(
        config.scrape_configs.iter().all(|job| job.scrape_interval == Duration::from_secs(20)),
        "global is inherited"
    );
    let shop = job(&config, "shop");
    let jobs = corpus().join("jobs");
    assert_eq!(shop.file_sd_configs[0].files, [jobs.join("targets/*.yaml"), PathBuf::from("/etc/targets.json")]);
    let JobSecurity::Ordinary(tls) = &shop.security else { panic!("a SPIFFE job") };
    assert_eq!(tls.ca_file, Some(jobs.join("ca.pem")), "relative to its own file");
    let token = SecretSource::File(jobs.join("../token"));
    assert_eq!(shop.auth, Some(Auth::Authorization { kind: "Bearer".to_owned(), credentials: token }));
    assert!(config.effective.contains("ca_file: jobs/ca.pem"), "shown as the main file would write it");
    assert!(!config.effective.contains("scrape_config_files"), "{}", config.effective);
}

#[test]
fn a_file_of_jobs_does_not_read_the_environment() {
    let loaded = load(&corpus().join("jobs_file_variable.warned.yaml"));
    let config = loaded.config.expect("accepted");
    let expected = [("token".to_owned(), vec!["${TOKEN}".to_owned(), "a$${b}".to_owned()])];
    assert_eq!(job(&config, "variable").params, expected);

    let directory = tempfile::tempdir().expect("a directory");
    let main = directory.path().join("main.yaml");
    std::fs::write(
        directory.path().join("jobs.yaml"),
        "scrape_configs: [{job_name: a, scheme: https, bearer_token: '${TOKEN}', static_configs: []}]",
    )
    .expect("written");
    let loaded = config::parse(&main, "scrape_config_files: [jobs.yaml]", &environment);
    let config = loaded.config.expect("accepted");
    let Some(Auth::Authorization { credentials: SecretSource::Inline(secret), .. }) = &config.scrape_configs[0].auth
    else {
        panic!("no token")
    };
    assert_eq!(secret.expose(), "${TOKEN}");
    assert!(config.effective.contains("bearer_token: \"<secret>\""), "what looks like a reference is none here");
}

/// A directory whose name comes from the environment is not shown either.
#[test]
fn where_jobs_lie_is_shown_as_it_is_written() {
    let directory = tempfile::tempdir().expect("a directory");
    let (main, inner) = (directory.path().join("main.yaml"), directory.path().join("canary"));
    std::fs::create_dir(&inner).expect("a directory");
    let job = "scrape_configs: [{job_name: a, file_sd_configs: [{files: [t.json]}]}]";
    std::fs::write(inner.join("a.yaml"), job).expect("written");
    let env = |name: &str| match name {
        "DIR" => Some("canary".to_owned()),
        "FILE" => Some("canary/a.yaml".to_owned()),
        _ => None,
    };
    let config = config::parse(&main, "scrape_config_files: ['${DIR}/*.yaml']", &env).config.expect("accepted");
    assert!(config.effective.contains("${DIR}/t.json") && !config.effective.contains("canary"));
    let expected = FileSd { files: vec![inner.join("t.json")], refresh_interval: Duration::from_secs(300) };
    assert_eq!(config.scrape_configs[0].file_sd_configs, [expected]);
    assert_eq!(config::parse(&main, &config.effective, &env).config, Ok(config));

    let problems = config::parse(&main, "scrape_config_files: ['${FILE}']", &env).config.expect_err("refused");
    let said = lines(&problems);
    assert!(said.contains("a variable in the last part of this path holds a directory, too"), "{said}");
    assert!(!said.contains("canary"), "{said}");
}

#[test]
fn the_whole_sample_of_istio_loads_and_its_secure_jobs_verify() {
    let loaded = load(&corpus().join("istio_sample_complete.warned.yaml"));
    let config = loaded.config.unwrap_or_else(|problems| panic!("{}", lines(&problems)));
    let verifying: Vec<_> = config
        .scrape_configs
        .iter()
        .filter(|job| matches!(job.security, JobSecurity::Spiffe(_)))
        .map(|job| &*job.job_name)
        .collect();
    assert_eq!(verifying, ["istio-secure-merged-metrics", "istio-secure-envoy-metrics"]);
    assert_eq!(config.scrape_configs.len(), 12);
    for name in ["kubernetes-nodes", "kubernetes-nodes-cadvisor"] {
        let JobSecurity::Ordinary(tls) = &job(&config, name).security else { panic!("{name} is a SPIFFE job") };
        assert!(tls.ca_file.is_some(), "{name} verifies by chain and host name");
    }
}

#[test]
fn the_line_for_istio_is_plain_keys_to_everybody_else() {
    let config = good("istio");
    assert!(!config.effective.contains("istio_sd_configs"), "{}", config.effective);
    assert!(config.effective.contains("field: \"spec.nodeName=${NODE_NAME}\""));
    assert!(!config.effective.contains("node-a.example"), "the name of the node is the value of a variable");

    let merged = job(&config, "istio-secure-merged-metrics");
    let on_node = KubernetesSelector {
        role: KubernetesRole::Pod,
        label: String::new(),
        field: "spec.nodeName=node-a.example".to_owned(),
    };
    assert_eq!(merged.kubernetes_sd_configs, [KubernetesSd { selectors: vec![on_node], ..pods() }]);
    let JobSecurity::Spiffe(spiffe) = &merged.security else { panic!("an ordinary job") };
    assert_eq!(spiffe.files, CertificateFiles::in_dir(Path::new("/etc/istio-certs")));
    assert_eq!((spiffe.rule, &spiffe.trust_domain), (Match::Exact, &None));
    assert_eq!((merged.scheme, merged.metrics_path.as_str()), (Scheme::Https, "/stats/prometheus"));
    assert!(
        merged.require_complete && !merged.honor_timestamps && !merged.honor_labels && merged.protect_external_labels
    );
    assert_eq!((&merged.pod_ports[..], merged.namespace_target_limit), (&[15091, 15092][..], 0));

    let envoy = job(&config, "price$1");
    let JobSecurity::Spiffe(spiffe) = &envoy.security else { panic!("an ordinary job") };
    assert_eq!(spiffe.files, CertificateFiles::in_dir(&corpus().join("certs")), "what is written is kept");
    assert_eq!(spiffe.trust_domain.as_ref().map(|domain| domain.as_str()), Some("cluster.local"));
    assert!(!envoy.require_complete && envoy.honor_timestamps);
    assert_eq!((&envoy.pod_ports[..], envoy.namespace_target_limit), (&[15091, 15191][..], 10));
    let sd = &envoy.kubernetes_sd_configs[0];
    assert_eq!(server(&sd.access).url, "https://kubernetes.example:6443");
    assert_eq!((&sd.namespaces[..], &sd.selectors[..]), (&["shop".to_owned()][..], &[][..]));
    let targets = |rule: &Rule| rule.spec().target_label.clone().unwrap_or_default();
    let written: Vec<String> = envoy.relabel.iter().map(targets).filter(|label| !label.is_empty()).collect();
    let own = ["__alpn__", "__tmp_shard"];
    let head = ["__address__", "__address__", "__metrics_path__"];
    let tail = ["job", "instance", "namespace", "pod", "node", "service_account", "app", "app", "app"];
    assert_eq!(written, [&head[..], &own[..], &tail[..]].concat(), "the job's rules stand between");

    let outside = job(&config, "outside");
    assert_eq!(outside.kubernetes_sd_configs[0].access, KubernetesAccess::Kubeconfig(corpus().join("kubeconfig")));
    assert_eq!(outside.namespace_target_limit, 2000, "where the whole cluster is scraped");
    let JobSecurity::Spiffe(spiffe) = &outside.security else { panic!("an ordinary job") };
    assert_eq!(spiffe.files.root, corpus().join("ca.pem"));
}

#[test]
fn a_node_is_scraped_only_if_it_is_named() {
    let text = "scrape_configs: [{job_name: a, istio_sd_configs: [{port: merged, scope: node}]}]";
    let named = |name: Option<&'static str>| {
        let env = move |wanted: &str| name.filter(|_| wanted == "NODE_NAME").map(str::to_owned);
        config::parse(Path::new("a.yaml"), text, &env).config.map_err(|problems| lines(&problems))
    };
    let unset = "a.yaml:1:73: scrape_configs[0].istio_sd_configs[0].scope: the environment variable NODE_NAME, which says which node this is, is not set; in a pod set it from spec.nodeName (env, valueFrom, fieldRef: the manifests do); elsewhere, to check the file, any name will do: NODE_NAME=any meshscrape check config FILE\n";
    for name in [None, Some("")] {
        assert_eq!(named(name).expect_err("refused"), unset);
    }
    for name in ["canary,status.phase=Failed", "canary=", "Canary", "canary/.."] {
        let said = named(Some(name)).expect_err(name);
        assert!(said.contains("what the environment variable NODE_NAME holds is not the name of a node"), "{said}");
        assert!(!said.to_lowercase().contains("canary"), "{said}");
    }
    assert!(named(Some("ip-10-0-0-1.eu-west-1.compute.internal")).is_ok());
}

/// What a pod says about its port is reported with the pod and goes no further.
#[test]
fn an_annotation_that_is_no_port_makes_no_target() {
    let config = good("istio");
    let judged = |annotation: &str| {
        let mut labels = Labels::new();
        for (name, value) in [
            ("__address__", "10.0.0.1:8080"),
            ("__meta_kubernetes_namespace", "shop"),
            ("__meta_kubernetes_pod_name", "cart-1"),
            ("__meta_kubernetes_pod_ip", "10.0.0.1"),
            ("__meta_kubernetes_pod_phase", "Running"),
            ("__meta_kubernetes_pod_host_network", "false"),
            ("__meta_kubernetes_pod_service_account_name", "cart"),
            ("__meta_kubernetes_pod_annotation_prometheus_istio_io_secure_port", annotation),
            ("__meta_kubernetes_pod_annotationpresent_prometheus_istio_io_secure_port", "true"),
        ] {
            labels.set(name, value);
        }
        let domain = TrustDomain::parse("cluster.local").expect("a trust domain");
        let candidate = Candidate { labels, source: "pod".into(), pod: None };
        label::judge(job(&config, "istio-secure-merged-metrics"), &candidate, Some(&domain))
    };
    let target = judged("15092").expect("a target");
    assert_eq!(target.url(), "https://10.0.0.1:15092/stats/prometheus");
    let Verification::Spiffe(peer) = &target.verification else { panic!("{:?}", target.verification) };
    assert_eq!(peer.expected().as_str(), "spiffe://cluster.local/ns/shop/sa/cart");
    for (annotation, shown) in [
        ("15092abc", "\"10.0.0.1:15092abc\": \"15092abc\" is not a port"),
        ("0", "\"10.0.0.1:0\": \"0\" is not a port"),
        ("70000", "\"10.0.0.1:70000\": \"70000\" is not a port"),
        ("", "\"10.0.0.1:\": \"\" is not a port"),
        ("x@evil:443", "\"10.0.0.1:x@evil:443\": '@' may not stand in an address"),
        ("15092;9.9.9.9:443", "\"10.0.0.1:15092;9.9.9.9:443\": ';' may not stand in an address"),
    ] {
        let dropped = judged(annotation).expect_err(annotation);
        let error = dropped.error.as_deref().expect(annotation);
        assert!(error.contains(shown), "{error}");
    }
}

#[test]
fn proxies_are_those_of_the_file_or_of_the_environment() {
    let config = good("proxy");
    let through = |proxies: &Proxies, url: &str| proxies.for_url(&url.parse().expect("a URL")).map(Proxy::to_string);
    let shop = job(&config, "shop").proxies.as_ref().expect("one");
    for (url, expected) in [
        ("http://shop.example/", Some("http://proxy:3128")),
        ("https://shop.example/", Some("http://proxy:3128")),
        ("https://10.0.0.1/", None),
        ("http://a.svc/", None),
        ("http://localhost/", None),
    ] {
        assert_eq!(through(shop, url).as_deref(), expected, "{url}");
    }
    let environment = job(&config, "environment").proxies.as_ref().expect("one");
    assert_eq!(through(environment, "http://shop/").as_deref(), Some("http://proxy.example:3128"));
    assert_eq!(through(environment, "https://shop/"), None, "it names none for https");
    assert_eq!(through(environment, "http://a.example/"), None, "NO_PROXY");
    assert_eq!(job(&config, "mesh").proxies, None);
    let list = job(&config, "shop").http_sd_configs[0].proxies.as_ref().expect("one");
    assert_eq!(through(list, "http://localhost/").as_deref(), Some("http://proxy"), "nobody is excepted");
    assert!(config.remote_write[0].proxies.is_some());
    for text in [format!("{config:?}"), config.effective.to_string()] {
        assert!(!text.contains("canary"), "{text}");
    }

    let text = "scrape_configs: [{job_name: j, proxy_from_environment: true, static_configs: [{targets: [a]}]}]";
    let env = |name: &str| (name == "HTTPS_PROXY").then(|| "https://me:canary@proxy".to_owned());
    let problems = config::parse(Path::new("a.yaml"), text, &env).config.expect_err("TLS to a proxy");
    let said = lines(&problems);
    assert!(said.contains("the environment variable HTTPS_PROXY") && !said.contains("canary"), "{said}");
}
