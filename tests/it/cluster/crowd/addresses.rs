//! The network of the crowd: a real Envoy with a secure listener on each of many loopback addresses, and who has which
//! address now.
//!
//! An address changes hands as in a cluster: its listener gets the certificate of the new pod, named by the pod's UID, and
//! connections of the old one are of no use any more. The exposition tells who really answered: UID and SPIFFE ID as they
//! stand in the certificate of the connection that the request came over.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::{Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::support::ca::{Ca, Leaf, LeafSpec};
use crate::support::envoy::{Envoy, ListenerSpec};

/// An address with the port that is secure there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Slot {
    pub(super) ip: Ipv4Addr,
    pub(super) port: u16,
}

impl std::fmt::Display for Slot {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}:{}", self.ip, self.port)
    }
}

/// All addresses.
pub(super) struct Addresses {
    ca: Ca,
    envoy: Envoy,
    /// What listens where, in the order of the addresses.
    listeners: BTreeMap<Slot, ListenerSpec>,
    upstream: SocketAddr,
    free: Vec<Slot>,
    shared: Arc<Mutex<Shared>>,
    _serving: DropGuard,
}

#[derive(Default)]
struct Shared {
    /// The UID of the pod that has an address; no entry is nobody.
    owners: HashMap<Ipv4Addr, String>,
    /// When a pod was last asked for its metrics, by its UID.
    asked: HashMap<String, Instant>,
}

impl Addresses {
    /// With so many addresses that are secure on 15092, and so many on 15091.
    pub(super) async fn new(ca: Ca, merged: usize, legacy: usize) -> Self {
        let shared = Arc::new(Mutex::new(Shared::default()));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let upstream = listener.local_addr().expect("an address");
        let end = CancellationToken::new();
        tokio::spawn(end.clone().run_until_cancelled_owned(serve(listener, Arc::clone(&shared))));

        let nobody = leaf(&ca, "nobody", "spiffe://cluster.local/ns/nowhere/sa/nobody");
        let ports = std::iter::repeat_n(15092, merged).chain(std::iter::repeat_n(15091, legacy));
        let slots: Vec<Slot> = ports.zip(1_u32..).map(|(port, at)| Slot { ip: address(at), port }).collect();
        let listeners: BTreeMap<Slot, ListenerSpec> =
            slots.iter().map(|slot| (*slot, spec(*slot, &nobody, &ca, upstream))).collect();
        let envoy = Envoy::start_many(&listeners.values().cloned().collect::<Vec<_>>()).await;
        Self { ca, envoy, listeners, upstream, free: slots, shared, _serving: end.drop_guard() }
    }

    /// Takes a free address with this port. Which of them is up to `choice`, so that some are used again at once.
    pub(super) fn take(&mut self, port: u16, choice: usize) -> Slot {
        let fit: Vec<usize> = (0..self.free.len()).filter(|&at| self.free[at].port == port).collect();
        self.free.remove(fit[choice % fit.len()])
    }

    /// The pods of these UIDs have these addresses now, and answer there as these identities.
    pub(super) async fn give(&mut self, taken: &[(Slot, String, String)]) {
        for (slot, uid, id) in taken {
            self.lock().owners.insert(slot.ip, uid.clone());
            let leaf = leaf(&self.ca, uid, id);
            self.listeners.insert(*slot, spec(*slot, &leaf, &self.ca, self.upstream));
        }
        self.envoy.relist(&self.listeners.values().cloned().collect::<Vec<_>>()).await;
    }

    /// The pod is gone; the address can be had by another.
    pub(super) fn free(&mut self, slot: Slot) {
        self.lock().owners.remove(&slot.ip);
        self.free.push(slot);
    }

    /// When the pod of this UID was last asked for its metrics.
    pub(super) fn last_asked(&self, uid: &str) -> Option<Instant> {
        self.lock().asked.get(uid).copied()
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One address of 127.80.0.0/16, which nothing else in the tests uses.
fn address(at: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 80, 0, 0)) + at)
}

fn name(slot: Slot) -> String {
    format!("ip-{}", u32::from(slot.ip))
}

fn spec(slot: Slot, leaf: &Leaf, ca: &Ca, upstream: SocketAddr) -> ListenerSpec {
    ListenerSpec::merged(&name(slot), leaf, &[ca], upstream).on_ip(slot.ip).on_port(slot.port)
}

/// Istio's leaves have no subject; here it names the pod, for whoever answers to tell.
fn leaf(ca: &Ca, uid: &str, id: &str) -> Leaf {
    let spec = LeafSpec { common_name: Some(uid.to_owned()), ..LeafSpec::of(id) };
    ca.issue(&spec)
}

async fn serve(listener: TcpListener, shared: Arc<Mutex<Shared>>) {
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        let shared = Arc::clone(&shared);
        let service = service_fn(move |request| {
            let answer = answer(&request, &shared);
            async move { Ok::<_, Infallible>(answer) }
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

/// The metrics of the pod whose certificate the connection was made with, if it still has the address.
fn answer(request: &http::Request<Incoming>, shared: &Mutex<Shared>) -> Response<Full<Bytes>> {
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let ip: Ipv4Addr = header("x-local-ip").parse().expect("Envoy's own address");
    let uid = header("x-local-subject").trim_start_matches("CN=").to_owned();
    let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
    // The connection was made with its certificate, whether it still has the address or not.
    shared.asked.insert(uid.clone(), Instant::now());
    if shared.owners.get(&ip) != Some(&uid) {
        return status(StatusCode::SERVICE_UNAVAILABLE, String::new());
    }
    let id = header("x-local-id");
    status(StatusCode::OK, format!("# TYPE who gauge\nwho{{uid=\"{uid}\",id=\"{id}\",ip=\"{ip}\"}} 1\n"))
}

fn status(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let answer = Response::builder().status(status).header("content-type", "text/plain; version=0.0.4");
    answer.body(Full::from(body)).expect("a response")
}
