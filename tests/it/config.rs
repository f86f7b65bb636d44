//! The configuration file: what is accepted, what is refused, and what is said about it.
//!
//! `tests/fixtures/config/` is the corpus. `RULES.md` lists the rules; each has a file that breaks it and, beside it,
//! exactly what is said. The `*.good.yaml` are accepted without a word, and what `--print` shows of them means the same
//! as they do. To write the expected texts anew after a deliberate change: `UPDATE_EXPECTED=1 cargo test --test it
//! config::`, and then read every line of the difference as the one who has to act on it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use meshscrape::config::{
    self, CertificateFiles, Config, EscapingScheme, Histograms, JobSecurity, Loaded, OrdinaryTls, ReceiverSecurity,
    ScrapeProtocol,
};
use meshscrape::model::{Match, Scheme};
use meshscrape::yaml::{self, Node, Value};
use proptest::prelude::*;

mod discovery;

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/config")
}

/// The environment of the examples. The value of `TOKEN` must never be seen.
fn environment(name: &str) -> Option<String> {
    let value = match name {
        "NAMESPACE" => "shop",
        "NODE_NAME" => "node-a.example",
        "RECEIVER" => "http://prometheus.monitoring.svc:9090/api/v1/write",
        "TOKEN" => "canary-in-the-environment",
        "http_proxy" => "me:canary-in-the-environment@proxy.example:3128",
        "NO_PROXY" => "example",
        _ => return None,
    };
    Some(value.to_owned())
}

fn load(file: &Path) -> Loaded {
    config::load(file, &environment)
}

/// The names of the corpus that end in `suffix`, without it.
fn names(suffix: &str) -> BTreeSet<String> {
    let entries = std::fs::read_dir(corpus()).expect("the corpus");
    let names = entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"));
    names.filter_map(|name| Some(name.strip_suffix(suffix)?.to_owned())).collect()
}

/// The names in the section of `RULES.md` under `heading`.
fn rules(heading: &str) -> BTreeSet<String> {
    let text = std::fs::read_to_string(corpus().join("RULES.md")).expect("RULES.md");
    let section = text.split("\n## ").find(|section| section.starts_with(heading)).expect(heading);
    let names = section.lines().filter_map(|line| line.strip_prefix("- `")?.split_once("`: "));
    names.map(|(name, _)| name.to_owned()).collect()
}

fn lines(found: &[config::Problem]) -> String {
    let dir = format!("{}/", corpus().display());
    found.iter().map(|problem| format!("{problem}\n").replace(&dir, "")).collect()
}

/// Holds what was said of `name` against what is expected, and lists what differs.
fn hold(name: &str, said: &str, differences: &mut Vec<String>) {
    let file = corpus().join(format!("{name}.expected"));
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        std::fs::write(&file, said).expect("written");
    }
    let expected = std::fs::read_to_string(&file).unwrap_or_else(|_| "(no such file)\n".to_owned());
    if said != expected {
        differences.push(format!("{name}: expected\n{expected}but was said\n{said}"));
    }
}

#[test]
fn every_rule_has_its_file_and_every_file_its_rule() {
    assert_eq!(rules("Refused"), names(".bad.yaml"));
    assert_eq!(rules("Accepted with a warning"), names(".warned.yaml"));
    let all: BTreeSet<_> = names(".bad.yaml").union(&names(".warned.yaml")).cloned().collect();
    assert_eq!(all, names(".expected"));
    assert!(rules("Refused").len() >= 60);
}

#[test]
fn what_breaks_a_rule_is_refused_in_exactly_these_words() {
    let mut differences = Vec::new();
    for name in names(".bad.yaml") {
        let loaded = load(&corpus().join(format!("{name}.bad.yaml")));
        let Err(problems) = loaded.config else {
            differences.push(format!("{name}: was accepted"));
            continue;
        };
        hold(&name, &lines(&problems), &mut differences);
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn what_is_probably_not_meant_is_warned_of_in_exactly_these_words() {
    let mut differences = Vec::new();
    for name in names(".warned.yaml") {
        let loaded = load(&corpus().join(format!("{name}.warned.yaml")));
        match loaded.config {
            Ok(_) => hold(&name, &lines(&loaded.warnings), &mut differences),
            Err(problems) => differences.push(format!("{name}: was refused\n{}", lines(&problems))),
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

fn good(name: &str) -> Config {
    let loaded = load(&corpus().join(format!("{name}.good.yaml")));
    assert_eq!(lines(&loaded.warnings), "", "{name}");
    loaded.config.unwrap_or_else(|problems| panic!("{name} was refused\n{}", lines(&problems)))
}

/// A configuration that differs in nothing from `config` but in what stood in the file as a secret.
#[test]
fn what_is_printed_means_the_same() {
    for name in names(".good.yaml") {
        let config = good(&name);
        let again = config::parse(&corpus().join("printed.yaml"), &config.effective, &environment);
        let warnings = lines(&again.warnings);
        let again = again.config.unwrap_or_else(|problems| panic!("{name}:\n{}{}", lines(&problems), config.effective));
        assert_eq!((&again, warnings.as_str()), (&config, ""), "{name}:\n{}", config.effective);
    }
    for name in names(".warned.yaml") {
        let config = load(&corpus().join(format!("{name}.warned.yaml"))).config.expect("accepted");
        let again = config::parse(&corpus().join("printed.yaml"), &config.effective, &environment).config;
        assert_eq!(again.as_ref(), Ok(&config), "{name}:\n{}", config.effective);
    }
}

#[test]
fn a_refused_discovery_is_not_called_a_job_without_targets() {
    for name in ["absent_consul_sd", "kubernetes_role_missing", "key_of_the_wrong_kind"] {
        let loaded = load(&corpus().join(format!("{name}.bad.yaml")));
        assert!(loaded.config.is_err());
        assert_eq!(lines(&loaded.warnings), "", "{name}");
    }
}

fn shipped(name: &str) -> (PathBuf, Config) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name);
    let loaded = load(&file);
    assert_eq!(lines(&loaded.warnings), "", "{name}");
    let config = loaded.config.unwrap_or_else(|problems| panic!("{name} was refused\n{}", lines(&problems)));
    (file, config)
}

#[test]
fn the_shipped_file_verifies_everybody() {
    let (_, config) = shipped("meshscrape.yaml");
    assert!(config.global.require_identity);
    let files = CertificateFiles::in_dir(Path::new("/etc/istio-certs"));
    let names: Vec<_> = config.scrape_configs.iter().map(|job| &*job.job_name).collect();
    assert_eq!(names, ["istio-secure-merged-metrics", "istio-secure-envoy-metrics"]);
    for job in &config.scrape_configs {
        let JobSecurity::Spiffe(spiffe) = &job.security else { panic!("{} is an ordinary job", job.job_name) };
        assert_eq!((&spiffe.files, spiffe.rule), (&files, Match::Exact));
        assert_eq!(job.scheme, Scheme::Https);
        assert!(job.require_complete && !job.honor_labels && !job.honor_timestamps && job.protect_external_labels);
    }
    assert_eq!(config.remote_write[0].url.as_str(), "http://prometheus.monitoring.svc:9090/api/v1/write");
}

/// What has no default: it must be written, or is written in the reference as an example.
const NO_DEFAULT: [&str; 21] = [
    "scrape_configs.job_name",
    "scrape_configs.http_headers.X-Team.values",
    "scrape_configs.tls_config.certs_dir",
    "scrape_configs.istio_sd_configs.port",
    "scrape_configs.istio_sd_configs.scope",
    "scrape_configs.kubernetes_sd_configs.role",
    "scrape_configs.kubernetes_sd_configs.selectors.role",
    "scrape_configs.http_sd_configs.url",
    "scrape_configs.http_sd_configs.oauth2.client_id",
    "scrape_configs.http_sd_configs.oauth2.client_secret_file",
    "scrape_configs.http_sd_configs.oauth2.token_url",
    "scrape_configs.static_configs.targets",
    "scrape_configs.file_sd_configs.files",
    "scrape_configs.relabel_configs.target_label",
    "remote_write.url",
    "remote_write.tenant.template",
    "remote_write.basic_auth.username",
    "remote_write.basic_auth.password_file",
    "remote_write.authorization.credentials_file",
    "remote_write.tls_config.certs_dir",
    "remote_write.tls_config.spiffe.server_ids",
];

/// The section of `config::sections` that stands at a path without indices.
fn section_at(path: &str) -> &'static str {
    match path {
        "" => "the file",
        "scrape_configs.tls_config" => "tls_config",
        "scrape_configs.tls_config.spiffe" => "spiffe",
        "scrape_configs.http_headers.X-Team" => "a header of http_headers",
        "scrape_configs.kubernetes_sd_configs.tls_config" | "scrape_configs.http_sd_configs.tls_config" => {
            "tls_config of a discovery"
        }
        "remote_write.tls_config" => "tls_config of remote_write",
        "remote_write.tls_config.spiffe" => "spiffe of remote_write",
        "scrape_configs.relabel_configs" => "relabel rules",
        "scrape_configs.metric_relabel_configs" | "remote_write.write_relabel_configs" => "relabel rules",
        other => {
            let last = other.rsplit('.').next();
            config::sections().iter().map(|section| section.name).find(|name| Some(*name) == last).expect(other)
        }
    }
}

type Pairs = Vec<(Node, Node)>;

/// Visits every mapping of `node` with its path without indices.
fn mappings(node: &mut Node, path: &str, visit: &mut dyn FnMut(&str, &mut Pairs)) {
    match &mut node.value {
        Value::Null | Value::Scalar { .. } => {}
        Value::Sequence(items) => items.iter_mut().for_each(|item| mappings(item, path, visit)),
        Value::Mapping(pairs) => {
            visit(path, pairs);
            for (key, value) in pairs {
                mappings(value, &below(path, &text_of(key)), visit);
            }
        }
    }
}

fn below(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn text_of(node: &Node) -> String {
    let Value::Scalar { text, .. } = &node.value else { panic!("a key is a text") };
    text.clone()
}

/// The tree as JSON, which is YAML, too.
fn to_json(node: &Node) -> serde_json::Value {
    match &node.value {
        Value::Null => serde_json::Value::Null,
        Value::Scalar { text, .. } => text.clone().into(),
        Value::Sequence(items) => items.iter().map(to_json).collect(),
        Value::Mapping(pairs) => pairs.iter().map(|(key, value)| (text_of(key), to_json(value))).collect(),
    }
}

#[test]
fn the_reference_has_every_key() {
    let (file, _) = shipped("reference.yaml");
    let text = std::fs::read_to_string(file).expect("readable");
    let mut root = yaml::parse(&text).expect("YAML").expect("not empty");
    let mut found: BTreeSet<(&str, String)> = BTreeSet::new();
    mappings(&mut root, "", &mut |path, pairs| {
        // The names of headers are not ours.
        if !path.ends_with("http_headers") {
            found.extend(pairs.iter().map(|(key, _)| (section_at(path), text_of(key))));
        }
    });
    let known: BTreeSet<(&str, String)> = config::sections()
        .iter()
        .flat_map(|section| section.keys.iter().map(|key| (section.name, (*key).to_owned())))
        .collect();
    assert_eq!(found, known);
}

#[test]
fn the_reference_says_the_defaults() {
    let (file, config) = shipped("reference.yaml");
    let text = std::fs::read_to_string(&file).expect("readable");
    let whole = yaml::parse(&text).expect("YAML").expect("not empty");
    let mut keys = Vec::new();
    mappings(&mut whole.clone(), "", &mut |path, pairs| {
        keys.extend(pairs.iter().map(|(key, value)| (key.pos, below(path, &text_of(key)), is_leaf(value))));
    });
    let mut removed = 0;
    for (pos, path, leaf) in keys {
        if !leaf || NO_DEFAULT.contains(&path.as_str()) {
            continue;
        }
        let mut root = whole.clone();
        mappings(&mut root, "", &mut |_, pairs| pairs.retain(|(key, _)| key.pos != pos));
        let without = config::parse(&file, &to_json(&root).to_string(), &environment);
        let without = without.config.unwrap_or_else(|problems| panic!("without {path}:\n{}", lines(&problems)));
        // What is written without need is shown, too.
        let without = Config { effective: config.effective.clone(), ..without };
        assert_eq!(without, config, "line {}: {path} is not its default", pos.line);
        removed += 1;
    }
    assert!(removed > 90, "only {removed} keys were tried");
}

/// Whether a value has no mappings below it, whose keys are tried one by one.
fn is_leaf(value: &Node) -> bool {
    match &value.value {
        Value::Sequence(items) => items.iter().all(|item| !matches!(item.value, Value::Mapping(_))),
        Value::Mapping(pairs) => pairs.is_empty(),
        Value::Null | Value::Scalar { .. } => true,
    }
}

#[test]
fn skip_verify_with_a_mesh_certificate_verifies_identities_and_nothing_else_does() {
    let job = |name: &str, at: usize| {
        let loaded = load(&corpus().join(format!("{name}.warned.yaml")));
        loaded.config.expect("accepted").scrape_configs[at].clone()
    };
    let sample = job("skip_verify_means_spiffe", 0);
    let JobSecurity::Spiffe(spiffe) = &sample.security else { panic!("an ordinary job") };
    assert_eq!(spiffe.files, CertificateFiles::in_dir(Path::new("/etc/istio-certs")));
    assert_eq!(spiffe.rule, Match::Exact);
    let kubelet = job("skip_verify_skips_nothing", 0);
    let JobSecurity::Ordinary(tls) = &kubelet.security else { panic!("a SPIFFE job") };
    assert_eq!(tls.ca_file.as_deref(), Some(Path::new("/var/run/secrets/kubernetes.io/serviceaccount/ca.crt")));
    let receiver = load(&corpus().join("skip_verify_skips_nothing.warned.yaml")).config.expect("accepted");
    assert!(matches!(receiver.remote_write[0].security, ReceiverSecurity::Ordinary(_)));
}

/// An agent can start without them, if nothing else is wrong.
#[test]
fn receivers_of_another_scheme_are_errors_that_can_be_left_out() {
    let without = |text: &str| {
        let loaded = config::parse(Path::new("meshscrape.yaml"), text, &|_| None);
        assert!(loaded.config.is_err(), "{text}");
        let names = |config: Config| config.remote_write.iter().map(|one| one.name.clone()).collect::<Vec<_>>();
        loaded.without_unreachable.map(names)
    };
    let good = "{url: 'http://r/w', name: good}";
    assert_eq!(without(&format!("remote_write: [{good}, {{url: 'invalid://r:9999'}}]")), Some(vec!["good".to_owned()]));
    assert_eq!(without("remote_write: [{url: 'invalid://r'}]"), Some(Vec::new()));
    for other in ["{url: 'r:9090/w'}", "{url: 'invalid://r', remote_timeout: x}", "{url: 'http://r/w#part'}", "{}"] {
        assert_eq!(without(&format!("remote_write: [{good}, {other}]")), None, "{other}");
    }
    let good = config::parse(Path::new("meshscrape.yaml"), &format!("remote_write: [{good}]"), &|_| None);
    assert!(good.config.is_ok() && good.without_unreachable.is_none());
}

#[test]
fn an_empty_file_has_the_defaults_of_prometheus() {
    let empty = good("empty");
    assert_eq!(empty.global.scrape_interval, Duration::from_secs(60));
    assert_eq!(empty.global.scrape_timeout, Duration::from_secs(10));
    assert!(empty.scrape_configs.is_empty() && empty.remote_write.is_empty());
    let job = &good("prometheus").scrape_configs[0];
    assert_eq!((job.scrape_interval, job.scrape_timeout), (Duration::from_secs(15), Duration::from_secs(10)));
    assert_eq!(job.scrape_protocols, ScrapeProtocol::TEXT);
    assert_eq!((job.metrics_path.as_str(), job.scheme), ("/metrics", Scheme::Http));
    assert!(!job.honor_labels && job.honor_timestamps && job.enable_compression && job.follow_redirects);
    assert!(!job.require_complete && !job.protect_external_labels);
}

#[test]
fn jobs_inherit_what_they_do_not_write() {
    let config = good("everything");
    let [inherits, own, ..] = &config.scrape_configs[..] else { panic!("jobs") };
    assert_eq!(inherits.scrape_interval, Duration::from_secs(30));
    assert_eq!(inherits.limits.body_size_limit, 10 * 1024 * 1024);
    assert_eq!(inherits.limits.label_value_length_limit, 2000);
    assert_eq!(inherits.escaping, EscapingScheme::Underscores, "legacy names cannot be asked for as they are");
    assert_eq!(
        inherits.histograms,
        Histograms { native: true, classic_too: true, convert: true, ..Histograms::default() }
    );
    let reduced = Histograms { bucket_limit: 160, min_bucket_factor: 1.1, ..Histograms::default() };
    assert_eq!((own.histograms, own.histograms.max_schema()), (reduced, 2));
    assert_eq!(&*own.job_name, "shop-own");
    assert_eq!(own.limits.body_size_limit, 1_572_864);
    assert_eq!(own.metrics_path, "/shop/metrics");
    assert_eq!(own.static_configs[0].labels.get("team"), Some("1.50"), "scalars are read as they are written");
    let OrdinaryTls { identity: Some(identity), .. } = (match &own.security {
        JobSecurity::Ordinary(tls) => tls.clone(),
        JobSecurity::Spiffe(_) => panic!("a SPIFFE job"),
    }) else {
        panic!("no certificate")
    };
    assert_eq!(identity.chain, corpus().join("certs/chain.pem"), "relative to the file");
    assert_eq!(identity.key, Path::new("/etc/key.pem"));
}

#[test]
fn native_histograms_are_asked_for_unless_the_file_says_what_is() {
    let protocols = |global: &str, job: &str| {
        let text = format!("global: {{{global}}}\nscrape_configs:\n- {{job_name: a, static_configs: [], {job}}}");
        let config = config::parse(Path::new("histograms.yaml"), &text, &environment).config.expect("accepted");
        config.scrape_configs[0].scrape_protocols.clone()
    };
    let native = "scrape_native_histograms: true";
    assert_eq!(protocols("", native), ScrapeProtocol::ALL);
    assert_eq!(protocols(native, ""), ScrapeProtocol::ALL);
    assert_eq!(protocols(native, "scrape_native_histograms: false"), ScrapeProtocol::TEXT);
    let text = "scrape_protocols: [PrometheusText0.0.4]";
    assert_eq!(protocols(text, native), [ScrapeProtocol::PrometheusText004]);
    assert_eq!(protocols(native, text), [ScrapeProtocol::PrometheusText004]);
}

/// The corpus carries canaries wherever a secret can be written, and the environment of the examples another.
#[test]
fn no_secret_is_ever_shown() {
    let mut shown = String::new();
    for suffix in [".good.yaml", ".bad.yaml", ".warned.yaml"] {
        for name in names(suffix) {
            let loaded = load(&corpus().join(format!("{name}{suffix}")));
            shown.push_str(&lines(&loaded.warnings));
            match loaded.config {
                Ok(config) => shown.push_str(&format!("{config:?}\n{}", config.effective)),
                Err(problems) => shown.push_str(&format!("{problems:?}\n{}", lines(&problems))),
            }
        }
    }
    let secrets = "
scrape_configs:
  - {job_name: a, scheme: https, basic_auth: {username: me, password: canary-1}, static_configs: []}
  - {job_name: b, scheme: https, authorization: {credentials: canary-2}, static_configs: []}
  - {job_name: c, scheme: https, bearer_token: 'x${TOKEN}', static_configs: []}
  - {job_name: d, scheme: http, http_headers: {X-Token: {secrets: [canary-6, 'x${TOKEN}']}}, static_configs: []}
  - {job_name: e, proxy_url: 'http://canary-7:canary-8@proxy', proxy_connect_header: {X-A: [canary-9]}, static_configs: []}
remote_write:
  - {url: 'https://a/?token=canary-3', headers: {X-Token: canary-4}, basic_auth: {username: me, password: canary-5}}
";
    let config = config::parse(Path::new("secrets.yaml"), secrets, &environment).config.expect("accepted");
    shown.push_str(&format!("{config:?}\n{}\n{}", config.effective, config.remote_write[0].shown_url()));
    assert_eq!(config.remote_write[0].headers[0].1.expose(), "canary-4", "they are there, though");
    assert!(!shown.contains("canary"), "{}", shown.lines().find(|line| line.contains("canary")).unwrap_or_default());
}

#[test]
fn variables_stay_references_where_the_file_is_shown() {
    let effective = good("everything").effective;
    for reference in ["password: \"${TOKEN}\"", "url: \"${RECEIVER}\"", "cluster: \"${NAMESPACE}-1\""] {
        assert!(effective.contains(reference), "{reference} is not in\n{effective}");
    }
}

proptest! {
    /// Whatever is done to a good file, checking it ends with an answer, and an accepted one prints what it means.
    #[test]
    fn no_file_panics(name in prop::sample::select(names(".good.yaml").into_iter().collect::<Vec<_>>()),
                      at in any::<prop::sample::Index>(), remove in 0..40usize,
                      insert in "[\\[\\]{}:,\"'\\-# \\n${}&*!a0]{0,4}") {
        let text = std::fs::read_to_string(corpus().join(format!("{name}.good.yaml"))).expect("readable");
        let mut chars: Vec<char> = text.chars().collect();
        let start = at.index(chars.len());
        let end = (start + remove).min(chars.len());
        chars.splice(start..end, insert.chars());
        let text: String = chars.into_iter().collect();
        let file = corpus().join("changed.yaml");
        if let Ok(config) = config::parse(&file, &text, &environment).config {
            let again = config::parse(&file, &config.effective, &environment).config;
            // What has become a secret by the change is not printed.
            if !config.effective.contains("<secret>") {
                prop_assert_eq!(again.ok(), Some(config));
            }
        }
    }
}
