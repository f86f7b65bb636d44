//! Servers on loopback that behave exactly as told: with any certificate, or none, and breaking off wherever wanted.
//!
//! TLS is real (rustls); what goes through it is bytes written by hand, because no HTTP library can be made to send the
//! wrong ones. A server counts its connections and handshakes and keeps the head of every request, so that a test can
//! say "the second host saw nothing". It ends when it is dropped.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use meshscrape::model::Address;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinSet};
use tokio_rustls::LazyConfigAcceptor;

/// What happens to a connection.
#[derive(Clone)]
pub(crate) enum Talk {
    /// TLS with this configuration, then requests are answered.
    Tls(Arc<ServerConfig>, Script),
    /// No TLS: requests are answered in the clear, a TLS greeting with a complaint.
    Plain(Script),
    /// Accepted and left alone.
    HangBeforeHandshake,
    /// The greeting is read and never answered.
    HangInHandshake,
    /// The greeting is read and the connection ends.
    CloseInHandshake,
    /// The greeting is read and the connection is reset.
    ResetInHandshake,
    /// The greeting is answered with these bytes, and the connection ends.
    Babble(Vec<u8>),
}

/// From a request to its reply.
pub(crate) type Script = Arc<dyn Fn(&Asked) -> Reply + Send + Sync>;

/// One request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// The whole head, request line first.
    pub(crate) head: String,
    /// How many requests this connection has carried before.
    pub(crate) earlier_here: usize,
}

impl Asked {
    /// Path and query of the request line.
    pub(crate) fn path(&self) -> &str {
        self.head.split(' ').nth(1).unwrap_or_default()
    }

    /// A header's value.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers(name).first().copied()
    }

    /// Every value of a header, in their order.
    pub(crate) fn headers(&self, name: &str) -> Vec<&str> {
        let values = self.head.lines().skip(1).filter_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        });
        values.collect()
    }
}

/// Bytes, and what comes after them.
#[derive(Clone)]
pub(crate) struct Reply {
    pub(crate) bytes: Vec<u8>,
    pub(crate) then: Then,
    more: More,
}

/// What follows the bytes of a reply.
#[derive(Clone)]
enum More {
    Nothing,
    /// These, once somebody says so.
    Later(Arc<Notify>, Vec<u8>),
    /// These again and again, as fast as they are taken.
    Flood(Vec<u8>),
    /// These again and again, one in a second.
    Drip(Vec<u8>),
}

/// What comes after a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    /// The next request.
    Keep,
    /// A proper end: close_notify, then FIN.
    Close,
    /// FIN without close_notify, as somebody on the path could make it.
    Cut,
    /// A reset.
    Reset,
    /// Nothing, for ever.
    Hang,
}

impl Reply {
    /// 200 with this exposition.
    pub(crate) fn ok(body: &str) -> Self {
        Self::with("200 OK", &["Content-Type: text/plain; version=0.0.4"], body)
    }

    /// A whole reply with its Content-Length.
    pub(crate) fn with(status: &str, headers: &[&str], body: &str) -> Self {
        let mut head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n", body.len());
        for header in headers {
            head.push_str(header);
            head.push_str("\r\n");
        }
        Self::raw(format!("{head}\r\n{body}"), Then::Keep)
    }

    /// A redirect.
    pub(crate) fn redirect(status: u16, location: &str) -> Self {
        Self::with(&format!("{status} Elsewhere"), &[&format!("Location: {location}")], "moved\n")
    }

    /// Any bytes.
    pub(crate) fn raw(bytes: impl Into<Vec<u8>>, then: Then) -> Self {
        Self { bytes: bytes.into(), then, more: More::Nothing }
    }

    /// With a second part, which waits for `signal`; [`Server::hanging`] says when it does.
    pub(crate) fn later(self, signal: Arc<Notify>, bytes: impl Into<Vec<u8>>) -> Self {
        Self { more: More::Later(signal, bytes.into()), ..self }
    }

    /// With a second part that is repeated as fast as it is taken.
    pub(crate) fn flood(self, bytes: impl Into<Vec<u8>>) -> Self {
        Self { more: More::Flood(bytes.into()), ..self }
    }

    /// With a second part that is repeated, one byte in a second; [`Server::hanging`] says when it begins.
    pub(crate) fn drip(self, bytes: impl Into<Vec<u8>>) -> Self {
        Self { more: More::Drip(bytes.into()), ..self }
    }

    /// The same with another end.
    pub(crate) fn then(self, then: Then) -> Self {
        Self { then, ..self }
    }
}

/// A script that replies to everything alike.
pub(crate) fn always(reply: Reply) -> Script {
    Arc::new(move |_| reply.clone())
}

/// A running server.
pub(crate) struct Server {
    address: SocketAddr,
    seen: Arc<Seen>,
    task: AbortHandle,
}

#[derive(Default)]
struct Seen {
    connections: AtomicUsize,
    handshakes: AtomicUsize,
    offered: Mutex<Vec<Vec<String>>>,
    requests: Mutex<Vec<Asked>>,
    taken: Notify,
    hanging: Notify,
}

impl Server {
    /// Listens on a free port of 127.0.0.1, inside a tokio runtime.
    pub(crate) fn start(talk: Talk) -> Self {
        Self::start_at((Ipv4Addr::LOCALHOST, 0).into(), talk)
    }

    /// Listens on this loopback address.
    pub(crate) fn start_at(address: SocketAddr, talk: Talk) -> Self {
        assert!(address.ip().is_loopback(), "tests stay on this machine");
        Self::on(std::net::TcpListener::bind(address).expect("a free port"), talk)
    }

    /// Serves a socket that listens already, be it in another network.
    pub(crate) fn on(listener: std::net::TcpListener, talk: Talk) -> Self {
        listener.set_nonblocking(true).expect("a socket option");
        let listener = TcpListener::from_std(listener).expect("a runtime");
        let address = listener.local_addr().expect("it is bound");
        let seen = Arc::new(Seen::default());
        let task = tokio::spawn(serve(listener, talk, Arc::clone(&seen))).abort_handle();
        Self { address, seen, task }
    }

    pub(crate) fn socket(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Where it listens, as a target's address.
    pub(crate) fn address(&self) -> Address {
        Address::parse(&self.address.to_string()).expect("a socket address is an address")
    }

    /// TCP connections accepted so far.
    pub(crate) fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }

    /// TLS handshakes that succeeded on this side.
    pub(crate) fn handshakes(&self) -> usize {
        self.seen.handshakes.load(Ordering::SeqCst)
    }

    /// The application protocols of each TLS greeting so far.
    pub(crate) fn offered(&self) -> Vec<Vec<String>> {
        self.seen.offered.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The requests so far.
    pub(crate) fn requests(&self) -> Vec<Asked> {
        self.seen.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until a reply was taken to its last byte.
    pub(crate) async fn taken(&self) {
        self.seen.taken.notified().await;
    }

    /// Waits until a connection has come to the point from which nothing happens any more.
    pub(crate) async fn hanging(&self) {
        self.seen.hanging.notified().await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A port of 127.0.0.1 on which nobody listens. It stays bound, so that nobody else gets it.
pub(crate) fn closed_port() -> (tokio::net::TcpSocket, Address) {
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).expect("a free port");
    let address = socket.local_addr().expect("it is bound").to_string();
    (socket, Address::parse(&address).expect("a socket address is an address"))
}

async fn serve(listener: TcpListener, talk: Talk, seen: Arc<Seen>) {
    let mut open = JoinSet::new();
    while let Ok((tcp, _)) = listener.accept().await {
        seen.connections.fetch_add(1, Ordering::SeqCst);
        tcp.set_nodelay(true).expect("a socket option");
        open.spawn(converse(tcp, talk.clone(), Arc::clone(&seen)));
    }
}

async fn converse(mut tcp: TcpStream, talk: Talk, seen: Arc<Seen>) {
    match talk {
        Talk::Tls(config, script) => {
            let Ok(greeted) = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), tcp).await else { return };
            let protocols = greeted.client_hello().alpn().into_iter().flatten();
            let offered = protocols.map(|name| String::from_utf8_lossy(name).into_owned()).collect();
            seen.offered.lock().unwrap_or_else(PoisonError::into_inner).push(offered);
            let Ok(mut tls) = greeted.into_stream(config).await else { return };
            seen.handshakes.fetch_add(1, Ordering::SeqCst);
            match answer(&mut tls, &script, &seen).await {
                Then::Close => _ = tls.shutdown().await,
                Then::Reset => reset(tls.get_ref().0),
                Then::Keep | Then::Cut | Then::Hang => {}
            }
        }
        Talk::Plain(script) => {
            let mut first = [0];
            if matches!(tcp.peek(&mut first).await, Ok(1)) && !first[0].is_ascii_alphabetic() {
                // As web servers do with a TLS greeting.
                greeting(&mut tcp).await;
                _ = tcp.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\nspeak up\n").await;
            } else if answer(&mut tcp, &script, &seen).await == Then::Reset {
                reset(&tcp);
            }
            _ = tcp.shutdown().await;
        }
        Talk::HangBeforeHandshake => hang(&seen).await,
        Talk::HangInHandshake => {
            greeting(&mut tcp).await;
            hang(&seen).await;
        }
        Talk::CloseInHandshake => {
            greeting(&mut tcp).await;
            _ = tcp.shutdown().await;
        }
        Talk::ResetInHandshake => {
            greeting(&mut tcp).await;
            reset(&tcp);
        }
        Talk::Babble(bytes) => {
            greeting(&mut tcp).await;
            _ = tcp.write_all(&bytes).await;
            _ = tcp.shutdown().await;
        }
    }
}

/// Answers requests until a reply, or the client, ends it.
async fn answer<S>(stream: &mut S, script: &Script, seen: &Seen) -> Then
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut unread = Vec::new();
    for earlier_here in 0.. {
        let head = loop {
            if let Some(end) = unread.windows(4).position(|four| four == b"\r\n\r\n") {
                let head: Vec<u8> = unread.drain(..end + 4).collect();
                break String::from_utf8(head).expect("we send text");
            }
            match stream.read_buf(&mut unread).await {
                Ok(0) | Err(_) => return Then::Close,
                Ok(_) => {}
            }
        };
        let asked = Asked { head, earlier_here };
        let reply = script(&asked);
        seen.requests.lock().unwrap_or_else(PoisonError::into_inner).push(asked);
        if stream.write_all(&reply.bytes).await.is_err() || stream.flush().await.is_err() {
            return Then::Cut;
        }
        if more(stream, &reply.more, seen).await.is_err() {
            return Then::Cut;
        }
        seen.taken.notify_one();
        match reply.then {
            Then::Keep => {}
            Then::Hang => hang(seen).await,
            end => return end,
        }
    }
    Then::Close
}

async fn more<S: AsyncWrite + Unpin>(stream: &mut S, more: &More, seen: &Seen) -> std::io::Result<()> {
    match more {
        More::Nothing => {}
        More::Later(signal, bytes) => {
            seen.hanging.notify_one();
            signal.notified().await;
            stream.write_all(bytes).await?;
            stream.flush().await?;
        }
        More::Flood(bytes) => loop {
            stream.write_all(bytes).await?;
        },
        More::Drip(bytes) => {
            seen.hanging.notify_one();
            for byte in bytes.iter().cycle() {
                tokio::time::sleep(Duration::from_secs(1)).await;
                stream.write_all(&[*byte]).await?;
                stream.flush().await?;
            }
        }
    }
    Ok(())
}

async fn greeting(tcp: &mut TcpStream) {
    let mut bytes = [0; 4096];
    _ = tcp.read(&mut bytes).await;
}

async fn hang(seen: &Seen) {
    seen.hanging.notify_one();
    std::future::pending::<()>().await;
}

/// Makes the close that follows a reset.
fn reset(tcp: &TcpStream) {
    tcp.set_zero_linger().expect("a socket option");
}
