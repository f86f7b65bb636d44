//! The command line: one file a command. It alone talks to a person; it prints, the rooms below return values.
//!
//! Data goes to standard output, everything else to standard error. Exit codes: 0 for success, 1 for "checked, and it is
//! not in order", 2 for a wrong command line or configuration, 3 for nobody who answers; `scrape` has a code for each
//! class of failure ([`crate::model::ExitClass`]).

/// A line on standard error. One that cannot be written is lost, as there is nowhere left to say so: `eprintln!` would panic.
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        _ = writeln!(std::io::stderr(), $($text)*);
    }};
}

mod agent_api;
mod audit;
mod certificates;
mod check_certs;
mod check_config;
mod cluster;
#[cfg(feature = "demo")]
mod demo;
mod exposure;
mod generated;
mod istio;
mod remedy;
mod run;
mod scrape;
mod style;
mod targets;
mod verify;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::clock::Clock;
use crate::model::ExitClass;

/// The scraper that checks who answered.
///
/// meshscrape reads the mTLS metric ports of an Istio mesh (15092 merged, 15091 Envoy only), completes a connection only
/// with the SPIFFE identity that the target must have, and forwards the samples by remote write. Its configuration file
/// is Prometheus' own.
#[derive(Debug, Parser)]
#[command(name = "meshscrape", version, arg_required_else_help = true, max_term_width = 110)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the agent
    Run(run::RunArgs),
    /// Check a configuration or a certificate directory
    #[command(subcommand)]
    Check(Check),
    /// List what is scraped, or would be, and why the rest is not
    Targets(targets::TargetsArgs),
    /// Scrape one target once, by its URL or as a pod, and say what is wrong with it
    Scrape(Box<scrape::ScrapeArgs>),
    /// Audit the pods of a mesh: is metrics exposure secured, and what to change where it is not
    Audit(audit::AuditArgs),
    /// Verify a pod step by step, as Istio's task on secure metrics does
    Verify(verify::VerifyArgs),
    /// Show a whole mesh in miniature: no cluster needed, nothing installed
    #[cfg(feature = "demo")]
    Demo(demo::DemoArgs),
    /// Print the script that completes this command line in a shell
    Completions(generated::CompletionsArgs),
    /// Print the manual page, or write one for each command
    Man(generated::ManArgs),
}

/// How what was checked is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum CheckOutput {
    /// For people
    #[default]
    Text,
    /// One JSON document
    Json,
}

#[derive(Debug, Subcommand)]
enum Check {
    /// Read configuration files and report every problem at once, each with its place; exit code 0 good, 1 not
    #[command(after_help = "\
Environment: variables that a file names as ${NAME} must be set, and for jobs with scope: node NODE_NAME; outside of a pod any \
name will do.

Examples:
  meshscrape check config prometheus.yaml
  NODE_NAME=any meshscrape check config --print meshscrape.yaml")]
    Config {
        /// The files
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Print what the files mean, with all defaults; secrets are not shown
        #[arg(long, conflicts_with = "output")]
        print: bool,
        /// What to print
        #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
        output: CheckOutput,
    },
    /// Read a certificate directory as the agent would, and judge it; exit code 0 good, 1 not
    #[command(after_help = "\
Examples:
  meshscrape check certs ./certs
  kubectl exec -n meshscrape ds/meshscrape -- meshscrape check certs")]
    Certs {
        /// The directory with cert-chain.pem, key.pem and root-cert.pem, or with tls.crt, tls.key and ca.crt [default: /etc/istio-certs or /var/run/secrets/spiffe.io, if one is there]
        #[arg(value_name = "DIR", env = "MESHSCRAPE_CERTS_DIR")]
        dir: Option<PathBuf>,
        /// What to print
        #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
        output: CheckOutput,
    },
}

/// Parses the command line, does what it says, and returns the exit code.
pub fn main() -> ExitCode {
    let command = Arguments::parse().command;
    let code = match command {
        Command::Check(Check::Config { files, output: CheckOutput::Json, .. }) => {
            written(check_config::json(&files, &mut std::io::stdout().lock()))
        }
        Command::Check(Check::Config { files, print, .. }) => {
            written(check_config::run(&files, print, &mut std::io::stdout().lock(), &mut std::io::stderr().lock()))
        }
        Command::Check(Check::Certs { dir, output }) => match certificates::dir(dir.as_deref()) {
            Some(dir) => written(check_certs::run(&dir, output, &mut std::io::stdout().lock(), &Clock::system())),
            None => {
                say!("meshscrape: say which directory: {}", certificates::NOWHERE);
                ExitClass::Usage.code()
            }
        },
        Command::Run(args) => with_runtime(run::run(args)),
        Command::Targets(args) => with_runtime(targets::run(args)),
        Command::Scrape(args) => with_runtime(scrape::run(*args)),
        Command::Audit(args) => with_runtime(audit::run(args)),
        Command::Verify(args) => with_runtime(verify::run(args)),
        #[cfg(feature = "demo")]
        Command::Demo(args) => with_runtime(demo::run(args)),
        Command::Completions(args) => written(generated::completions(&args).map(|()| 0)),
        Command::Man(args) => generated::man(&args),
    };
    ExitCode::from(code)
}

/// The exit code of a command that prints. Nobody reading any more (a closed pipe) needs no message, but what nobody
/// read is not confirmed either.
fn written(outcome: std::io::Result<u8>) -> u8 {
    outcome.unwrap_or_else(|error| {
        if error.kind() != std::io::ErrorKind::BrokenPipe {
            say!("meshscrape: cannot write: {error}");
        }
        1
    })
}

fn with_runtime(work: impl Future<Output = u8>) -> u8 {
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => {
            let code = runtime.block_on(work);
            // Not dropped: that would wait for a resolver that does not answer.
            runtime.shutdown_background();
            code
        }
        Err(error) => {
            say!("meshscrape: cannot start: {error}");
            1
        }
    }
}
