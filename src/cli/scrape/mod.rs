//! `meshscrape scrape`: one scrape with the agent's own code, and one sentence on what is wrong.
//!
//! What is scraped is a URL or a pod. A pod's port, path and expected identity follow from the pod itself; where this
//! process has certificates of the mesh it asks the pod directly, and where it has none, as on a workstation, the agent
//! of the pod's node does. The exposition, as it would be forwarded but without the labels of a target, goes to standard
//! output; the report goes to standard error. With certificates, verification is that of a SPIFFE job; without them it is
//! that of an ordinary one: host name over `https`, nobody over `http`. There is no way to look at a peer without it, and
//! the report says which it was; without an exact identity any workload of the trust domain may answer, and it says that,
//! too.

mod collect;
mod compare;
mod direct;
mod explain;
mod pod;
mod report;
mod through;
mod watch;

pub(super) use self::pod::{checked, port_of};
pub(super) use self::through::target_of;

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use self::collect::Collector;
use self::pod::WantedPort;
use self::report::Report;
use self::through::Found;
use super::certificates::{self, NOWHERE};
use super::style::Paint;
use crate::config;
use crate::model::{Alpn, ExitClass, SpiffeId, TrustDomain};
use crate::relabel::Selector;
use crate::telemetry::{self, LogFormat, LogLevel};

/// The exit code where a pod cannot be scraped at all, with a sentence that says why.
pub(super) const NO_TARGET: u8 = 8;

/// The arguments of one scrape.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit codes: 0 scraped, 2 usage, 3 no connection (to the target, an agent or the API server), 4 TLS or identity, 5 HTTP, \
6 exposition or limit, 7 timeout, 8 the pod cannot be scraped: it is not there, not annotated, or no target of its agent.

A pod is asked directly where certificates of the mesh are at hand (--certs-dir), and must answer as its own service \
account. Elsewhere the agent of its node is asked to scrape it: by --agent, or by a port that is forwarded to the agent \
with your own kubeconfig; then the job of the target decides who must answer, and how long it may take.

With --watch it goes on until it is interrupted, a line for each scrape (with --output json a document in a line, without the \
samples), and exits as the last scrape did.

Examples:
  meshscrape scrape https://10.1.2.3:15092 --spiffe-id spiffe://cluster.local/ns/shop/sa/cart
  meshscrape scrape https://10.1.2.3:15091/stats/prometheus --certs-dir ./certs --output summary
  meshscrape scrape pod/cart-5d7c9 -n shop
  meshscrape scrape pod/cart-5d7c9 -n shop --port envoy --agent http://127.0.0.1:9465
  meshscrape scrape pod/cart-5d7c9 -n shop --match 'istio_requests_total' --diff=10s
  meshscrape scrape pod/cart-5d7c9 -n shop --relabel --explain")]
pub(super) struct ScrapeArgs {
    /// What to scrape: a URL (without a path, /stats/prometheus), or a pod
    #[arg(value_name = "URL|pod/NAME")]
    target: String,
    /// Our certificates: cert-chain.pem, key.pem, root-cert.pem, or tls.crt, tls.key, ca.crt [default: /etc/istio-certs or /var/run/secrets/spiffe.io, if one is there]
    #[arg(long, value_name = "DIR", env = "MESHSCRAPE_CERTS_DIR")]
    certs_dir: Option<PathBuf>,
    /// The identity that must answer, exactly [default of a pod: that of its service account]
    #[arg(long, value_name = "ID", conflicts_with = "trust_domain", value_parser = parse_id)]
    spiffe_id: Option<SpiffeId>,
    /// The trust domain that must answer, whichever workload it is; of a pod, the one that its service account belongs to
    /// [default: that of our own certificate]
    #[arg(long, value_name = "TD", value_parser = parse_domain)]
    trust_domain: Option<TrustDomain>,
    /// The application protocols to offer, such as istio-http/1.1, for listeners that want them (Istio before 1.31)
    /// [default: none]
    #[arg(long, value_name = "NAMES", conflicts_with = "agent", value_parser = parse_alpn)]
    alpn: Option<Alpn>,
    /// How long it may take, connect to last byte, such as 500ms or 10s
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration)]
    timeout: Duration,
    /// What to print on standard output
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    view: ViewArgs,
    #[command(flatten)]
    pod: PodArgs,
}

/// The arguments that say what of it is shown.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "What is shown")]
struct ViewArgs {
    /// Only series that match, such as 'istio_requests_total{response_code=~"5.."}'; of several, any may match
    #[arg(long = "match", value_name = "SELECTOR", value_parser = Selector::parse)]
    matching: Vec<Selector>,
    /// What would be forwarded: with the labels of the target, after metric_relabel_configs; and each series that would not
    /// be, with the rule that drops it. Through an agent its own rules count, else those of --config
    #[arg(long)]
    relabel: bool,
    /// The configuration whose rules --relabel shows
    #[arg(long, value_name = "FILE", requires = "relabel", conflicts_with = "agent")]
    config: Option<PathBuf>,
    /// The job of --config, if it has several
    #[arg(long, value_name = "NAME", requires = "config")]
    job: Option<String>,
    /// Say of each step what was done, what it proves, and what a failure means
    #[arg(long, conflicts_with_all = ["watch", "diff"])]
    explain: bool,
    /// Scrape again and again, so far apart, until interrupted [default: 5s]
    #[arg(long, value_name = "DURATION", num_args = 0..=1, require_equals = true, default_missing_value = "5s", value_parser = parse_duration)]
    watch: Option<Duration>,
    /// Show what has changed since the scrape before, so far apart [default: 5s]; without --watch after one such pause
    #[arg(long, value_name = "DURATION", num_args = 0..=1, require_equals = true, default_missing_value = "5s", value_parser = parse_duration)]
    diff: Option<Duration>,
}

/// The arguments for pods.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Options for pods")]
struct PodArgs {
    /// The pod's namespace [default: that of the kubeconfig's context]
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// The port: merged (prometheus.istio.io/secure-port), envoy (prometheus.istio.io/secure-envoy-port), or a number
    /// [default: merged]
    #[arg(long, value_name = "PORT", value_parser = WantedPort::parse)]
    port: Option<WantedPort>,
    /// The kubeconfig [default: KUBECONFIG, ~/.kube/config, or the service account of this pod]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The kubeconfig's context
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// The API of the agent that is to scrape it, on a loopback address; certificates of ours are not used then
    #[arg(long, value_name = "URL", conflicts_with_all = ["spiffe_id", "trust_domain"])]
    agent: Option<String>,
    /// Where the agents run [default: the namespace of pods with their labels, if it is only one]
    #[arg(long, value_name = "NAMESPACE")]
    agent_namespace: Option<String>,
    /// The labels of agents [default: app.kubernetes.io/name=meshscrape]
    #[arg(long, value_name = "SELECTOR")]
    agent_selector: Option<String>,
    /// The port of the agents' API [default: 9465]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    agent_port: Option<u16>,
}

impl PodArgs {
    /// Whether nothing of it was given.
    fn is_empty(&self) -> bool {
        let Self { namespace, port, kubeconfig, context, agent, agent_namespace, agent_selector, agent_port } = self;
        let texts = [namespace, context, agent, agent_namespace, agent_selector];
        texts.into_iter().all(Option::is_none) && port.is_none() && kubeconfig.is_none() && agent_port.is_none()
    }
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

pub(super) fn parse_domain(text: &str) -> Result<TrustDomain, String> {
    TrustDomain::parse(text).map_err(|error| error.to_string())
}

fn parse_alpn(text: &str) -> Result<Alpn, String> {
    Alpn::parse(text).map_err(|error| error.to_string())
}

pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    match config::parse_duration(text) {
        Some(duration) if duration.is_zero() => Err("it must be longer than 0s".to_owned()),
        Some(duration) => Ok(duration),
        None => Err("a duration such as 500ms, 10s or 1m30s is expected".to_owned()),
    }
}

/// A scrape that took place, whether or not it went well.
struct Scraped {
    report: Report,
    collector: Collector,
}

/// Why nothing was scraped. The texts are sentences, safe to show.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// What was asked for makes no sense, or a file of the caller's is at fault.
    Usage(String),
    /// The agent or the API server is not reached.
    NoConnection(String),
    /// The pod cannot be scraped, and what would help.
    NoTarget { why: String, hint: Option<String> },
}

impl Stop {
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Stop::Usage(_) => ExitClass::Usage.code(),
            Stop::NoConnection(_) => ExitClass::Connect.code(),
            Stop::NoTarget { .. } => NO_TARGET,
        }
    }

    pub(super) fn text(&self, paint: Paint) -> String {
        let (why, hint) = match self {
            Stop::Usage(why) | Stop::NoConnection(why) => (why, None),
            Stop::NoTarget { why, hint } => (why, hint.as_ref()),
        };
        let hint = hint.map(|hint| format!("\n{} {hint}", paint.bold("hint:"))).unwrap_or_default();
        format!("{} {why}{hint}", paint.bad("meshscrape:"))
    }
}

/// Scrapes, once or as often as was asked for; returns the exit code.
pub(super) async fn run(args: ScrapeArgs) -> u8 {
    telemetry::init(LogFormat::Text, LogLevel::Warn);
    let view = &args.view;
    if let Some(pause) = view.watch.or(view.diff) {
        return watch::run(&args, pause).await;
    }
    match scrape(&args, &mut None).await {
        Ok(scraped) => print(&scraped, &args),
        Err(stop) => told(&stop),
    }
}

/// Says why nothing was scraped; returns the exit code.
fn told(stop: &Stop) -> u8 {
    say!("{}", stop.text(Paint::for_stderr()));
    stop.exit_code()
}

/// One scrape of what was named. `found` is who scrapes it, once that is known.
async fn scrape(args: &ScrapeArgs, found: &mut Option<Found>) -> Result<Scraped, Stop> {
    let mut scraped = match args.target.strip_prefix("pod/") {
        Some(name) => scrape_pod(args, name, found).await,
        None if args.pod.is_empty() => direct::scrape_url(args).await,
        None => Err(Stop::Usage("the options for pods need a pod: write pod/NAME in the place of the URL".to_owned())),
    }?;
    scraped.collector.select(&args.view.matching);
    Ok(scraped)
}

/// By the way that is open: directly with certificates of the mesh, else through an agent.
async fn scrape_pod(args: &ScrapeArgs, name: &str, found: &mut Option<Found>) -> Result<Scraped, Stop> {
    match certificates::dir(args.certs_dir.as_deref()) {
        Some(dir) if args.pod.agent.is_none() => direct::scrape_pod(args, name, &dir).await,
        _ if args.spiffe_id.is_some() || args.trust_domain.is_some() => Err(Stop::Usage(format!(
            "an identity can only be verified against roots: give --certs-dir ({NOWHERE}); through an \
             agent, its job decides who must answer"
        ))),
        _ if args.alpn.is_some() => Err(Stop::Usage(
            "--alpn is for a scrape with certificates of ours: give --certs-dir; through an agent, the label __alpn__ of the \
             target decides"
                .to_owned(),
        )),
        _ if args.view.config.is_some() => Err(Stop::Usage(
            "through an agent its own rules count, not those of --config: leave it out, or give --certs-dir".to_owned(),
        )),
        _ => {
            let there = match found.take() {
                Some(there) => there,
                None => through::find(args, name).await?,
            };
            let scraped = through::live(args, &there).await?;
            // Whoever does not answer any more is looked for again next time.
            *found = Some(there);
            Ok(scraped)
        }
    }
}

fn print(Scraped { report, collector }: &Scraped, args: &ScrapeArgs) -> u8 {
    let text = |paint| match args.view.explain {
        true => explain::text(report, collector, args.view.relabel, paint),
        false => report.text(collector, args.view.relabel, paint),
    };
    let printed = match args.output {
        Output::Prom => std::io::stderr()
            .write_all(text(Paint::for_stderr()).as_bytes())
            .and_then(|()| collector.print_prom(report.failure.is_none())),
        Output::Json => {
            report.print_json(collector, args.view.explain.then(|| explain::json(report, collector, args.view.relabel)))
        }
        Output::Summary => std::io::stdout().write_all(text(Paint::for_stdout()).as_bytes()),
    };
    match printed {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe && report.failure.is_none() => {
            say!("meshscrape: cannot write: {error}");
            1
        }
        _ => report.exit_code(),
    }
}
