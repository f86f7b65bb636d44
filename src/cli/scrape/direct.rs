//! A scrape from this process to the target: what to ask, how to verify it, and the exchange itself.

use std::path::Path;
use std::sync::Arc;

use tokio::time::Instant;
use url::Url;

use super::collect::Forwarding;
use super::pod::{self, WantedPort};
use super::report::Report;
use super::{Collector, ScrapeArgs, Scraped, Stop};
use crate::cli::certificates::{self, NOWHERE, Ours};
use crate::cli::cluster::Cluster;
use crate::cli::exposure::is_namesake;
use crate::cli::istio::{ENVOY_PORT, MERGED_PORT, METRICS_PATH};
use crate::clock::Clock;
use crate::config::{self, JobSecurity, ScrapeConfig, SpiffeJob};
use crate::connect::{Client, CredentialsFeed};
use crate::model::{
    Address, Failure, HistogramReading, Labels, Match, Peer, Scheme, SpiffeId, Target, TargetId, Tenants, TrustDomain,
    Verification, clean,
};
use crate::scrape::{Budget, Exchange, RequestHead, exchange};

/// What is to be scraped, once the arguments have been understood.
struct Plan {
    target: Target,
    job: ScrapeConfig,
    credentials: Option<CredentialsFeed>,
    /// What is to be said of our certificates.
    remarks: Vec<String>,
    /// What would be forwarded, where that was asked for.
    forwarding: Option<Forwarding>,
}

/// The rules that `istio_sd_configs` stands for, in a job of their own; the port of metrics fills the gap.
const ISTIO_JOB: &str = "scrape_configs: [{job_name: scrape, istio_sd_configs: [{port: PORT, scope: cluster}]}]";
const PATH: &str = "__metrics_path__";
const PATH_ANNOTATION: &str = "__meta_kubernetes_pod_annotation_prometheus_io_path";

/// Scrapes a URL.
pub(super) async fn scrape_url(args: &ScrapeArgs) -> Result<Scraped, Stop> {
    Ok(scrape(args, plan_for_url(args).map_err(Stop::Usage)?).await)
}

/// Scrapes a pod with the certificates in `certs_dir`.
pub(super) async fn scrape_pod(args: &ScrapeArgs, name: &str, certs_dir: &Path) -> Result<Scraped, Stop> {
    let ours = load(args, certs_dir).map_err(Stop::Usage)?;
    let cluster = Cluster::of(args.pod.kubeconfig.as_deref(), args.pod.context.as_deref()).await?;
    let namespace = args.pod.namespace.as_deref().unwrap_or(cluster.default_namespace());
    let seen = cluster.pod(pod::checked(namespace)?, pod::checked(name)?).await?;
    let place = pod::place(&seen, args.pod.port.unwrap_or(WantedPort::Merged))?;
    let expected = match (&args.spiffe_id, &ours.trust_domain) {
        (Some(id), _) => id.clone(),
        (None, Some(domain)) => SpiffeId::of_service_account(domain, &place.namespace, &place.service_account)
            .map_err(|error| Stop::Usage(format!("the pod's service account has no SPIFFE ID: {error}")))?,
        (None, None) => {
            return Err(Stop::Usage(certificates::NO_TRUST_DOMAIN.to_owned()));
        }
    };
    let address = Address::parse(&pod::host_port(place.ip, place.port))
        .map_err(|error| Stop::Usage(format!("the address of the pod: {error}")))?;
    let path = path(args.pod.port.unwrap_or(WantedPort::Merged), place.path.as_deref());
    let plan = plan(args, Scheme::Https, address, &path, Some((ours, Peer::exactly(expected)))).map_err(Stop::Usage)?;
    let mut scraped = scrape(args, plan).await;
    scraped.report.about.push(("pod", clean(&format!("{}/{}", place.namespace, place.name)).into_owned()));
    Ok(scraped)
}

/// The path that is asked for: the pod's own, where `istio_sd_configs` would follow it on this port.
fn path(wanted: WantedPort, own: Option<&str>) -> String {
    let port = match wanted {
        WantedPort::Merged | WantedPort::Number(MERGED_PORT) => "merged",
        WantedPort::Envoy | WantedPort::Number(ENVOY_PORT) => "envoy",
        WantedPort::Number(_) => return METRICS_PATH.to_owned(),
    };
    let mut labels: Labels = [(PATH, METRICS_PATH), (PATH_ANNOTATION, own.unwrap_or_default())].into_iter().collect();
    for rule in &job_of(&ISTIO_JOB.replace("PORT", port)).relabel {
        if rule.spec().target_label.as_deref() == Some(PATH) {
            // It writes a label, and drops nothing.
            let _ = rule.apply(&mut labels);
        }
    }
    labels.value(PATH).to_owned()
}

async fn scrape(args: &ScrapeArgs, Plan { target, job, credentials, remarks, forwarding }: Plan) -> Scraped {
    let mut collector = Collector::forwarding(forwarding);
    let (seen, outcome) = match Client::for_target(&target, &job, credentials, None, &Clock::system()) {
        Err(failure) => (Exchange::default(), Err(failure)),
        Ok(mut client) => {
            let head = RequestHead::new(&job, args.timeout, target.histograms);
            let deadline = Instant::now() + args.timeout;
            let (address, path) = (&target.address, &*target.path_and_query);
            let mut share = Budget::unlimited().share();
            exchange(&mut client, address, path, &head, deadline, &mut collector, &mut share).await
        }
    };
    let failure = outcome.err().map(|failure| advised(failure, args.spiffe_id.is_some()));
    let mut report = Report::of(&target, seen, failure, collector.samples);
    report.about.extend((!remarks.is_empty()).then(|| ("certs", remarks.join("; "))));
    Scraped { report, collector }
}

/// The failure with what to do about it here: there is no job whose settings could be mended. `is_given` is whether the
/// identity that must answer was written out.
fn advised(failure: Failure, is_given: bool) -> Failure {
    match (is_namesake(&failure), is_given) {
        (true, true) => {
            failure.advising("if the other trust domain is a name of this mesh, give the ID with it by --spiffe-id")
        }
        (true, false) => {
            failure.advising("if the other trust domain is a name of this mesh, give it by --trust-domain")
        }
        (false, _) => failure,
    }
}

/// Understands a URL; the error is a sentence for the user.
fn plan_for_url(args: &ScrapeArgs) -> Result<Plan, String> {
    let url = Url::parse(&args.target).map_err(|error| {
        format!(
            "{:?} is no URL ({error}); write for example https://10.1.2.3:15092/stats/prometheus, or pod/NAME",
            args.target
        )
    })?;
    let scheme = match url.scheme() {
        "https" => Scheme::Https,
        "http" => Scheme::Http,
        other => return Err(format!("the scheme {other:?} is not scraped; write https://")),
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err("user names and passwords in the URL are not supported".to_owned());
    }
    let host = url.host_str().unwrap_or_default();
    let address = match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    };
    let address = Address::parse(&address).map_err(|error| error.to_string())?;
    let written = args.target.split(['?', '#']).next().unwrap_or_default();
    let path = if url.path() == "/" && !written.ends_with('/') { METRICS_PATH } else { url.path() };
    let path_and_query = match url.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };

    let certs_dir = match scheme {
        Scheme::Http if args.spiffe_id.is_some() || args.trust_domain.is_some() => {
            return Err("nobody's identity can be verified over http; write https://".to_owned());
        }
        Scheme::Http => None,
        Scheme::Https => certificates::dir(args.certs_dir.as_deref()),
    };
    let identity = match certs_dir {
        Some(dir) => {
            let ours = load(args, &dir)?;
            let peer = peer_of_url(args, &ours)?;
            Some((ours, peer))
        }
        None if args.spiffe_id.is_some() || args.trust_domain.is_some() => {
            return Err(format!("an identity can only be verified against roots: give --certs-dir ({NOWHERE})"));
        }
        None => None,
    };
    if args.alpn.is_some() && identity.is_none() {
        return Err("--alpn is for a scrape that verifies an identity: write https:// and give --certs-dir".to_owned());
    }
    plan(args, scheme, address, &path_and_query, identity)
}

/// A target, and a job that verifies it: by SPIFFE ID where there is an identity, else as an ordinary one.
fn plan(
    args: &ScrapeArgs,
    scheme: Scheme,
    address: Address,
    path_and_query: &str,
    identity: Option<(Ours, Peer)>,
) -> Result<Plan, String> {
    let forwarding = forwarding(args, &address)?;
    let mut job = job_with_defaults();
    let (verification, credentials, remarks) = match identity {
        Some((Ours { files, credentials, trust_domain, remarks }, peer)) => {
            job.security =
                JobSecurity::Spiffe(SpiffeJob { files, trust_domain, aliases: Vec::new(), rule: peer.rule() });
            // The peer is most likely Istio's agent, which cuts its answers without a sign.
            job.require_complete = true;
            (Verification::Spiffe(peer), Some(credentials), remarks)
        }
        None if scheme == Scheme::Https => (Verification::HostName, None, Vec::new()),
        None => (Verification::None, None, Vec::new()),
    };
    let target = Target {
        id: TargetId(0),
        pool: Arc::from("scrape"),
        address,
        scheme,
        path_and_query: path_and_query.into(),
        labels: Labels::new(),
        tenants: Tenants::default(),
        discovered: Labels::new(),
        interval: args.timeout,
        timeout: args.timeout,
        histograms: HistogramReading::default(),
        verification,
        alpn: args.alpn.clone().unwrap_or_default(),
        pod: None,
    };
    Ok(Plan { target, job, credentials, remarks, forwarding })
}

/// The rules by which a configuration would forward what this address exposes; the error is a sentence. Discovery and its
/// labels are not played: the target has its `job` and its `instance`.
fn forwarding(args: &ScrapeArgs, address: &Address) -> Result<Option<Forwarding>, String> {
    let Some(file) = &args.view.config else {
        return match args.view.relabel {
            true => {
                Err("the rules are those of a configuration: give --config FILE and, if it has several, --job".into())
            }
            false => Ok(None),
        };
    };
    let loaded = config::load(file, &|name| std::env::var(name).ok());
    let config = loaded.config.map_err(|problems| {
        let first = problems.first().map(ToString::to_string).unwrap_or_default();
        format!("{first}; run `meshscrape check config {}`", file.display())
    })?;
    let jobs: Vec<_> = config.scrape_configs.iter().map(|job| &*job.job_name).collect();
    let job = match &args.view.job {
        Some(name) => config.scrape_configs.iter().find(|job| *job.job_name == **name),
        None => config.scrape_configs.first().filter(|_| jobs.len() == 1),
    };
    let job = job.ok_or_else(|| match &args.view.job {
        Some(name) => format!("{} has no job {name:?}; it has {}", file.display(), jobs.join(", ")),
        None => format!("say with --job which of these counts: {}", jobs.join(", ")),
    })?;
    let labels = [("job", &*job.job_name), ("instance", &*address.to_string())].into_iter().collect();
    Ok(Some(Forwarding { job: Arc::clone(job), labels }))
}

/// A job as a configuration file makes it that says nothing but its name.
fn job_with_defaults() -> ScrapeConfig {
    job_of("scrape_configs: [{job_name: scrape}]")
}

/// The one job of a configuration that stands in this file.
fn job_of(text: &str) -> ScrapeConfig {
    let loaded = config::parse(Path::new("-"), text, &|_| None);
    let config = loaded.config.expect("the texts in this file are good configurations");
    ScrapeConfig::clone(&config.scrape_configs[0])
}

/// Reads the certificates in `dir` for the trust domain that the arguments name; the error is a sentence.
fn load(args: &ScrapeArgs, dir: &Path) -> Result<Ours, String> {
    let named = args.spiffe_id.as_ref().map(|id| id.trust_domain().clone());
    Ours::load(dir, named.or_else(|| args.trust_domain.clone()), Vec::new())
}

/// Who must answer where the target is a URL, which says nothing about it.
fn peer_of_url(args: &ScrapeArgs, ours: &Ours) -> Result<Peer, String> {
    match (&args.spiffe_id, &ours.trust_domain) {
        (Some(id), _) => Ok(Peer::exactly(id.clone())),
        (None, Some(domain)) => Ok(Peer::with_aliases(anybody(domain), &[], Match::TrustDomain)),
        (None, None) => Err("our certificate carries no SPIFFE ID, so the trust domain is not known: \
                             give --spiffe-id or --trust-domain"
            .to_owned()),
    }
}

/// Stands for a trust domain where any of its workloads may answer.
fn anybody(domain: &TrustDomain) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://{domain}/any")).expect("a trust domain with a path is an ID")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Reason;

    #[test]
    fn another_name_of_the_mesh_is_given_by_an_option_of_the_command() {
        let peer = Peer::exactly(SpiffeId::parse("spiffe://cluster.local/ns/shop/sa/cart").expect("an ID"));
        let hint = |presented: &str, is_given| {
            let failure = Failure::new(Reason::IdentityMismatch, "x").expecting(&peer).presenting(presented);
            // As the verifier has it, for jobs.
            advised(failure.advising("add it to trust_domain_aliases"), is_given).hint().into_owned()
        };
        let namesake = "spiffe://old.local/ns/shop/sa/cart (unverified)";
        let says = "if the other trust domain is a name of this mesh, give";
        let theirs = Reason::IdentityMismatch.hint();
        assert_eq!(hint(namesake, false), format!("{says} it by --trust-domain; else {theirs}"));
        assert_eq!(hint(namesake, true), format!("{says} the ID with it by --spiffe-id; else {theirs}"));
        let other = hint("spiffe://cluster.local/ns/shop/sa/other", false);
        assert!(!other.contains("--trust-domain"), "{other}");
    }

    #[test]
    fn the_path_of_a_pod_counts_where_the_port_has_it() {
        use WantedPort::{Envoy, Merged, Number};
        for (own, merged, envoy) in [
            (None, false, false),
            (Some(""), false, false),
            (Some("/metrics"), true, false),
            (Some("/metrics/detail"), true, false),
            (Some("/stats/prometheus/x"), true, true),
            (Some("/actuator/prometheus"), false, false),
            (Some("/metrics?x=1"), false, false),
            (Some("/metrics/../quitquitquit"), false, false),
            (Some("/metrics\r\nX: y"), false, false),
        ] {
            let expected = |follows: bool| if follows { own.unwrap_or_default() } else { METRICS_PATH };
            for (wanted, follows) in
                [(Merged, merged), (Number(15092), merged), (Envoy, envoy), (Number(15091), envoy), (Number(9), false)]
            {
                assert_eq!(path(wanted, own), expected(follows), "{own:?} on {wanted:?}");
            }
        }
    }
}
