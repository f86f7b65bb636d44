//! What the agent tells about itself over HTTP. It reads snapshots of the other rooms and can change nothing; all that it
//! can set off is one scrape of a target that is scraped anyway and, where the command line allows it, that the
//! configuration is read again.
//!
//! Two listeners, because they have two audiences. The one on the pod's address serves probes and `/metrics` and nothing
//! else: what the mesh protects must not be readable in the clear next door. The one on loopback serves the API, to whoever
//! may log in to the node or forward a port.

mod api;
mod live;
mod probes;
mod reload;
mod server;

pub use api::router as api_router;
pub use probes::{Readiness, router as probes_router};
pub use server::{Audience, serve};

use std::sync::Arc;

use prometheus_client::registry::Registry;

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
    /// Who reads the configuration again; `None` where nobody may ask for it over HTTP.
    pub reload: Option<lifecycle::Reload>,
}
