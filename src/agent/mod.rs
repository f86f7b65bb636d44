//! The composition root: from a configuration to a running agent. It knows every room and decides nothing about data.
//!
//! Rooms are started from the far end (sending first, scraping last), so that nothing is produced before there is a place
//! for it, and stopped from the near end: discovery and scraping are cancelled, then the closed channels let the pipe run
//! dry, and the listeners go last. Another configuration is taken while they run ([`Agent::reload`]).

mod counted;
mod identities;
mod receivers;
mod reload;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::counted::Counted;
use self::identities::Identities;
use self::receivers::Receivers;
use self::reload::Reloads;
use crate::clock::Clock;
use crate::config::Config;
use crate::lifecycle;
use crate::model::Peer;
use crate::scrape::Setup;
use crate::series::Catalogue;
use crate::spool::Spool;
use crate::status::{Audience, Door, Readiness, Sources};
use crate::{discover, identity, scrape, send, series, spool, status};

pub use reload::ReloadError;

/// Blocks that may wait between the targets' tasks and the spool, which takes them without waiting for anybody.
const BLOCKS_IN_TRANSIT: usize = 256;

/// How an agent runs, besides its configuration.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where probes and `/metrics` are served; port 0 takes any.
    pub listen: SocketAddr,
    /// Where the API and the page are served; `None` for nowhere.
    pub api_listen: Option<SocketAddr>,
    /// Where the API and `/metrics` are served to workloads of the mesh, and to which; `None` for nowhere.
    pub mesh: Option<MeshListener>,
    /// Wall time.
    pub clock: Clock,
    /// How long delivery may go on once the agent is asked to stop, and to a receiver that another configuration lacks.
    pub flush_deadline: Duration,
    /// Where queues are kept on disk; `None` for in memory only.
    pub data_dir: Option<PathBuf>,
    /// Whom the API asks to read the configuration again or to stop; `None` where nobody may ask so.
    pub control: Option<lifecycle::Control>,
    /// The arguments of the command line, for people.
    pub flags: Vec<(String, String)>,
}

/// A listener for workloads of the mesh.
#[derive(Clone, Debug)]
pub struct MeshListener {
    /// Where; port 0 takes any.
    pub listen: SocketAddr,
    /// Our certificate, and the roots that clients must chain to.
    pub identity: identity::IdentitySettings,
    /// Who may come.
    pub allowed: Peer,
}

/// Why an agent cannot start.
#[derive(Debug, Error)]
pub enum AgentError {
    /// A listener cannot be opened.
    #[error("cannot listen on {address} ({source}); choose another address with {flag}")]
    Listen {
        /// The address that was asked for.
        address: SocketAddr,
        /// The argument that names it.
        flag: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// The data directory is another process'.
    #[error(transparent)]
    DataDir(#[from] spool::HomeError),
    /// A receiver's client cannot be made.
    #[error(transparent)]
    Send(#[from] send::SendError),
}

/// A running agent.
pub struct Agent {
    listen: SocketAddr,
    api: Option<SocketAddr>,
    mesh: Option<SocketAddr>,
    clock: Clock,
    /// What scraping was told last.
    setup: Setup,
    identities: Identities,
    discovery: discover::Discovery,
    scrape: scrape::Handle,
    receivers: Receivers,
    reloads: Reloads,
    stop_scraping: CancellationToken,
    scraping: JoinHandle<()>,
    spooling: JoinHandle<()>,
    /// Cancelled when time to deliver is up.
    give_up: CancellationToken,
    flush_deadline: Duration,
    stop_serving: CancellationToken,
    serving: Vec<JoinHandle<()>>,
}

/// What is left when an agent has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// Samples that no receiver acknowledged before the flush deadline, and that are lost.
    pub undelivered: u64,
    /// Samples that no receiver has acknowledged yet, and that are on disk for the next start.
    pub kept: u64,
}

/// Binds the listeners and starts every room.
///
/// # Errors
/// Only what makes running pointless: a listener that cannot be opened, a data directory that another process uses, a
/// receiver that no client can be made for. A data directory that cannot be used for other reasons, missing certificates and unreachable receivers are waited for.
pub async fn start(config: Config, options: Options) -> Result<Agent, AgentError> {
    let listener = bind(options.listen, "--listen").await?;
    let api_listener = match options.api_listen {
        Some(address) => Some(bind(address, "--api-listen").await?),
        None => None,
    };
    let mesh_listener = match &options.mesh {
        Some(mesh) => Some(bind(mesh.listen, "--mesh-listen").await?),
        None => None,
    };
    let mut registry = Registry::default();
    register_build_info(&mut registry);
    status::register_process_metrics(&mut registry, &options.clock);
    let (stop_scraping, stop_serving, give_up) = <(CancellationToken, CancellationToken, CancellationToken)>::default();
    let clock = options.clock;
    let identities = Identities::new(clock.clone(), stop_serving.clone());
    let refused = status::Refused::new(&mut registry);
    let door = options.mesh.as_ref().map(|mesh| {
        let credentials = identities.pin(mesh.identity.clone());
        Door::new(credentials, mesh.allowed.clone(), clock.clone(), refused)
    });
    let known = identities.clone();
    identity::register_metrics(&mut registry, move || known.snapshots());

    let (blocks, incoming) = mpsc::channel(BLOCKS_IN_TRANSIT);
    let spool_metrics = spool::Metrics::new(&mut registry);
    let spool = match &options.data_dir {
        Some(dir) => Spool::at(spool::Home::take(dir)?, clock.clone(), spool_metrics.clone()),
        None => Spool::new(spool_metrics.clone()),
    };
    let catalogue = Catalogue::default();
    let families = catalogue.clone();
    let mut receivers = Receivers::new(
        spool.clone(),
        Counted::new(send::Metrics::new(&mut registry), series::Metrics::new(&mut registry), spool_metrics),
        clock.clone(),
        identities.clone(),
        give_up.clone(),
        options.flush_deadline,
        Arc::new(move || families.list()),
    );
    receivers.follow(receivers.plan(&config.remote_write)?);
    let spooling = tokio::spawn(spool.run(incoming));

    let setup = reload::setup(&config, &receivers, &identities, &clock, None);
    let discovery = discover::spawn(
        reload::wanted(&setup),
        stop_scraping.clone(),
        clock.clone(),
        discover::Metrics::new(&mut registry),
    );
    let context = scrape::Context {
        blocks,
        clock: clock.clone(),
        host: host_name(),
        metrics: scrape::Metrics::new(&mut registry),
        catalogue,
    };
    let (scrape, scraping) = scrape::spawn(context, setup.clone(), discovery.targets(), stop_scraping.clone());
    scrape.register_metrics(&mut registry);

    let reloads = Reloads::new(&mut registry, &clock, &config);
    let process =
        status::Process { clock: clock.clone(), started: clock.now(), host: host_name(), flags: options.flags };
    let ready = {
        let (identities, discovery) = (identities.clone(), discovery.clone());
        move || readiness(&identities, &discovery)
    };
    let monitors = receivers.monitors();
    let sources = Sources {
        registry: Arc::new(registry),
        scrape: scrape.clone(),
        readiness: Arc::new(ready),
        identities: {
            let identities = identities.clone();
            Arc::new(move || identities.snapshots())
        },
        discovery: {
            let discovery = discovery.clone();
            Arc::new(move || discovery.snapshot())
        },
        receivers: Arc::new(move || monitors.borrow().iter().map(send::Monitor::snapshot).collect()),
        configuration: reloads.configuration(),
        process: Arc::new(process),
        control: options.control,
    };
    let listen = local_addr(&listener);
    let api = api_listener.as_ref().map(local_addr);
    let mesh = mesh_listener.as_ref().map(local_addr);
    let serve =
        |listener, router, audience| tokio::spawn(status::serve(listener, router, audience, stop_serving.clone()));
    let mut serving = vec![serve(listener, status::probes_router(sources.clone()), Audience::Everybody)];
    if let Some(listener) = api_listener {
        serving.push(serve(listener, status::loopback_router(sources.clone()), Audience::ThisHost));
    }
    if let (Some(listener), Some(door)) = (mesh_listener, door) {
        serving.push(serve(listener, status::mesh_router(sources), Audience::Mesh(door)));
    }
    Ok(Agent {
        listen,
        api,
        mesh,
        clock,
        setup,
        identities,
        discovery,
        scrape,
        receivers,
        reloads,
        stop_scraping,
        scraping,
        spooling,
        give_up,
        flush_deadline: options.flush_deadline,
        stop_serving,
        serving,
    })
}

impl Agent {
    /// Where probes and `/metrics` are served.
    pub fn listen_addr(&self) -> SocketAddr {
        self.listen
    }

    /// Where the API is served.
    pub fn api_addr(&self) -> Option<SocketAddr> {
        self.api
    }

    /// Where workloads of the mesh are served.
    pub fn mesh_addr(&self) -> Option<SocketAddr> {
        self.mesh
    }

    /// Stops scraping, delivers what is queued until the flush deadline, and ends.
    pub async fn stop(self) -> Stopped {
        let give_up = self.give_up;
        let deadline = tokio::spawn(async move {
            tokio::time::sleep(self.flush_deadline).await;
            give_up.cancel();
        });
        self.stop_scraping.cancel();
        end("scraping", self.scraping).await;
        end("spooling", self.spooling).await;
        info!("scraping has stopped; delivering what is queued");
        let (undelivered, kept) = self.receivers.join().await;
        deadline.abort();
        self.stop_serving.cancel();
        for server in self.serving {
            end("serving", server).await;
        }
        Stopped { undelivered, kept }
    }
}

async fn end(what: &str, task: JoinHandle<()>) {
    if let Err(error) = task.await {
        warn!(%error, "BUG: {what} ended abnormally");
    }
}

/// Listens there. The kubelet asks a pod at whichever address the cluster gave it, so `[::]` serves IPv4 as well, and alone
/// where the kernel has no IPv6.
async fn bind(address: SocketAddr, flag: &'static str) -> Result<TcpListener, AgentError> {
    let bound = match TcpListener::bind(address).await {
        Err(_) if address.ip() == Ipv6Addr::UNSPECIFIED => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        bound => bound,
    };
    bound.map_err(|source| AgentError::Listen { address, flag, source })
}

fn local_addr(listener: &TcpListener) -> SocketAddr {
    listener.local_addr().expect("a bound listener has an address")
}

fn readiness(identities: &Identities, discovery: &discover::Discovery) -> Readiness {
    let mut missing = identities.missing();
    let discovered = discovery.snapshot();
    let mut problems: Vec<String> = discovered.problems.iter().map(ToString::to_string).collect();
    if discovered.unconfirmed {
        problems.push("the API server was not heard for so long that pods may have changed unseen".to_owned());
    }
    if !discovered.first_pass_done {
        missing.push("the targets are not known yet".to_owned());
        missing.append(&mut problems);
    }
    Readiness { missing, troubles: problems }
}

/// What this agent is called: the node's name where the manifest gives it, because a pod's host name changes with every
/// restart. It only has to differ between agents.
fn host_name() -> String {
    std::env::var("NODE_NAME").or_else(|_| std::env::var("HOSTNAME")).unwrap_or_else(|_| {
        std::fs::read_to_string("/etc/hostname").map(|name| name.trim().to_owned()).unwrap_or_default()
    })
}

fn register_build_info(registry: &mut Registry) {
    let info = Family::<Vec<(String, String)>, Gauge>::default();
    info.get_or_create(&vec![("version".to_owned(), env!("CARGO_PKG_VERSION").to_owned())]).set(1);
    registry.register("meshscrape_build_info", "The version of this program; the value is 1", info.clone());
    registry.register(
        "prometheus_build_info",
        "The same, by which dashboards for Prometheus find their instances",
        info,
    );
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn every_address_is_served_and_those_of_ipv4_also_alone() {
        let anywhere = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
        let listener = bind(anywhere, "--listen").await.expect("a port");
        let port = local_addr(&listener).port();
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.expect("IPv4 is served");

        // Where there is IPv6, somebody takes it away.
        let Ok(other) = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).await else { return };
        TcpStream::connect((Ipv6Addr::LOCALHOST, port)).await.expect("IPv6 is served");
        let taken = SocketAddr::from((Ipv6Addr::UNSPECIFIED, local_addr(&other).port()));
        let listener = bind(taken, "--listen").await.expect("the port of IPv4");
        assert_eq!(local_addr(&listener).ip(), Ipv4Addr::UNSPECIFIED);
    }
}
