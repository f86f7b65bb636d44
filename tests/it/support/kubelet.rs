//! A kubelet that does one thing: it forwards ports of pods, as the API server asks it to.
//!
//! `POST /portForward/NAMESPACE/POD/UID?port=N` becomes a WebSocket with two channels a port, data and errors, each of
//! which begins with the number of the port. Every pod's loopback is that of this machine, as if all of them were here.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::{SinkExt, StreamExt};
use rustls::ServerConfig;
use rustls::version::TLS13;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::ca::{Ca, LeafSpec, Name};
use super::loopback;

const PROTOCOL: &str = "v4.channel.k8s.io";

/// The running kubelet; it ends with its value.
pub(crate) struct Kubelet {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    _serving: DropGuard,
}

impl Kubelet {
    /// On an address of its own.
    pub(crate) async fn start() -> Self {
        let ip = IpAddr::V4(loopback());
        let listener = TcpListener::bind((ip, 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let leaf = Ca::new("kubelets").issue(&LeafSpec::named(vec![Name::Ip(ip)]));
        let tls = ServerConfig::builder_with_protocol_versions(&[&TLS13])
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(leaf.resolver()));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let stop = CancellationToken::new();
        let serving = serve(listener, TlsAcceptor::from(Arc::new(tls)), Arc::clone(&asked));
        tokio::spawn(stop.clone().run_until_cancelled_owned(serving));
        Self { address, asked, _serving: stop.drop_guard() }
    }

    pub(crate) fn ip(&self) -> String {
        self.address.ip().to_string()
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// The requests so far, each as path and query.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn serve(listener: TcpListener, tls: TlsAcceptor, asked: Arc<Mutex<Vec<String>>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (tls, asked) = (tls.clone(), Arc::clone(&asked));
        tokio::spawn(async move {
            if let Ok(stream) = tls.accept(stream).await {
                forward(stream, &asked).await;
            }
        });
    }
}

async fn forward<S>(stream: S, asked: &Mutex<Vec<String>>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut port = 0;
    #[expect(clippy::result_large_err, reason = "the library's signature")]
    let upgrade = |request: &Request, mut response: Response| {
        asked.lock().unwrap_or_else(PoisonError::into_inner).push(request.uri().to_string());
        let query = request.uri().query().unwrap_or_default();
        let named = query.split('&').find_map(|pair| pair.strip_prefix("port="));
        port = named.and_then(|number| number.parse().ok()).expect("one port");
        response.headers_mut().insert("sec-websocket-protocol", PROTOCOL.parse().expect("a header"));
        Ok(response)
    };
    let Ok(mut socket) = accept_hdr_async(stream, upgrade).await else { return };
    for channel in [0, 1] {
        let [low, high] = u16::to_le_bytes(port);
        socket.send(Message::binary(vec![channel, low, high])).await.expect("the API server listens");
    }
    let mut pod = match TcpStream::connect(("127.0.0.1", port)).await {
        Ok(pod) => pod,
        Err(error) => {
            let text = format!("\u{1}failed to connect to localhost:{port} inside the pod: {error}");
            _ = socket.send(Message::binary(text.into_bytes())).await;
            return end(socket).await;
        }
    };
    let mut bytes = vec![0; 16 * 1024];
    loop {
        bytes[0] = 0;
        tokio::select! {
            message = socket.next() => match message {
                Some(Ok(Message::Binary(data))) if data.first() == Some(&0) => {
                    if pod.write_all(&data[1..]).await.is_err() { break }
                }
                Some(Ok(Message::Close(_)) | Err(_)) | None => break,
                Some(Ok(_)) => {}
            },
            read = pod.read(&mut bytes[1..]) => match read {
                Ok(0) | Err(_) => break,
                Ok(length) => {
                    let data = bytes[..=length].to_vec();
                    if socket.send(Message::binary(data)).await.is_err() { break }
                }
            },
        }
    }
    end(socket).await;
}

/// Closes, and reads until the other side has closed, too: were the connection gone while a request is under way to it, the
/// API server would drop what it has not passed on yet, the last words among it.
async fn end<S>(mut socket: WebSocketStream<S>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    _ = socket.close(None).await;
    while let Some(Ok(_)) = socket.next().await {}
}
