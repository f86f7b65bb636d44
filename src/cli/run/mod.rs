//! `meshscrape run`: the agent, until it is asked to stop.

mod watch;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum as _;
use tracing::{error, info, warn};

use crate::agent::{Agent, MeshListener};
use crate::clock::Clock;
use crate::config::{CertificateFiles, Loaded};
use crate::identity::IdentitySettings;
use crate::lifecycle::{Asked, Control};
use crate::model::{Peer, SpiffeId};
use crate::telemetry::{LogFormat, LogLevel};
use crate::{agent, config, lifecycle, telemetry};

/// The agent's arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit codes: 0 stopped when asked (samples that could not be delivered in time are on disk with --data-dir, else lost, \
and in the log), 1 cannot start, or ended at once, 2 command line or configuration.

Signals: SIGTERM or SIGINT stops scraping, delivers what is queued and ends; a second one ends at once. SIGHUP reads \
the configuration again: all of it is taken, or, if any of it cannot be used, nothing; then the reason is in the log, \
prometheus_config_last_reload_successful is 0, and the last good configuration stays in force.

Environment: NODE_NAME tells this agent from others, so that each scrapes at its own moments and keeps them over \
restarts; without it the host name does. It also names the node whose pods istio_sd_configs with scope: node scrapes. \
The configuration may name any variable as ${NAME}.

Examples:
  meshscrape run --config meshscrape.yaml
  meshscrape run --config meshscrape.yaml --data-dir /var/lib/meshscrape --watch-config")]
pub(super) struct RunArgs {
    /// The configuration, in Prometheus' format
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Where /-/healthy, /-/ready and /metrics are served; the address :: is every one of this host, IPv4 ones too
    #[arg(long, value_name = "ADDR", default_value = "[::]:9464", value_parser = address)]
    listen: SocketAddr,
    /// Where the status page, /, and the API, /api/v1/targets and live scrapes of single targets, are served: a loopback
    /// address
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9465", value_parser = loopback)]
    api_listen: SocketAddr,
    /// Where the API and /metrics are also served to workloads of the mesh, over mTLS and to those of --mesh-allow only
    #[arg(long, value_name = "ADDR", requires = "mesh_allow", value_parser = address)]
    mesh_listen: Option<SocketAddr>,
    /// A SPIFFE ID that may ask at --mesh-listen; may be given several times, all of one trust domain, whose roots are those of
    /// --mesh-certs-dir
    #[arg(long, value_name = "ID", requires = "mesh_listen", value_parser = spiffe_id)]
    mesh_allow: Vec<SpiffeId>,
    /// The certificates shown at --mesh-listen and the roots of those who ask: cert-chain.pem, key.pem, root-cert.pem. The
    /// agent is not ready before they are there
    #[arg(long, value_name = "DIR", requires = "mesh_listen", default_value = "/etc/istio-certs")]
    mesh_certs_dir: PathBuf,
    /// Let POST /-/reload and /-/quit at the API's address read the configuration again and end the agent, with the header
    /// X-Meshscrape: reload or quit
    #[arg(long)]
    enable_lifecycle: bool,
    /// Read the configuration again when its file, or a file of scrape_config_files, has changed
    #[arg(long)]
    watch_config: bool,
    /// Where queued samples are kept on disk, over restarts; without it in memory. No other process may use it
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// How long to go on delivering what is queued once asked to stop, and to a receiver that a reload has removed
    #[arg(long, value_name = "DURATION", default_value = "20s", value_parser = duration)]
    flush_deadline: Duration,
    /// The shape of log lines
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    log_format: LogFormat,
    /// The least important lines that are logged
    #[arg(long, value_name = "LEVEL", value_enum, default_value_t)]
    log_level: LogLevel,
}

impl RunArgs {
    /// The arguments with their values, for people.
    fn flags(&self) -> Vec<(String, String)> {
        let path = |path: &Path| path.display().to_string();
        let name = |value: Option<clap::builder::PossibleValue>| value.map(|value| value.get_name().to_owned());
        [
            ("config", path(&self.config)),
            ("listen", self.listen.to_string()),
            ("api-listen", self.api_listen.to_string()),
            ("mesh-listen", self.mesh_listen.map(|address| address.to_string()).unwrap_or_default()),
            ("mesh-allow", self.mesh_allow.iter().map(SpiffeId::as_str).collect::<Vec<_>>().join(",")),
            ("mesh-certs-dir", path(&self.mesh_certs_dir)),
            ("enable-lifecycle", self.enable_lifecycle.to_string()),
            ("watch-config", self.watch_config.to_string()),
            ("data-dir", self.data_dir.as_deref().map(path).unwrap_or_default()),
            ("flush-deadline", config::format_duration(self.flush_deadline)),
            ("log-format", name(self.log_format.to_possible_value()).unwrap_or_default()),
            ("log-level", name(self.log_level.to_possible_value()).unwrap_or_default()),
        ]
        .map(|(flag, value)| (flag.to_owned(), value))
        .to_vec()
    }

    /// The listener for workloads of the mesh. Our own certificate may be of any kind; the roots are those of the trust domain
    /// that may ask. The error is a sentence.
    fn mesh(&self) -> Result<Option<MeshListener>, String> {
        let (Some(listen), Some(allowed)) = (self.mesh_listen, Peer::any_of(self.mesh_allow.clone())) else {
            return Ok(None);
        };
        let domain = allowed.expected().trust_domain().clone();
        if let Some(other) = self.mesh_allow.iter().find(|id| *id.trust_domain() != domain) {
            return Err(format!(
                "--mesh-allow {other} is of another trust domain than {}: one set of roots vouches for one of them; leave \
                 out the others",
                allowed.expected()
            ));
        }
        let files = CertificateFiles::in_dir(&self.mesh_certs_dir);
        let identity = IdentitySettings { files, trust_domain: Some(domain), aliases: Vec::new() };
        Ok(Some(MeshListener { listen, identity, allowed }))
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "an IP address with a port, such as 127.0.0.1:9465, is expected".to_owned())
}

fn spiffe_id(text: &str) -> Result<SpiffeId, String> {
    SpiffeId::parse(text).map_err(|error| error.to_string())
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

/// Reads the configuration.
fn load(file: &Path) -> Loaded {
    config::load(file, &|name| std::env::var(name).ok())
}

/// Runs the agent; returns the exit code.
pub(super) async fn run(args: RunArgs) -> u8 {
    telemetry::init(args.log_format, args.log_level);
    let mesh = match args.mesh() {
        Ok(mesh) => mesh,
        Err(why) => {
            error!("{why}");
            return 2;
        }
    };
    let loaded = load(&args.config);
    for warning in &loaded.warnings {
        warn!("{warning}");
    }
    let config = match &loaded.config {
        Ok(config) => config.clone(),
        Err(problems) => {
            for problem in problems {
                error!("{problem}");
            }
            let Some(config) = &loaded.without_unreachable else {
                error!(problems = problems.len(), "{} cannot be used", args.config.display());
                return 2;
            };
            error!(receivers = problems.len(), "these receivers get nothing; the agent runs without them");
            config.clone()
        }
    };
    let (reload, mut asked) = lifecycle::reload();
    let stop = match lifecycle::stop_on_signal().and_then(|stop| {
        lifecycle::reload_on_signal(reload.clone())?;
        Ok(stop)
    }) {
        Ok(stop) => stop,
        Err(error) => {
            error!(%error, "cannot listen for signals");
            return 1;
        }
    };
    let options = agent::Options {
        listen: args.listen,
        api_listen: Some(args.api_listen),
        mesh,
        clock: Clock::system(),
        flush_deadline: args.flush_deadline,
        data_dir: args.data_dir.clone(),
        control: args.enable_lifecycle.then(|| Control { reload: reload.clone(), stop: stop.asked.clone() }),
        flags: args.flags(),
    };
    let mut agent = match agent::start(config, options).await {
        Ok(agent) => agent,
        Err(error) => {
            error!("{error}");
            return 1;
        }
    };
    let (api, mesh) = (agent.api_addr().map(tracing::field::display), agent.mesh_addr().map(tracing::field::display));
    info!(listen = %agent.listen_addr(), api, mesh, "running");
    if args.watch_config {
        tokio::spawn(watch::follow(args.config.clone(), loaded, reload));
    }
    // A reload under way does not hold back the end.
    let _ = stop.asked.run_until_cancelled(reload_when_asked(&mut agent, &mut asked, &args.config)).await;
    drop(asked);
    match stop.at_once.run_until_cancelled(agent.stop()).await {
        Some(stopped) if stopped.undelivered > 0 => {
            warn!(
                lost = stopped.undelivered,
                on_disk = stopped.kept,
                "stopped; samples were not delivered within the flush deadline, and are lost"
            );
            0
        }
        Some(stopped) if stopped.kept > 0 => {
            info!(
                on_disk = stopped.kept,
                "stopped; samples that were not delivered within the flush deadline are on disk for the next start"
            );
            0
        }
        Some(_) => {
            info!("stopped; everything was delivered");
            0
        }
        None => 1,
    }
}

/// Reads the configuration again whenever somebody asks.
async fn reload_when_asked(agent: &mut Agent, asked: &mut Asked, file: &Path) -> Infallible {
    loop {
        let waiting = asked.next().await;
        let file = file.to_owned();
        // The file system may hang, and the runtime's threads must not hang with it.
        let outcome = match tokio::task::spawn_blocking(move || load(&file)).await {
            Ok(loaded) => agent.reload(loaded).await.map_err(|error| error.to_string()),
            Err(error) => {
                error!(%error, "BUG: reading the configuration ended abnormally");
                Err(error.to_string())
            }
        };
        waiting.answer(&outcome);
    }
}
