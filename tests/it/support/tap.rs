//! A plain HTTP server in the place of pilot-agent that remembers every body it served.
//!
//! It stands behind a merged listener of Envoy and answers with what Envoy's own admin says at that moment, headed by the
//! number of the answer; so a test can hold what was stored against the very body that it came from.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, UnixStream};

use super::http;

/// The first line of every body: the number of the answer, from 1.
pub(crate) const NUMBER: &str = "tap_answer_number";

/// The running server; it ends with the test's runtime.
#[derive(Clone)]
pub(crate) struct Tap {
    address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    admin: Option<PathBuf>,
    bodies: Vec<String>,
}

impl Tap {
    /// Starts the server; it answers 503 until it knows Envoy.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let tap = Self { address: listener.local_addr().expect("an address"), shared: Arc::default() };
        let serving = tap.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let tap = serving.clone();
                let service = service_fn(move |request| {
                    let tap = tap.clone();
                    async move { Ok::<_, Infallible>(tap.answer(request).await) }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        tap
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on it passes on what the Envoy with this admin socket exposes.
    pub(crate) fn pass_on(&self, admin: PathBuf) {
        self.shared.lock().expect("no panic inside").admin = Some(admin);
    }

    /// Every body served so far; body `n` is at `n - 1`.
    pub(crate) fn bodies(&self) -> Vec<String> {
        self.shared.lock().expect("no panic inside").bodies.clone()
    }

    async fn answer(&self, _request: Request<Incoming>) -> Response<Full<Bytes>> {
        let admin = self.shared.lock().expect("no panic inside").admin.clone();
        let Some(admin) = admin else {
            let mut early = Response::new(Full::default());
            *early.status_mut() = hyper::StatusCode::SERVICE_UNAVAILABLE;
            return early;
        };
        let stream = UnixStream::connect(admin).await.expect("Envoy's admin socket");
        let stats = http::exchange(stream, "GET", "/stats/prometheus", &[], Bytes::new()).await.expect("Envoy's stats");
        let mut shared = self.shared.lock().expect("no panic inside");
        let body = format!("{NUMBER} {}\n{}", shared.bodies.len() + 1, stats.text());
        shared.bodies.push(body.clone());
        Response::builder()
            .header("content-type", "text/plain; charset=UTF-8")
            .body(Full::new(body.into()))
            .expect("a good head")
    }
}
