//! `meshscrape targets`: what is scraped, or would be, and why the rest is not.
//!
//! A running agent is asked, or the discovery of a configuration is run once without scraping anything. Both come to the
//! same listing; it goes to standard output as a table or as JSON, and what happens meanwhile to standard error.

mod found;
mod listing;
mod table;

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use self::listing::{Listing, State};
use super::agent_api::{AgentApi, DEFAULT_URL};
use super::style::{Paint, terminal_size};
use crate::config;
use crate::model::ExitClass;
use crate::telemetry::{self, LogFormat, LogLevel};

/// The arguments of a listing.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit codes: 0 all is well, 1 a target is down, may not be connected, or is malformed, or a source of targets cannot be used, or the agent is in other trouble, \
2 usage or configuration, 3 no agent or not every source answers in time.

Without --state: active targets, malformed ones, how many each relabel rule drops, and how many pods can be no targets yet, \
because they have no address. The JSON document has waitingPods (pod, why) and waitingPodsOmitted, and for each job \
its targets (id, url, health, reason, detail, hint, expectedIdentity, instance, namespace, pod, labels, discoveredLabels) and \
its droppedTargets (address, byRule, rule, error, namespace, pod, discoveredLabels), counts, and the problems of sources or agent. Rules \
are counted from 1, as `check config --print` shows them.

Examples:
  meshscrape targets
  meshscrape targets --job istio-secure-merged-metrics --state dropped
  meshscrape targets --config meshscrape.yaml --output json
  kubectl exec -n meshscrape ds/meshscrape -- meshscrape targets")]
pub(super) struct TargetsArgs {
    /// The API of a running agent, on a loopback address [default: http://127.0.0.1:9465]
    #[arg(long, value_name = "URL", conflicts_with = "config")]
    url: Option<String>,
    /// Discover what this configuration finds, and scrape nothing
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Only this job
    #[arg(long, value_name = "NAME")]
    job: Option<String>,
    /// Which targets are listed one by one
    #[arg(long, value_name = "STATE", value_enum)]
    state: Option<State>,
    /// Show the labels of each target before and after relabelling
    #[arg(long)]
    labels: bool,
    /// What to print
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    output: Output,
    /// How long the agent, or the sources of targets, may take
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = patience)]
    timeout: Duration,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// For people
    #[default]
    Table,
    /// One JSON document
    Json,
}

fn patience(text: &str) -> Result<Duration, String> {
    match config::parse_duration(text) {
        Some(duration) if !duration.is_zero() => Ok(duration),
        _ => Err("a duration such as 500ms, 10s or 1m30s is expected".to_owned()),
    }
}

/// Lists once; returns the exit code.
pub(super) async fn run(args: TargetsArgs) -> u8 {
    telemetry::init(LogFormat::Text, LogLevel::Warn);
    let paint = Paint::for_stderr();
    let listing = match &args.config {
        Some(file) => found::in_configuration(file, args.timeout).await,
        None => of_agent(args.url.as_deref().unwrap_or(DEFAULT_URL), args.timeout).await,
    };
    let mut listing = match listing {
        Ok(listing) => listing,
        Err((code, why)) => {
            say!("{} {why}", paint.bad("meshscrape:"));
            return code;
        }
    };
    if let Some(job) = &args.job
        && let Err(why) = listing.keep_job(job)
    {
        say!("{} {why}", paint.bad("meshscrape:"));
        return ExitClass::Usage.code();
    }
    let code = listing.exit_code();
    listing.choose(args.state);
    let printed = match args.output {
        Output::Table => {
            let width = terminal_size().map(|(columns, _)| columns);
            let text = table::text(&listing, args.labels, width, Paint::for_stdout());
            std::io::stdout().lock().write_all(text.as_bytes())
        }
        Output::Json => print_json(&listing),
    };
    super::written(printed.map(|()| code))
}

async fn of_agent(url: &str, patience: Duration) -> Result<Listing, (u8, String)> {
    let agent = AgentApi::at(url).map_err(|why| (ExitClass::Usage.code(), why))?;
    let targets = agent.targets(patience).await.map_err(|error| {
        let next = "is an agent running here? From elsewhere, forward the port of the agent's pod, `kubectl port-forward -n \
                    NAMESPACE AGENT_POD 9465`, and ask again while that runs";
        (ExitClass::Connect.code(), format!("{error}; {next}"))
    })?;
    Ok(Listing::of(targets))
}

fn print_json(listing: &Listing) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, listing)?;
    out.write_all(b"\n")
}
