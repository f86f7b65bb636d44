//! What the agent tells about itself over HTTP. It reads snapshots of the other rooms and can change nothing; all that it
//! can set off is one scrape of a target that is scraped anyway and, where the command line allows it, that the
//! configuration is read again.
//!
//! Three listeners, because they have three audiences. The one on the pod's address serves probes and `/metrics` and nothing
//! else: what the mesh protects must not be readable in the clear next door. The one on loopback serves the API and the
//! page, to whoever may log in to the node or forward a port. The one of the mesh, if there is one, serves the API to
//! workloads that prove by mTLS to be among those that may ([`Door`]), and lets nobody end the agent or reload it.

mod api;
mod crowd;
mod door;
mod exposition;
mod foreign;
mod health;
mod page;
mod probes;
mod process;
mod relabelled;
mod server;

pub use door::{Door, Refused};
pub use probes::{Readiness, router as probes_router};
pub use process::register_process_metrics;
pub use server::{Audience, serve};

use std::sync::Arc;
use std::time::SystemTime;

use axum::Router;
use axum::middleware;
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use crate::clock::Clock;
use crate::identity::IdentitySnapshot;
use crate::send::ReceiverSnapshot;
use crate::{discover, lifecycle, scrape};

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
    /// The identities of jobs and receivers.
    pub identities: Arc<dyn Fn() -> Vec<IdentitySnapshot> + Send + Sync>,
    /// How discovery is doing.
    pub discovery: Arc<dyn Fn() -> Arc<discover::Snapshot> + Send + Sync>,
    /// How the receivers are doing.
    pub receivers: Arc<dyn Fn() -> Vec<ReceiverSnapshot> + Send + Sync>,
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
    /// What was read since and cannot be used, so that an older one is in force.
    pub refused: Option<Unusable>,
}

/// A configuration that was read and cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unusable {
    /// Since when none could be used.
    pub since: SystemTime,
    /// What is wrong with the last one that was read, each in a sentence, and as foreign as the file is.
    pub problems: Vec<String>,
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

/// The routes of the loopback listener: the API, the page, and what the pod's own port has.
pub fn loopback_router(sources: Sources) -> Router {
    let pages = page::router(sources.clone());
    let all = api::router(sources.clone()).merge(pages).merge(probes::router(sources));
    all.layer(middleware::from_fn(foreign::refuse_foreign))
}

/// The routes of the mesh listener: the API and what the pod's own port has, but that nobody ends the agent or reloads it
/// from afar.
pub fn mesh_router(sources: Sources) -> Router {
    let sources = Sources { control: None, ..sources };
    let all = api::router(sources.clone()).merge(probes::router(sources));
    all.layer(middleware::from_fn(foreign::refuse_pages))
}
