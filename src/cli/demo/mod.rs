//! `meshscrape demo`: a mesh in miniature in one process, nothing installed, and the real agent in the middle of it.
//!
//! ```text
//!  ca ─▶ certs (OUTPUT_CERTS directories on disk, rotating) ─▶ sidecar × 6 ─▶ AGENT ─▶ receiver
//!                                                    └────────────────────────▶ │
//!                                            scene ◀─ api ◀── /api/v1/targets ──┘
//!                                       verdict, view ◀─ scene
//! ```
//!
//! The agent is started as `run` starts it, from a configuration file, and nobody here looks inside: what is shown comes
//! out of its HTTP API and out of the bytes that reach the receiver. Two of the six workloads must be refused, an
//! impostor with a valid certificate of somebody else and a server without TLS; what they send carries a marker, and
//! the demo fails if that ever arrives. No file of it survives the run.

mod api;
mod ca;
mod certs;
mod configuration;
mod exposition;
mod mesh;
mod play;
mod receiver;
mod scene;
mod sidecar;
#[cfg(test)]
mod tests;
mod verdict;
mod view;

use std::error::Error;
use std::io;
use std::time::Duration;

use thiserror::Error;
use url::Url;

use crate::agent::AgentError;
use crate::config;

/// Shorter than this the roots cannot change step by step while the agent scrapes.
const SHORTEST: Duration = Duration::from_secs(6);

/// The demo's arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  meshscrape demo
  meshscrape demo --for 1m --remote-write http://127.0.0.1:9090/api/v1/write
  meshscrape demo --output json")]
pub(super) struct DemoArgs {
    /// How long the mesh lives
    #[arg(long = "for", value_name = "DURATION", default_value = "20s", value_parser = length)]
    length: Duration,
    /// Send to this receiver instead of the built-in one, for example to a Prometheus with
    /// --web.enable-remote-write-receiver
    #[arg(long, value_name = "URL")]
    remote_write: Option<Url>,
    /// What is printed: a live table and a summary, or one JSON document at the end
    #[arg(long, value_enum, default_value_t)]
    output: Output,
    /// No colour, also on a terminal
    #[arg(long)]
    no_color: bool,
}

/// What is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

/// Why the demo could not be played to its end.
#[derive(Debug, Error)]
pub(super) enum DemoError {
    /// A second signal.
    #[error("ended at once, before everything was delivered")]
    Interrupted,
    /// The certificate directories or the configuration file cannot be written.
    #[error("cannot write the demo's files")]
    Files(#[source] io::Error),
    /// The authority cannot issue.
    #[error("cannot issue a certificate")]
    Issue(#[from] rcgen::Error),
    /// A workload cannot listen, or cannot read its certificates.
    #[error("cannot start a workload")]
    Sidecar(#[source] io::Error),
    /// The built-in receiver cannot listen.
    #[error("cannot start the receiver")]
    Receiver(#[source] io::Error),
    /// The agent finds fault with the configuration that the demo wrote.
    #[error("the agent does not take the demo's configuration: {0}")]
    Config(String),
    /// The agent does not start.
    #[error("cannot start the agent")]
    Agent(#[from] AgentError),
    /// The agent does not answer about itself.
    #[error("the agent's API does not answer")]
    Api(#[source] io::Error),
    /// The signals of the process cannot be caught.
    #[error("cannot listen for signals")]
    Signals(#[source] io::Error),
    /// Nothing can be printed.
    #[error("cannot write the output")]
    Output(#[source] io::Error),
}

/// Plays the demo; returns the exit code: 0 if every promise was kept.
pub(super) async fn run(args: DemoArgs) -> u8 {
    match play::play(&args).await {
        Ok(outcome) => u8::from(!outcome.passed),
        // Whoever closed the pipe has seen enough.
        Err(DemoError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => 1,
        Err(error) => {
            let mut chain = error.to_string();
            let mut cause = error.source();
            while let Some(error) = cause {
                chain.push_str(&format!(": {error}"));
                cause = error.source();
            }
            say!("meshscrape: {chain}");
            1
        }
    }
}

fn length(text: &str) -> Result<Duration, String> {
    let length = config::parse_duration(text).ok_or("a duration such as 20s or 2m is expected")?;
    if length < SHORTEST {
        return Err("at least 6s are needed, or no root can change while the agent scrapes".to_owned());
    }
    Ok(length)
}
