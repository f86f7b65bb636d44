//! `meshscrape verify pod/NAME`: what Istio's task on secure metrics verifies by hand, in one table.
//!
//! Everything is asked once ([`gather`]), judged by a pure function ([`judge`]) and shown. What could not be asked is never
//! called good. Two questions are asked to be refused, plain HTTP on a secure port and TLS without a certificate of ours;
//! the second verifies the peer as every other connection does.

mod gather;
mod judge;
mod table;

use std::io::Write;
use std::time::Duration;

use serde::Serialize;

use self::judge::{Outcome, Step};
use super::exposure::{Facts, Limits, MeshArgs, Role, Sighting, Whereabouts};
use super::scrape::{NO_TARGET, Stop, checked, parse_duration};
use super::style::{Paint, terminal_size};
use crate::model::clean;
use crate::telemetry::{self, LogFormat, LogLevel};

/// The version of the JSON document: it grows when a field goes or changes its meaning, not when one is added.
const VERSION: u32 = 1;

/// The arguments of a verification.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit codes: 0 nothing failed, 1 a check failed, 2 usage, certificates or kubeconfig, 3 the API server does not answer or does not \
let us get the pod, 8 the pod cannot be verified: it is not there, does not run, is no part of the mesh, or no secure port of it \
could be asked.

The pod is asked from where the command runs, so it belongs into the mesh, where certificates are. From an agent's pod 15020 and 15090 \
are out of reach by its NetworkPolicy: they are asked, and what does not answer counts as not asked. The agent that scrapes the pod \
is asked whether its target is up; without --agent, one that runs here.

Examples:
  kubectl exec -n meshscrape ds/meshscrape -- meshscrape verify pod/cart-5d7c9 -n shop
  meshscrape verify pod/cart-5d7c9 -n shop --certs-dir ./certs --output json")]
pub(super) struct VerifyArgs {
    /// The pod
    #[arg(value_name = "pod/NAME")]
    pod: String,
    /// Its namespace [default: that of the kubeconfig's context]
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,
    #[command(flatten)]
    mesh: MeshArgs,
    /// The API of the agent that scrapes the pod, on a loopback address [default: http://127.0.0.1:9465, if an agent runs there]
    #[arg(long, value_name = "URL")]
    agent: Option<String>,
    /// How long each connection may take, such as 500ms or 5s
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = parse_duration)]
    timeout: Duration,
    /// What to print
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    output: Output,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// For people
    #[default]
    Table,
    /// One JSON document, its fields as docs/audit.md has them
    Json,
}

/// A pod that was verified.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Verified {
    version: u32,
    namespace: String,
    name: String,
    address: String,
    expected_identity: String,
    /// Nothing failed, and a secure port answered over mTLS.
    ok: bool,
    steps: Vec<Step>,
    #[serde(skip)]
    outcome: Outcome,
}

/// Verifies once; returns the exit code.
pub(super) async fn run(args: VerifyArgs) -> u8 {
    telemetry::init(LogFormat::Text, LogLevel::Warn);
    match verify(&args).await {
        Ok(verified) => super::written(print(&verified, args.output).map(|()| match verified.outcome {
            Outcome::Verified => 0,
            Outcome::Failed => 1,
            Outcome::Unproven => NO_TARGET,
        })),
        Err(stop) => {
            say!("{}", stop.text(Paint::for_stderr()));
            stop.exit_code()
        }
    }
}

async fn verify(args: &VerifyArgs) -> Result<Verified, Stop> {
    let name = args.pod.strip_prefix("pod/").ok_or_else(|| Stop::Usage("write pod/NAME".to_owned()))?;
    let limits = Limits { timeout: args.timeout, pause: Duration::ZERO };
    let (asker, _following) = args.mesh.asker(limits, "").await?;
    let cluster = args.mesh.cluster().await?;
    let namespace = checked(args.namespace.as_deref().unwrap_or(cluster.default_namespace()))?;
    let pod = cluster.pod(namespace, checked(name)?).await?;
    let facts = meshed(Sighting::of(&pod, &args.mesh.reach()), namespace, name)?;
    let Whereabouts::At(ip) = facts.whereabouts else {
        let why = match &facts.misplaced {
            Some(why) => format!("is not asked: {why} (--pod-cidr)"),
            None => "has no address of its own: it does not run yet, or is on that of its node".to_owned(),
        };
        return Err(no_target(namespace, name, &why));
    };
    let expected = asker.expected(&facts).map_err(|failure| Stop::Usage(failure.to_string()))?;
    let evidence = gather::gather(&asker, &facts, ip, args.agent.as_deref()).await?;
    let steps = judge::judge(&facts, &expected, &evidence);
    let outcome = Outcome::of(&steps);
    Ok(Verified {
        version: VERSION,
        namespace: clean(&facts.namespace).into_owned(),
        name: clean(&facts.name).into_owned(),
        address: ip.to_string(),
        expected_identity: expected.expected().to_string(),
        ok: outcome == Outcome::Verified,
        steps,
        outcome,
    })
}

fn meshed(sighting: Sighting, namespace: &str, name: &str) -> Result<Facts, Stop> {
    let why = match sighting {
        Sighting::Meshed(facts) => match facts.role {
            Role::Sidecar | Role::Gateway | Role::Waypoint => return Ok(*facts),
            Role::Ztunnel => "is a ztunnel: it has no secure metrics port",
            Role::Ambient => "is in ambient mode: it has no proxy, so no secure metrics port",
        },
        Sighting::Foreign => "has no proxy: it is no part of the mesh",
        Sighting::Finished => "has ended: its address may belong to another pod already",
        Sighting::Leaving => "is being deleted",
    };
    Err(no_target(namespace, name, why))
}

fn no_target(namespace: &str, name: &str, why: &str) -> Stop {
    Stop::NoTarget { why: format!("pod {namespace}/{name} {why}"), hint: None }
}

fn print(verified: &Verified, output: Output) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    match output {
        Output::Table => {
            let width = terminal_size().map(|(columns, _)| columns);
            out.write_all(table::text(verified, width, Paint::for_stdout()).as_bytes())
        }
        Output::Json => {
            serde_json::to_writer_pretty(&mut out, verified)?;
            out.write_all(b"\n")
        }
    }
}
