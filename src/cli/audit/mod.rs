//! `meshscrape audit`: is metrics exposure secured, for every pod of the mesh?
//!
//! The API server is asked for pods, in chunks, and for nothing else; then the ports of each pod are, a bounded number of
//! connections at a time and in a second. What is known goes through one pure judgement ([`judge()`]); the result goes to
//! standard output as a table, JSON or SARIF, and what happens meanwhile to standard error.

mod judge;
mod report;
mod rule;
mod sarif;
mod table;

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use self::judge::{Asked, judge};
use self::report::Audit;
use self::rule::Severity;
use super::cluster::{Cluster, ClusterError};
use super::exposure::{Asker, Facts, Limits, MeshArgs, Reach, Sighting};
use super::scrape::{Stop, checked, parse_duration};
use super::style::{Paint, terminal_size};
use crate::clock::Clock;
use crate::model::ExitClass;
use crate::telemetry::{self, LogFormat, LogLevel};

/// What is said where there is nothing to audit.
const EMPTY: &str =
    "look at the namespace's name (-n) and at kubectl get pods; if it is as it should be, give --allow-empty";

/// The arguments of an audit.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit codes: 0 nothing at or above --fail-on (what was not asked or not seen, MS018, is a note), 1 findings at or above it, 2 usage, certificates or kubeconfig, 3 the API server does \
not answer or does not let us list pods, no pod of the mesh is there (--allow-empty), or the time limit was over before every pod \
was asked.

Findings have IDs that never change their meaning (MS001 secure-ports-off, ...), a severity (error, warning, note), and a fix; \
docs/audit.md lists them. SARIF has them as rules.

Pods are asked from where the command runs, so it belongs into the mesh, where certificates are: in an agent's pod it needs no \
right that the agent does not have. Its NetworkPolicy keeps it from the plaintext ports 15020 and 15090, though, which are then \
reported as not seen (MS018), and given up after the first pods: docs/audit.md has from where to see them. Only ports 15020, 15090, 15091, 15092 (and those of --port) of pods' own addresses are connected, and nothing \
of a body is looked at. From a workstation, --no-connect tells what the API server says.

Examples:
  kubectl exec -n meshscrape ds/meshscrape -- meshscrape audit --all
  meshscrape audit -n shop --no-connect
  meshscrape audit --all --output sarif --fail-on error > audit.sarif")]
pub(super) struct AuditArgs {
    /// The pods of this namespace [default: that of the kubeconfig's context]
    #[arg(short, long, value_name = "NAMESPACE", conflicts_with = "all")]
    namespace: Option<String>,
    /// The pods of all namespaces
    #[arg(long)]
    all: bool,
    /// Ask no pod: only what the API server says
    #[arg(long)]
    no_connect: bool,
    /// It is no error if no pod of the mesh is there
    #[arg(long)]
    allow_empty: bool,
    /// The least severity that makes the exit code 1
    #[arg(long, value_name = "SEVERITY", value_enum, default_value = "warning")]
    fail_on: Severity,
    /// What to print
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    mesh: MeshArgs,
    /// How many connections begin in a second, at most
    #[arg(long, value_name = "NUMBER", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rate: u32,
    /// How many pods are asked at once
    #[arg(long, value_name = "NUMBER", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=256))]
    parallel: u32,
    /// How long each connection may take, such as 500ms or 3s
    #[arg(long, value_name = "DURATION", default_value = "3s", value_parser = parse_duration)]
    timeout: Duration,
    /// How long all connections may take
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = parse_duration)]
    time_limit: Duration,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// For people
    #[default]
    Table,
    /// One JSON document, its fields as docs/audit.md has them
    Json,
    /// SARIF 2.1.0
    Sarif,
}

/// Audits once; returns the exit code.
pub(super) async fn run(args: AuditArgs) -> u8 {
    telemetry::init(LogFormat::Text, LogLevel::Warn);
    match audit(&args).await {
        Ok(audit) => {
            let code = super::written(print(&audit, args.output).map(|()| exit_code(&audit, args.fail_on)));
            if let Some(why) = &audit.in_vain {
                let stop = Stop::NoTarget { why: why.clone(), hint: Some(EMPTY.to_owned()) };
                say!("{}", stop.text(Paint::for_stderr()));
            }
            code
        }
        Err(stop) => {
            say!("{}", stop.text(Paint::for_stderr()));
            stop.exit_code()
        }
    }
}

fn exit_code(audit: &Audit, fail_on: Severity) -> u8 {
    match audit.worst() {
        Some(worst) if worst >= fail_on => 1,
        _ if !audit.complete || audit.in_vain.is_some() => ExitClass::Connect.code(),
        _ => 0,
    }
}

async fn audit(args: &AuditArgs) -> Result<Audit, Stop> {
    let asker = match args.no_connect {
        true => None,
        false => {
            let limits = Limits { timeout: args.timeout, pause: Duration::from_secs(1) / args.rate };
            Some(args.mesh.asker(limits, ", or give --no-connect").await?)
        }
    };
    let cluster = args.mesh.cluster().await?;
    let namespace = match args.all {
        true => None,
        false => Some(checked(args.namespace.as_deref().unwrap_or(cluster.default_namespace()))?),
    };
    let domain = asker.as_ref().map(|(asker, _)| asker.trust_domain().to_string());
    let mut audit = Audit::new(asker.is_some(), domain);
    let facts = listed(&cluster, namespace, &args.mesh.reach(), &mut audit).await?;
    if facts.is_empty() && !args.allow_empty {
        audit.in_vain = Some(in_vain(namespace, audit.summary.listed));
    }
    let now = Clock::system().now();
    match asker {
        None => facts.iter().for_each(|facts| audit.add(facts, false, judge(facts, Asked::Unwanted, now))),
        Some((asker, _following)) => ask_all(args, asker, facts, &mut audit).await,
    }
    audit.sort();
    Ok(audit)
}

/// What is said of a place without a pod of the mesh; a namespace that does not exist looks the same as one that is empty.
fn in_vain(namespace: Option<&str>, listed: usize) -> String {
    match (namespace, listed) {
        (Some(namespace), 0) => format!("namespace {namespace} has no pods, or does not exist"),
        (Some(namespace), _) => format!("namespace {namespace} has no pod of the mesh that runs"),
        (None, _) => "the cluster has no pod of the mesh that runs".to_owned(),
    }
}

/// The pods of the mesh; of the others only how many they are.
async fn listed(
    cluster: &Cluster,
    namespace: Option<&str>,
    reach: &Reach,
    audit: &mut Audit,
) -> Result<Vec<Arc<Facts>>, ClusterError> {
    let mut meshed = Vec::new();
    let summary = &mut audit.summary;
    cluster
        .each_pod(namespace, |pod| {
            summary.listed += 1;
            match Sighting::of(&pod, reach) {
                Sighting::Meshed(facts) => meshed.push(Arc::from(facts)),
                Sighting::Foreign => summary.foreign += 1,
                Sighting::Finished => summary.finished += 1,
                Sighting::Leaving => summary.leaving += 1,
            }
        })
        .await?;
    Ok(meshed)
}

/// Asks the ports of all pods, some pods at a time, until all are done or the time is over.
async fn ask_all(args: &AuditArgs, asker: Asker, pods: Vec<Arc<Facts>>, audit: &mut Audit) {
    let end = Instant::now() + args.time_limit;
    let mut progress = Progress::of(pods.len());
    let mut asking = JoinSet::new();
    let mut waiting = pods.into_iter();
    loop {
        while asking.len() < args.parallel as usize
            && let Some(facts) = waiting.next()
        {
            let asker = asker.clone();
            asking.spawn(async move {
                // Whose turn comes too late is not even dialled.
                let seen = match Instant::now() < end {
                    true => timeout_at(end, asker.look(&facts)).await.ok(),
                    false => None,
                };
                (facts, seen)
            });
        }
        let Some(asked) = asking.join_next().await else { break };
        let (facts, seen) = asked.expect("nothing in there panics");
        let asked = match &seen {
            Some(Some(seen)) => Asked::All(seen),
            Some(None) => Asked::Unwanted,
            None => {
                audit.complete = false;
                Asked::TooLate
            }
        };
        audit.add(&facts, matches!(asked, Asked::All(_)), judge(&facts, asked, Clock::system().now()));
        progress.step();
    }
    progress.end();
    audit.given_up = asker.given_up();
}

fn print(audit: &Audit, output: Output) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    match output {
        Output::Table => {
            let width = terminal_size().map(|(columns, _)| columns);
            return out.write_all(table::text(audit, width, Paint::for_stdout()).as_bytes());
        }
        Output::Json => serde_json::to_writer_pretty(&mut out, audit)?,
        Output::Sarif => serde_json::to_writer_pretty(&mut out, &sarif::document(audit))?,
    }
    out.write_all(b"\n")
}

/// How far it is, on the terminal of standard error and nowhere else.
struct Progress {
    done: usize,
    all: usize,
    shown: bool,
}

impl Progress {
    fn of(all: usize) -> Self {
        Self { done: 0, all, shown: std::io::stderr().is_terminal() }
    }

    fn step(&mut self) {
        self.done += 1;
        if self.shown {
            _ = write!(std::io::stderr(), "\r{} of {} pods", self.done, self.all);
        }
    }

    /// Leaves the line as it was.
    fn end(&self) {
        if self.shown {
            _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}
