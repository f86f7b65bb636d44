//! `meshscrape scrape`: one scrape with the agent's own code, and one sentence on what is wrong.
//!
//! The exposition, as it would be forwarded but without the labels of a target, goes to standard output; the report goes
//! to standard error. With certificates, verification is that of a SPIFFE job; without them it is that of an ordinary one:
//! host name over `https`, nobody over `http`. There is no way to look at a peer without it, and the report says which it
//! was; without an exact `--spiffe-id` any workload of the trust domain may answer, and it says that, too.

mod collect;
mod report;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use url::Url;

use self::collect::Collector;
use self::report::Report;
use super::style::Paint;
use crate::clock::Clock;
use crate::config::{self, CertificateFiles, JobSecurity, ScrapeConfig, SpiffeJob};
use crate::connect::{Client, CredentialsFeed};
use crate::identity::{self, IdentitySettings};
use crate::model::{
    Address, Alpn, ExitClass, Labels, Match, Peer, Scheme, SpiffeId, Target, TargetId, TrustDomain, Verification,
};
use crate::parse::Entry;
use crate::scrape::{RequestHead, exchange};
use crate::telemetry::{self, LogFormat, LogLevel};

/// Where the certificates are in the manifests, used if it is there.
const DEFAULT_CERTS_DIR: &str = "/etc/istio-certs";
/// The path of a URL that has none: what both secure ports of Istio route.
const DEFAULT_PATH: &str = "/stats/prometheus";

/// The arguments of one scrape.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit codes: 0 scraped, 2 usage, 3 no connection, 4 TLS or identity, 5 HTTP, 6 exposition or limit, 7 timeout.

Examples:
  meshscrape scrape https://10.1.2.3:15092 --spiffe-id spiffe://cluster.local/ns/shop/sa/cart
  meshscrape scrape https://10.1.2.3:15091/stats/prometheus --certs-dir ./certs --output summary")]
pub(super) struct ScrapeArgs {
    /// What to scrape; without a path, /stats/prometheus
    #[arg(value_name = "URL")]
    url: String,
    /// Our certificates: cert-chain.pem, key.pem, root-cert.pem [default: /etc/istio-certs, if it is there]
    #[arg(long, value_name = "DIR", env = "MESHSCRAPE_CERTS_DIR")]
    certs_dir: Option<PathBuf>,
    /// The identity that must answer, exactly
    #[arg(long, value_name = "ID", conflicts_with = "trust_domain", value_parser = parse_id)]
    spiffe_id: Option<SpiffeId>,
    /// The trust domain that must answer, whichever workload it is [default: that of our own certificate]
    #[arg(long, value_name = "TD", value_parser = parse_domain)]
    trust_domain: Option<TrustDomain>,
    /// How long it may take, connect to last byte, such as 500ms or 10s
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration)]
    timeout: Duration,
    /// What to print on standard output
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    output: Output,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// The exposition, in the Prometheus text format
    #[default]
    Prom,
    /// One JSON document: report and samples
    Json,
    /// The report only
    Summary,
}

fn parse_id(text: &str) -> Result<SpiffeId, String> {
    SpiffeId::parse(text).map_err(|error| error.to_string())
}

fn parse_domain(text: &str) -> Result<TrustDomain, String> {
    TrustDomain::parse(text).map_err(|error| error.to_string())
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    match config::parse_duration(text) {
        Some(duration) if duration.is_zero() => Err("it must be longer than 0s".to_owned()),
        Some(duration) => Ok(duration),
        None => Err("a duration such as 500ms, 10s or 1m30s is expected".to_owned()),
    }
}

/// What is to be scraped, once the arguments have been understood.
struct Plan {
    target: Target,
    job: ScrapeConfig,
    credentials: Option<CredentialsFeed>,
    /// False where any workload of the trust domain may answer.
    pinned: bool,
}

/// Scrapes once; returns the exit code.
pub(super) async fn run(args: ScrapeArgs) -> u8 {
    telemetry::init(LogFormat::Text, LogLevel::Warn);
    let paint = Paint::for_stderr();
    let plan = match plan(&args) {
        Ok(plan) => plan,
        Err(message) => {
            eprintln!("{} {message}", paint.bad("meshscrape:"));
            return ExitClass::Usage.code();
        }
    };
    let client = Client::for_target(&plan.target, &plan.job, plan.credentials.clone(), &Clock::system());
    let mut client = match client {
        Ok(client) => client,
        Err(failure) => {
            eprintln!("{} {failure}\n{} {}", paint.bad("meshscrape:"), paint.bold("hint:"), failure.hint());
            return failure.reason.class().code();
        }
    };
    let head = RequestHead::new(&plan.job, args.timeout);
    let mut collector = Collector::default();
    let deadline = Instant::now() + args.timeout;
    let (address, path) = (&plan.target.address, &*plan.target.path_and_query);
    let mut each = |entry: &Entry<'_>| collector.take(entry);
    let (seen, outcome) = exchange(&mut client, address, path, &head, deadline, &mut each).await;

    let report = Report { target: &plan.target, pinned: plan.pinned, seen: &seen, outcome: outcome.as_ref().err() };
    let printed = match args.output {
        Output::Prom => std::io::stderr()
            .write_all(report.text(&collector, paint).as_bytes())
            .and_then(|()| collector.print_prom(outcome.is_ok())),
        Output::Json => report.print_json(&collector),
        Output::Summary => std::io::stdout().write_all(report.text(&collector, Paint::for_stdout()).as_bytes()),
    };
    match (printed, outcome) {
        (_, Err(failure)) => failure.reason.class().code(),
        (Err(error), Ok(())) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            eprintln!("meshscrape: cannot write: {error}");
            1
        }
        _ => 0,
    }
}

/// Understands the arguments; the error is a sentence for the user.
fn plan(args: &ScrapeArgs) -> Result<Plan, String> {
    let url = Url::parse(&args.url).map_err(|error| {
        format!("{:?} is no URL ({error}); write for example https://10.1.2.3:15092/stats/prometheus", args.url)
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
    let written = args.url.split(['?', '#']).next().unwrap_or_default();
    let path = if url.path() == "/" && !written.ends_with('/') { DEFAULT_PATH } else { url.path() };
    let path_and_query = match url.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };

    let certs_dir = match (&args.certs_dir, scheme) {
        (_, Scheme::Http) if args.spiffe_id.is_some() || args.trust_domain.is_some() => {
            return Err("nobody's identity can be verified over http; write https://".to_owned());
        }
        (_, Scheme::Http) => None,
        (Some(dir), Scheme::Https) => Some(dir.clone()),
        (None, Scheme::Https) => Some(PathBuf::from(DEFAULT_CERTS_DIR)).filter(|dir| dir.is_dir()),
    };
    if certs_dir.is_none() && (args.spiffe_id.is_some() || args.trust_domain.is_some()) {
        return Err(format!(
            "an identity can only be verified against roots: give --certs-dir ({DEFAULT_CERTS_DIR} is not there)"
        ));
    }

    let mut job = job_with_defaults();
    let (verification, credentials, pinned) = match &certs_dir {
        Some(dir) => {
            let (spiffe, credentials, peer, pinned) = identity_of(args, dir)?;
            job.security = JobSecurity::Spiffe(spiffe);
            // The peer is most likely Istio's agent, which cuts its answers without a sign.
            job.require_complete = true;
            (Verification::Spiffe(peer), Some(credentials), pinned)
        }
        None if scheme == Scheme::Https => (Verification::HostName, None, true),
        None => (Verification::None, None, true),
    };
    let target = Target {
        id: TargetId(0),
        pool: Arc::from("scrape"),
        address,
        scheme,
        path_and_query: path_and_query.into(),
        labels: Labels::new(),
        discovered: Labels::new(),
        interval: args.timeout,
        timeout: args.timeout,
        verification,
        alpn: Alpn::default(),
        pod: None,
    };
    Ok(Plan { target, job, credentials, pinned })
}

/// A job as a configuration file makes it that says nothing but its name.
fn job_with_defaults() -> ScrapeConfig {
    let loaded = config::parse(Path::new("-"), "scrape_configs: [{job_name: scrape}]", &|_| None);
    let config = loaded.config.expect("a job needs nothing but a name");
    ScrapeConfig::clone(&config.scrape_configs[0])
}

/// How a SPIFFE job with these certificates would verify the peer: its settings, its certificates, who must answer, and
/// whether that is exactly one identity.
fn identity_of(args: &ScrapeArgs, dir: &Path) -> Result<(SpiffeJob, CredentialsFeed, Peer, bool), String> {
    let clock = Clock::system();
    let files = CertificateFiles::in_dir(dir);
    let named = args.spiffe_id.as_ref().map(|id| id.trust_domain().clone());
    let trust_domain = named.or_else(|| args.trust_domain.clone());
    let settings = IdentitySettings { files: files.clone(), trust_domain: trust_domain.clone(), aliases: Vec::new() };
    let (credentials, snapshot) = identity::load(&settings, &clock);
    if let Some(problem) = snapshot.problems.first() {
        return Err(format!("{problem}; run `meshscrape check certs {}`", dir.display()));
    }
    let (peer, pinned) = match (&args.spiffe_id, credentials.trust_domain()) {
        (Some(id), _) => (Peer::exactly(id.clone()), true),
        (None, Some(domain)) => (Peer::with_aliases(anybody(domain), &[], Match::TrustDomain), false),
        (None, None) => {
            return Err("our certificate carries no SPIFFE ID, so the trust domain is not known: \
                        give --spiffe-id or --trust-domain"
                .to_owned());
        }
    };
    let job = SpiffeJob { files, trust_domain, aliases: Vec::new(), rule: peer.rule() };
    Ok((job, watch::channel(credentials).1, peer, pinned))
}

/// Stands for a trust domain where any of its workloads may answer.
fn anybody(domain: &TrustDomain) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://{domain}/any")).expect("a trust domain with a path is an ID")
}
