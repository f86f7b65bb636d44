//! The door of the mesh listener: who wants in proves by mTLS to be one of the workloads that may, before a byte is read.
//!
//! The decision is made by `identity`, inside the handshake. Here it is asked for with the certificates of the moment, and who
//! was refused is counted and told. A connection ends after the request under way once those certificates change, or one in the
//! client's chain has ended. Whoever only connects costs nobody else his place: one address has a few handshakes at once.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::{debug, warn};

use crate::clock::Clock;
use crate::identity::{Credentials, failure_of};
use crate::model::{Failure, Peer, Reason};
use crate::telemetry::Repeated;

/// How long a handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(3);
/// How many handshakes one address may have under way.
const GREETINGS_OF_ONE: usize = 8;
/// How often refusals are told.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// Lets clients of the mesh in. Clones are the same.
#[derive(Clone)]
pub struct Door(Arc<Inner>);

struct Inner {
    credentials: watch::Receiver<Arc<Credentials>>,
    allowed: Peer,
    clock: Clock,
    refused: Refused,
    told: Mutex<Repeated>,
    /// Handshakes under way, by the address that they come from.
    greeted: Mutex<HashMap<IpAddr, usize>>,
}

/// How many were refused, by the reason.
#[derive(Clone, Debug, Default)]
pub struct Refused(Family<RefusedFor, Counter>);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusedFor {
    reason: &'static str,
}

impl Refused {
    /// Registers the counter.
    pub fn new(registry: &mut Registry) -> Self {
        let refused = Self::default();
        let help = "Connections to the mesh listener that were refused, by reason";
        registry.register("meshscrape_mesh_listener_refused", help, refused.0.clone());
        refused
    }
}

/// Who is inside.
pub(super) struct Admitted<F> {
    pub(super) stream: TlsStream<TcpStream>,
    /// Comes when the certificates have changed that it was let in by.
    pub(super) outdated: F,
}

impl Door {
    /// A door for those that are `allowed`.
    pub fn new(credentials: watch::Receiver<Arc<Credentials>>, allowed: Peer, clock: Clock, refused: Refused) -> Self {
        let told = Mutex::new(Repeated::new(TELL_EVERY));
        Self(Arc::new(Inner { credentials, allowed, clock, refused, told, greeted: Mutex::default() }))
    }

    /// Greets a client; nothing if it may not come in.
    pub(super) async fn admit(
        &self,
        stream: TcpStream,
        from: IpAddr,
    ) -> Option<Admitted<impl Future<Output = ()> + use<>>> {
        let mut credentials = self.0.credentials.clone();
        let current = Arc::clone(&credentials.borrow_and_update());
        let outcome = match self.greet(from) {
            None => Err(Failure::new(
                Reason::Timeout,
                format!("{from} has {GREETINGS_OF_ONE} handshakes under way that it does not finish"),
            )),
            Some(_greeting) => tokio::time::timeout(HANDSHAKE_TIMEOUT, self.handshake(&current, stream))
                .await
                .unwrap_or_else(|_| Err(Failure::new(Reason::Timeout, "the handshake took too long"))),
        };
        match outcome {
            Ok((stream, ends)) => {
                let left = ends.duration_since(self.0.clock.now()).unwrap_or_default();
                let outdated = async move {
                    // Where nobody watches the files any more, the agent is ending.
                    let _ = tokio::time::timeout(left, credentials.changed()).await;
                };
                Some(Admitted { stream, outdated })
            }
            Err(failure) => {
                self.0.refused.0.get_or_create(&RefusedFor { reason: failure.reason.name() }).inc();
                let speak = self.0.told.lock().unwrap_or_else(PoisonError::into_inner).speak();
                if let Some(held_back) = speak {
                    warn!(
                        reason = failure.reason.name(),
                        held_back, "the mesh listener refused a client: {}", failure.detail
                    );
                }
                None
            }
        }
    }

    /// Counts a handshake of this address for as long as the value lives; nothing if it has too many.
    fn greet(&self, from: IpAddr) -> Option<Greeting<'_>> {
        let mut greeted = self.0.greeted.lock().unwrap_or_else(PoisonError::into_inner);
        let count = greeted.entry(from).or_default();
        (*count < GREETINGS_OF_ONE).then(|| {
            *count += 1;
            Greeting { greeted: &self.0.greeted, from }
        })
    }

    /// The stream, and when the first certificate of the client's chain ends.
    async fn handshake(
        &self,
        credentials: &Credentials,
        stream: TcpStream,
    ) -> Result<(TlsStream<TcpStream>, SystemTime), Failure> {
        let admission = credentials.admission(&self.0.allowed, &self.0.clock)?;
        let stream = TlsAcceptor::from(admission.config()).accept(stream).await.map_err(|error| {
            failure_of(&error)
                .unwrap_or_else(|| Failure::new(Reason::TlsHandshake, format!("the handshake failed: {error}")))
        })?;
        let (client, ends) = admission.client()?;
        debug!(%client, "the mesh listener let a client in");
        Ok((stream, ends))
    }
}

/// A handshake under way.
struct Greeting<'a> {
    greeted: &'a Mutex<HashMap<IpAddr, usize>>,
    from: IpAddr,
}

impl Drop for Greeting<'_> {
    fn drop(&mut self) {
        let mut greeted = self.greeted.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = greeted.get_mut(&self.from) {
            *count -= 1;
            if *count == 0 {
                greeted.remove(&self.from);
            }
        }
    }
}

impl fmt::Debug for Door {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Door({})", self.0.allowed)
    }
}
