//! What the agent tells about itself over HTTP. It reads snapshots of the other rooms and can change nothing; all that it
//! can set off is one scrape of a target that is scraped anyway and, where the command line allows it, that the
//! configuration is read again.
//!
//! Three listeners, because they have three audiences. The one on the pod's address serves probes and `/metrics` and nothing
//! else: what the mesh protects must not be readable in the clear next door. The one on loopback serves the API, to whoever
//! may log in to the node or forward a port. The one of the mesh, if there is one, serves the same to workloads that prove by
//! mTLS to be among those that may ([`Door`]), and lets nobody end the agent or reload it.

mod api;
mod door;
mod probes;
mod process;
mod server;

pub use api::{mesh_router, router as api_router};
pub use door::{Door, Refused};
pub use probes::{Readiness, router as probes_router};
pub use process::register_process_metrics;
pub use server::{Audience, serve};

use std::sync::Arc;
use std::time::SystemTime;

use prometheus_client::registry::Registry;
use tokio::sync::watch;

use crate::clock::Clock;
use crate::{lifecycle, scrape};

/// The header that a request must have to make the agent do something; its value says what.
const HEADER: &str = "x-meshscrape";

/// Where the answers come from.
#[derive(Clone)]
pub struct Sources {
    /// The metrics of all rooms.
    pub registry: Arc<Registry>,
    /// The running scrapers.
    pub scrape: scrape::Handle,
    /// Whether the agent can do its work, asked anew for each probe.
    pub readiness: Arc<dyn Fn() -> Readiness + Send + Sync>,
    /// The configuration in force.
    pub configuration: watch::Receiver<Configuration>,
    /// What does not change while the process lives.
    pub process: Arc<Process>,
    /// Who reads the configuration again and ends the process; `None` where nobody may ask for it over HTTP.
    pub control: Option<lifecycle::Control>,
}

/// The configuration that is in force.
#[derive(Clone, Debug)]
pub struct Configuration {
    /// As YAML, with defaults and without secrets.
    pub yaml: Arc<str>,
    /// When it was taken.
    pub taken: SystemTime,
    /// Whether what was read last could be used; if not, an older one is in force.
    pub successful: bool,
}

/// The process, as it was started.
#[derive(Clone, Debug)]
pub struct Process {
    /// Wall time.
    pub clock: Clock,
    /// When it began.
    pub started: SystemTime,
    /// The host, or the node, that it runs on.
    pub host: String,
    /// The arguments of the command line, defaults included.
    pub flags: Vec<(String, String)>,
}
