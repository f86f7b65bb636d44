//! A small HTTP server that slow and numerous clients cannot wear down.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::Door;
use super::crowd::{Crowd, Place};
use crate::scrape::MAX_PROBE_TIME;

/// Connections served at once.
const MAX_CONNECTIONS: usize = 64;
/// Clients greeted at once on the mesh listener, before it is known who they are. They take no place of those who may come.
const MAX_GREETINGS: usize = 128;
/// How long a client may take over the head of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(2);
/// How long answers that are under way may take once the server is asked to stop.
const DRAIN: Duration = Duration::from_secs(1);

/// Who is served, and how long a connection may last, whatever the client does with it.
#[derive(Clone)]
pub enum Audience {
    /// Anybody on the pod's port: who asks without reading makes room for a probe.
    Everybody,
    /// Who is on this host, and may wait for a live scrape and for what it has to say.
    ThisHost,
    /// Workloads of the mesh that the door lets in, and that may wait as long.
    Mesh(Door),
}

impl Audience {
    /// How many connections are attended to that nobody has let in.
    fn strangers(&self) -> usize {
        match self {
            Audience::Everybody | Audience::ThisHost => MAX_CONNECTIONS,
            Audience::Mesh(_) => MAX_GREETINGS,
        }
    }

    fn lifetime(&self) -> Duration {
        match self {
            Audience::Everybody => Duration::from_secs(5),
            Audience::ThisHost | Audience::Mesh(_) => MAX_PROBE_TIME + Duration::from_secs(30),
        }
    }
}

/// Serves `router` on `listener` until `stop` is cancelled, and returns soon after.
pub async fn serve(listener: TcpListener, router: Router, audience: Audience, stop: CancellationToken) {
    let mut crowd = Crowd::of(audience.strangers());
    // Of those who were let in.
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let connections = TaskTracker::new();
    // Cancelled when the time to drain is up.
    let hang_up = CancellationToken::new();
    while let Some((stream, from)) = stop.run_until_cancelled(next(&listener)).await {
        let arrived = Arrived { stream, from, place: crowd.place(from) };
        let (router, stop, hang_up, audience) = (router.clone(), stop.clone(), hang_up.clone(), audience.clone());
        let places = Arc::clone(&places);
        connections.spawn(async move {
            let life = tokio::time::timeout(audience.lifetime(), attend(arrived, places, router, &audience, stop));
            if hang_up.run_until_cancelled(life).await.is_some_and(|outcome| outcome.is_err()) {
                debug!("a status connection took too long and was closed");
            }
        });
    }
    connections.close();
    if tokio::time::timeout(DRAIN, connections.wait()).await.is_err() {
        hang_up.cancel();
        connections.wait().await;
    }
}

/// A connection, and the place that it takes.
struct Arrived {
    stream: TcpStream,
    from: IpAddr,
    place: Arc<Place>,
}

/// The next connection. It is taken at once, whoever else is there: a probe that waits in the listener's queue is a failed one.
async fn next(listener: &TcpListener) -> (TcpStream, IpAddr) {
    loop {
        match listener.accept().await {
            Ok((stream, from)) => return (stream, from.ip()),
            Err(error) => {
                warn!(%error, "cannot accept a connection on the status listener");
                // Out of file descriptors, most likely: give others time to close theirs.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn attend(
    Arrived { stream, from, place }: Arrived,
    places: Arc<Semaphore>,
    router: Router,
    audience: &Audience,
    stop: CancellationToken,
) {
    let Audience::Mesh(door) = audience else {
        unless_lost(&place, converse(stream, router, stop)).await;
        return;
    };
    let Some(admitted) = unless_lost(&place, door.admit(stream, from)).await.flatten() else { return };
    // Who has no place among the served yet keeps the one that he has.
    let Some(_served) = unless_lost(&place, places.acquire_owned()).await else { return };
    drop(place);
    // What it was let in by has changed: it may come again and be judged anew.
    let retire = stop.child_token();
    let changed = async {
        admitted.outdated.await;
        retire.cancel();
        std::future::pending().await
    };
    tokio::select! {
        () = converse(admitted.stream, router, retire.clone()) => {}
        () = changed => {}
    }
}

/// What `work` comes to, unless its place is needed for somebody else before.
async fn unless_lost<T>(place: &Place, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        done = work => Some(done),
        () = place.lost() => {
            debug!("a status connection made room for another");
            None
        }
    }
}

async fn converse(stream: impl AsyncRead + AsyncWrite + Unpin, router: Router, stop: CancellationToken) {
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(connection);
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = outcome {
        debug!(%error, "a status connection ended early");
    }
}
