//! One TLS connection that speaks HTTP/1.1, and the future that drives it.
//!
//! hyper's connection future is not given to a task of its own: whoever waits for the answer or for a piece of the body
//! drives it. So a connection belongs to exactly one owner, costs no task and no wake-up between tasks, is gone the
//! moment it is dropped, and can be taken apart when it breaks, to read the alert that explains why. Between two
//! scrapes nobody drives it; what the peer did in the meantime is seen by [`Connection::is_open`].
//!
//! Always holds: a [`Connection`] exists only after a handshake whose verifier said yes; every wait ends at the
//! deadline it was given. It must not know: targets, jobs, labels, what a status means.

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::Empty;
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, lookup_host};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::classify::{self, Broken};
use super::stopwatch::{Stage, Stopwatch};
use crate::identity::{Handshake, Verified};
use crate::model::{Address, Failure, Host, Reason};

/// The read buffer of a connection, and with it the largest response header. hyper's default lets the buffer of every
/// idle connection stay at 400 KiB; this costs no throughput.
const BUFFER_BYTES: usize = 16 * 1024;

type Io = TokioIo<Counted<TlsStream<TcpStream>>>;
type Driver = http1::Connection<Io, Empty<Bytes>>;

/// A verified connection to one address.
#[derive(Debug)]
pub(super) struct Connection {
    address: Address,
    verified: Arc<Verified>,
    sender: http1::SendRequest<Empty<Bytes>>,
    driver: Driver,
    /// The driver has finished and must not be polled again.
    ended: bool,
    /// Decrypted bytes that the peer has sent on this connection.
    received: Arc<AtomicU64>,
}

impl Connection {
    /// Speaks HTTP/1.1 on a stream whose handshake has been verified.
    pub(super) async fn over(
        stream: TlsStream<TcpStream>,
        address: Address,
        verified: Arc<Verified>,
    ) -> Result<Self, Failure> {
        let received = Arc::new(AtomicU64::new(0));
        let io = TokioIo::new(Counted { inner: stream, received: Arc::clone(&received) });
        let (sender, driver) = http1::Builder::new()
            .max_buf_size(BUFFER_BYTES)
            .handshake(io)
            .await
            .map_err(|error| Failure::new(Reason::HttpProtocol, classify::words(&error)))?;
        Ok(Self { address, verified, sender, driver, ended: false, received })
    }

    /// Where it leads.
    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    /// What its handshake proved.
    pub(super) fn verified(&self) -> &Arc<Verified> {
        &self.verified
    }

    /// Whether another request can be sent: looks at what the peer did since anybody drove the connection.
    pub(super) async fn is_open(&mut self) -> bool {
        poll_fn(|cx| {
            self.drive(cx);
            Poll::Ready(!self.ended && matches!(self.sender.poll_ready(cx), Poll::Ready(Ok(()))))
        })
        .await
    }

    /// Sends `request` and waits for the head of its answer.
    pub(super) async fn exchange(
        &mut self,
        request: http::Request<Empty<Bytes>>,
        watch: &mut Stopwatch,
    ) -> Result<http::Response<Incoming>, Broken> {
        let before = self.received.load(Ordering::Relaxed);
        let mut answer = pin!(self.sender.send_request(request));
        let outcome = poll_fn(|cx| {
            // Asked first: a peer that always has another byte ready must not outrun the deadline.
            if watch.poll_deadline(cx).is_ready() {
                return Poll::Ready(Err(Broken::deadline()));
            }
            self.drive(cx);
            if let Poll::Ready(outcome) = answer.as_mut().poll(cx) {
                return Poll::Ready(Ok(outcome));
            }
            if self.ended {
                return Poll::Ready(Err(Broken::closed()));
            }
            Poll::Pending
        })
        .await;
        let broken = match outcome {
            Ok(Ok(reply)) => return Ok(reply),
            Ok(Err(error)) => Broken::http(error),
            Err(broken) => broken,
        };
        Err(broken.after_bytes(self.received.load(Ordering::Relaxed) - before))
    }

    /// The next piece of a body that this connection delivers; `None` at its end.
    pub(super) async fn next_piece(
        &mut self,
        body: &mut Incoming,
        watch: &mut Stopwatch,
    ) -> Option<Result<Bytes, Broken>> {
        poll_fn(|cx| {
            if watch.poll_deadline(cx).is_ready() {
                return Poll::Ready(Some(Err(Broken::deadline())));
            }
            self.drive(cx);
            loop {
                match Pin::new(&mut *body).poll_frame(cx) {
                    Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                        Ok(bytes) => return Poll::Ready(Some(Ok(bytes))),
                        Err(_trailers) => {}
                    },
                    Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(Broken::http(error)))),
                    Poll::Ready(None) => return Poll::Ready(None),
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await
    }

    /// Takes a broken connection apart and reads what the peer said last. In TLS 1.3 a refused client certificate
    /// shows only here, and writing the request often fails before anybody has read it.
    pub(super) async fn last_words(self, watch: &mut Stopwatch) -> Option<rustls::Error> {
        let mut stream = self.driver.into_parts().io.into_inner().inner;
        let mut nothing = [0; 64];
        let mut read = pin!(stream.read(&mut nothing));
        poll_fn(|cx| {
            if watch.poll_deadline(cx).is_ready() {
                return Poll::Ready(None);
            }
            read.as_mut().poll(cx).map(|read| read.err().and_then(|error| classify::tls_error(&error).cloned()))
        })
        .await
    }

    fn drive(&mut self, cx: &mut Context<'_>) {
        // Its error is told through the pending answer or body as well, where it says more.
        if !self.ended && Pin::new(&mut self.driver).poll(cx).is_ready() {
            self.ended = true;
        }
    }
}

/// Resolves and connects, with `TCP_NODELAY`: without it a handshake waits 40 ms for a delayed acknowledgement.
pub(super) async fn dial(address: &Address, default_port: u16, watch: &mut Stopwatch) -> Result<TcpStream, Failure> {
    let port = address.port().unwrap_or(default_port);
    let candidates: Vec<SocketAddr> = match address.host() {
        Host::Ip(ip) => vec![SocketAddr::new(*ip, port)],
        Host::Name(name) => {
            watch.enter(Stage::Resolve);
            let found = watch.bounded(lookup_host((name.as_ref(), port))).await?;
            found.map_err(|error| classify::resolution(name, &error))?.collect()
        }
    };
    watch.enter(Stage::Connect);
    let mut last = None;
    for candidate in candidates {
        match watch.bounded(TcpStream::connect(candidate)).await? {
            Ok(stream) => {
                stream.set_nodelay(true).map_err(|error| classify::connect(address, &error))?;
                watch.connected();
                return Ok(stream);
            }
            Err(error) => last = Some(error),
        }
    }
    Err(match last {
        Some(error) => classify::connect(address, &error),
        None => Failure::new(Reason::NameResolution, format!("{address} resolves to no address")),
    })
}

/// Runs the handshake; its verifier decides inside.
pub(super) async fn handshake(
    tcp: TcpStream,
    prepared: &Handshake,
    watch: &mut Stopwatch,
) -> Result<TlsStream<TcpStream>, Failure> {
    watch.enter(Stage::Handshake);
    let connector = TlsConnector::from(prepared.config());
    let stream = watch.bounded(connector.connect(prepared.server_name(), tcp)).await?;
    let stream = stream.map_err(|error| classify::handshake(&error))?;
    watch.shaken();
    Ok(stream)
}

/// Counts what is read, so that "closed without a byte" can be told from "broke off".
#[derive(Debug)]
struct Counted<S> {
    inner: S,
    received: Arc<AtomicU64>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut self.inner).poll_read(cx, buffer);
        let read = buffer.filled().len() - before;
        if read > 0 {
            self.received.fetch_add(read as u64, Ordering::Relaxed);
        }
        outcome
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
