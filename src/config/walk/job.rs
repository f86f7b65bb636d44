//! One of `scrape_configs`.

use super::fields::{Fields, Item, Valued};
use super::file::{Inherited, one_of, read_protocol};
use super::identity::SPIFFE_ID;
use super::istio::Preset;
use super::keys::is_discovery;
use super::relabel::LocatedRule;
use super::tables::SCRAPE;
use super::targets::Job;
use super::tenant::{self, Tenancy};
use super::unique::Place;
use super::{Walk, auth, headers, http_sd, identity, istio, kubernetes, oauth2, proxy, relabel, targets, tls};
use crate::config::problem::Wrong;
use crate::config::shown::Shown;
use crate::config::{Global, Histograms, JobSecurity, KubernetesRole, KubernetesSd, Limits, ScrapeConfig, preset};
use crate::model::{Scheme, clean};
use crate::relabel::{Action, NameScheme, RuleSpec};

const FACTOR: &str = "native_histogram_min_bucket_factor";

/// Reads the job `item`, and where its name stands.
pub(super) fn read<'w>(
    walk: &'w Walk<'w>,
    item: &Item<'w>,
    global: &Global,
    inherited: &Inherited,
    tenancy: &Tenancy,
) -> Option<(ScrapeConfig, Place, Shown)> {
    let mut fields = Fields::open(walk, item, &SCRAPE)?;
    let name = read_name(&mut fields);
    let own = inherited.read(&mut fields);
    let preset = istio::read(&fields);
    let security = tls::of_job(&mut fields, preset.is_some());
    let verifies = matches!(security, JobSecurity::Spiffe(_));
    let scheme = read_scheme(&mut fields, verifies);
    let auth = auth::read(&mut fields);
    let oauth2 = oauth2::read(&mut fields);
    if verifies && oauth2.is_some() {
        let message = "a job that verifies SPIFFE IDs proves who we are by our certificate";
        fields.wrong("oauth2", Wrong::new(message, "remove it"));
    }
    let http_headers = headers::read(&mut fields);
    let tls = match &security {
        JobSecurity::Ordinary(tls) => Some(tls),
        JobSecurity::Spiffe(_) => None,
    };
    let proxies = proxy::read(&mut fields, tls);
    let has_credentials = auth.is_some() || oauth2.is_some() || http_headers.iter().any(|header| header.secret);
    check_plain_http(&fields, scheme, global, has_credentials);

    let rules = read_rules(&mut fields, own.names.value, &name.value, preset.as_ref());
    let identity_from_annotations = fields.flag("identity_from_annotations", false);
    let writes_identity: Vec<&LocatedRule> = rules.iter().filter(|rule| writes_identity(rule)).collect();
    if !verifies {
        for rule in &writes_identity {
            walk.problem(
                rule.target_label,
                &format!("{}.target_label", rule.path),
                Wrong::new(
                    "an identity is expected of targets, but this job does not verify SPIFFE IDs",
                    "write spiffe: {} under tls_config, or remove the rule",
                ),
            );
        }
    } else if !identity_from_annotations {
        identity::check(&fields, &rules);
    }
    let job = Job {
        security: &security,
        names: own.names.value,
        relabels: !rules.is_empty() || fields.has("relabel_configs"),
        relabels_identity: !writes_identity.is_empty(),
    };
    let static_configs = targets::statics(&mut fields, &job);
    let file_sd_configs = targets::files(&mut fields);
    let http_sd_configs = http_sd::read(&mut fields, verifies);
    let kubernetes_sd_configs = kubernetes_sds(&mut fields, &job, preset.as_ref());
    let has_pods = preset.is_some() || kubernetes_sd_configs.iter().any(|sd| sd.role != KubernetesRole::Node);
    tenant::check(&fields, &rules, has_pods, tenancy);
    let pod_ports = pod_ports(&mut fields, preset.as_ref());
    if !fields.mentions(is_discovery) {
        let message = "this job has no targets";
        let instead = "write kubernetes_sd_configs, istio_sd_configs, file_sd_configs or static_configs";
        walk.warning(fields.pos, &fields.path, Wrong::new(message, instead));
    }

    let scrape_protocols = own.asked_for();
    let [
        sample_limit,
        target_limit,
        label_limit,
        label_name_length_limit,
        label_value_length_limit,
        keep_dropped_targets,
    ] = own.limits.map(|limit| limit.value);
    let limits = Limits {
        sample_limit,
        label_limit,
        label_name_length_limit,
        label_value_length_limit,
        body_size_limit: own.body_size_limit.value,
        target_limit,
        keep_dropped_targets,
    };
    let histograms = Histograms {
        native: own.native_histograms.value,
        classic_too: own.classic_too.value,
        convert: own.convert_classic.value,
        bucket_limit: fields.count("native_histogram_bucket_limit", 0),
        min_bucket_factor: fields.valued(FACTOR, Valued::new(0.0, "0"), read_factor).value,
    };
    let honor_labels = fields.flag("honor_labels", false);
    let trust_target_labels = fields.flag("trust_target_labels", false);
    if verifies && honor_labels && !trust_target_labels {
        fields.wrong(
            "honor_labels",
            Wrong::new(
                "in a job that verifies SPIFFE IDs, targets could then forge job and instance of others",
                "write honor_labels: false, or trust_target_labels: true beside it",
            ),
        );
    }
    let config = ScrapeConfig {
        job_name: name.value.as_str().into(),
        scrape_interval: own.interval.value,
        scrape_timeout: own.timeout.value,
        scrape_protocols,
        fallback_scrape_protocol: fields.parsed("fallback_scrape_protocol", read_protocol),
        metrics_path: read_path(&mut fields, preset.as_ref()),
        scheme,
        params: read_params(&mut fields),
        honor_labels,
        honor_timestamps: fields.flag("honor_timestamps", preset.is_none()),
        track_timestamps_staleness: fields.flag("track_timestamps_staleness", false),
        enable_compression: fields.flag("enable_compression", true),
        follow_redirects: fields.flag("follow_redirects", true),
        enable_http2: fields.flag("enable_http2", true),
        require_complete: fields.flag("require_complete", preset.is_some()),
        trust_target_labels,
        protect_external_labels: fields.flag("protect_external_labels", verifies),
        identity_from_annotations,
        limits,
        histograms,
        names: own.names.value,
        escaping: own.escaping.value,
        extra_scrape_metrics: own.extra_scrape_metrics.value,
        relabel: rules.into_iter().map(|located| located.rule).collect(),
        metric_relabel: relabel::read(&mut fields, "metric_relabel_configs", own.names.value),
        static_configs,
        file_sd_configs,
        http_sd_configs,
        kubernetes_sd_configs,
        pod_ports,
        pod_cidrs: targets::cidrs(&mut fields, "pod_cidrs"),
        namespace_target_limit: fields
            .count("namespace_target_limit", preset.as_ref().map_or(0, |preset| preset.namespace_target_limit)),
        security,
        auth,
        oauth2,
        http_headers,
        proxies,
        tenants: tenancy.rules.clone(),
    };
    let place = Place { pos: fields.pos_of("job_name"), key: fields.path_of("job_name"), shown: Some(name.shown) };
    Some((config, place, fields.close()))
}

fn read_factor(text: &str) -> Result<f64, Wrong> {
    let factor = text.parse().ok().filter(|factor: &f64| factor.is_finite());
    factor.ok_or_else(|| Wrong::new(format!("{:?} is not a number", clean(text)), "write a factor such as 1.1, or 0"))
}

/// The rules for targets: those of the file, with `istio_sd_configs` between those that it stands for.
fn read_rules(fields: &mut Fields<'_>, names: NameScheme, job: &str, preset: Option<&Preset>) -> Vec<LocatedRule> {
    const KEY: &str = "relabel_configs";
    let (mut rules, mut shown) = relabel::read_located(fields, KEY, names);
    if let Some(preset) = preset {
        identity::keep_sources(fields, &rules, &preset::API_FIELDS);
        let made = |specs: Vec<RuleSpec>| -> (Vec<LocatedRule>, Vec<Shown>) {
            specs.into_iter().map(|spec| relabel::of_preset(spec, names, preset.pos, &preset.path)).unzip()
        };
        let ((head, head_shown), (tail, tail_shown)) = (made(preset.pods.head()), made(preset::tail(job)));
        rules = head.into_iter().chain(rules).chain(tail).collect();
        shown = head_shown.into_iter().chain(shown).chain(tail_shown).collect();
    }
    fields.show(KEY, Shown::Seq(shown));
    rules
}

/// The discoveries in Kubernetes: those of the file, or that of `istio_sd_configs`.
fn kubernetes_sds(fields: &mut Fields<'_>, job: &Job<'_>, preset: Option<&Preset>) -> Vec<KubernetesSd> {
    const KEY: &str = "kubernetes_sd_configs";
    let Some(preset) = preset else { return kubernetes::read(fields, job) };
    fields.show(KEY, Shown::Seq(vec![preset.shown.clone()]));
    vec![preset.sd.clone()]
}

fn pod_ports(fields: &mut Fields<'_>, preset: Option<&Preset>) -> Vec<u16> {
    const KEY: &str = "pod_ports";
    let (ports, shown) = match preset {
        Some(preset) => preset.ports.clone(),
        None => targets::ports(fields, KEY, &[]),
    };
    fields.show(KEY, shown);
    ports
}

fn read_name(fields: &mut Fields<'_>) -> Valued<String> {
    match fields.text("job_name") {
        Some(name) if !name.value.is_empty() => {
            let shown = name.to_string();
            Valued::new(name.value.into_owned(), shown)
        }
        written => {
            let instead = "write a name that no other job has";
            match written {
                Some(_) => fields.wrong("job_name", Wrong::new("the name is empty", instead)),
                None => fields.need("job_name", instead),
            }
            // The path stands in for the name: it is unique.
            Valued::new(fields.path.clone(), "")
        }
    }
}

fn read_scheme(fields: &mut Fields<'_>, verifies: bool) -> Scheme {
    const KEY: &str = "scheme";
    let default = if verifies { Scheme::Https } else { Scheme::Http };
    let scheme = fields.valued(KEY, Valued::new(default, default.as_str()), |text| match text {
        "http" => Ok(Scheme::Http),
        "https" => Ok(Scheme::Https),
        _ => Err(one_of(text, &["http", "https"])),
    });
    if verifies && scheme.value == Scheme::Http {
        let message = "this job verifies SPIFFE IDs, and nobody is verified over http";
        fields.wrong(KEY, Wrong::new(message, "write https, or remove it"));
    }
    scheme.value
}

/// What may not go over a connection that nobody verifies.
fn check_plain_http(fields: &Fields<'_>, scheme: Scheme, global: &Global, has_credentials: bool) {
    if scheme == Scheme::Https {
        return;
    }
    let written = fields.get("scheme").and_then(|item| fields.walk.text(&item)) == Some("http");
    if has_credentials && !written {
        let message = "the credentials of this job would go over http, and the file does not say that they may";
        let instead = "write scheme: https, or literally scheme: http";
        fields.walk.problem(fields.pos_of("scheme"), &fields.path_of("scheme"), Wrong::new(message, instead));
    }
    if global.require_identity {
        let name = fields.scalar("job_name").map(|name| format!("the job {name}")).unwrap_or("this job".to_owned());
        let message =
            format!("{name} is scraped over http, where nobody is verified, but global.require_identity is true");
        let instead = "write scheme: https; for mesh certificates also tls_config with certs_dir and spiffe: {}";
        fields.walk.problem(fields.pos_of("scheme"), &fields.path_of("scheme"), Wrong::new(message, instead));
    }
}

fn writes_identity(located: &LocatedRule) -> bool {
    let spec = located.rule.spec();
    let sets = matches!(spec.action, Action::Replace | Action::HashMod | Action::Lowercase | Action::Uppercase);
    sets && spec.target_label.as_deref() == Some(SPIFFE_ID)
}

fn read_path(fields: &mut Fields<'_>, preset: Option<&Preset>) -> String {
    let default = if preset.is_some() { preset::METRICS_PATH } else { "/metrics" };
    let default = Valued::new(default.to_owned(), default);
    let path = fields.valued("metrics_path", default, |text| {
        if let Some((_, query)) = text.split_once(['?', '#']) {
            let name = clean(query.split('=').next().unwrap_or_default()).into_owned();
            let message = "a path has no query: the ? would be sent as a part of the path";
            return Err(Wrong::new(message, format!("write the query under params, as {name}: [value]")));
        }
        if text.chars().any(|c| c.is_control() || c == ' ') {
            return Err(Wrong::new("a path has no blanks or control characters", "write it percent-encoded"));
        }
        Ok(text.to_owned())
    });
    path.value
}

fn read_params(fields: &mut Fields<'_>) -> Vec<(String, Vec<String>)> {
    const KEY: &str = "params";
    let mut params = Vec::new();
    let mut shown = Vec::new();
    for named in fields.names(KEY) {
        let values: Vec<_> =
            fields.walk.items(&named.item).iter().filter_map(|item| fields.walk.scalar(item)).collect();
        let raw = values.iter().map(|value| Shown::Text(value.raw.to_string())).collect();
        shown.push((named.name.to_owned(), Shown::Seq(raw)));
        params.push((named.name.to_owned(), values.into_iter().map(|value| value.value.into_owned()).collect()));
    }
    fields.show(KEY, Shown::Map(shown));
    params
}
