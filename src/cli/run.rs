//! `meshscrape run`: the agent, until it is asked to stop.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tracing::{error, info, warn};

use crate::clock::Clock;
use crate::telemetry::{LogFormat, LogLevel};
use crate::{agent, config, lifecycle, telemetry};

/// The agent's arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit codes: 0 stopped when asked (samples that could not be delivered in time are in the log and counted), \
1 cannot start, or ended at once, 2 command line or configuration.

Signals: SIGTERM or SIGINT stops scraping, delivers what is queued and ends; a second one ends at once.

Environment: NODE_NAME tells this agent from others, so that each scrapes at its own moments and keeps them over \
restarts; without it the host name does. It also names the node whose pods istio_sd_configs with scope: node scrapes. \
The configuration may name any variable as ${NAME}.")]
pub(super) struct RunArgs {
    /// The configuration, in Prometheus' format
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Where /-/healthy, /-/ready and /metrics are served; the address :: is every one of this host, IPv4 ones too
    #[arg(long, value_name = "ADDR", default_value = "[::]:9464", value_parser = address)]
    listen: SocketAddr,
    /// Where the API, /api/v1/targets and live scrapes of single targets, is served: a loopback address
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9465", value_parser = loopback)]
    api_listen: SocketAddr,
    /// Where data may be kept; this version keeps its queue in memory and writes nothing there
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// How long to go on delivering what is queued once asked to stop
    #[arg(long, value_name = "DURATION", default_value = "20s", value_parser = duration)]
    flush_deadline: Duration,
    /// The shape of log lines
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    log_format: LogFormat,
    /// The least important lines that are logged
    #[arg(long, value_name = "LEVEL", value_enum, default_value_t)]
    log_level: LogLevel,
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "an IP address with a port, such as 127.0.0.1:9465, is expected".to_owned())
}

/// The API shows what the mesh protects: it is served to this host only.
fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address = address(text)?;
    match address.ip().is_loopback() {
        true => Ok(address),
        false => Err("the API is served on a loopback address only; reach it by port-forward".to_owned()),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    config::parse_duration(text).ok_or_else(|| "a duration such as 500ms, 10s or 1m30s is expected".to_owned())
}

/// Runs the agent; returns the exit code.
pub(super) async fn run(args: RunArgs) -> u8 {
    telemetry::init(args.log_format, args.log_level);
    let loaded = config::load(&args.config, &|name| std::env::var(name).ok());
    for warning in &loaded.warnings {
        warn!("{warning}");
    }
    let config = match loaded.config {
        Ok(config) => config,
        Err(problems) => {
            for problem in &problems {
                error!("{problem}");
            }
            error!(problems = problems.len(), "{} cannot be used", args.config.display());
            return 2;
        }
    };
    if let Some(dir) = &args.data_dir {
        info!(dir = %dir.display(), "the queue is kept in memory; the data directory is not used yet");
    }
    let stop = match lifecycle::stop_on_signal() {
        Ok(stop) => stop,
        Err(error) => {
            error!(%error, "cannot listen for signals");
            return 1;
        }
    };
    let options = agent::Options {
        listen: args.listen,
        api_listen: Some(args.api_listen),
        clock: Clock::system(),
        flush_deadline: args.flush_deadline,
    };
    let agent = match agent::start(config, options).await {
        Ok(agent) => agent,
        Err(error) => {
            error!("{error}");
            return 1;
        }
    };
    info!(listen = %agent.listen_addr(), api = agent.api_addr().map(tracing::field::display), "running");
    stop.asked.cancelled().await;
    match stop.at_once.run_until_cancelled(agent.stop()).await {
        Some(stopped) if stopped.undelivered > 0 => {
            warn!(samples = stopped.undelivered, "stopped; samples were not delivered within the flush deadline");
            0
        }
        Some(_) => {
            info!("stopped; everything was delivered");
            0
        }
        None => 1,
    }
}
