//! An HTTP proxy on loopback that writes down what it is asked: it makes tunnels, and passes on what is asked in the
//! absolute form. Whatever host is named, it dials the one port of 127.0.0.1 that the request names.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

/// A running proxy; it ends when it is dropped.
pub(crate) struct Proxy {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
    task: AbortHandle,
}

impl Proxy {
    /// Makes tunnels.
    pub(crate) fn start() -> Self {
        Self::answering("200 Connection established")
    }

    /// Says this to who wants a tunnel; none is made unless it is 200.
    pub(crate) fn answering(status: &'static str) -> Self {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        listener.set_nonblocking(true).expect("a socket option");
        let listener = TcpListener::from_std(listener).expect("a runtime");
        let address = listener.local_addr().expect("it is bound");
        let heads = Arc::<Mutex<Vec<String>>>::default();
        let task = tokio::spawn(accept(listener, status, Arc::clone(&heads))).abort_handle();
        Self { address, heads, task }
    }

    /// `host:port` of it.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The head of the first request of each connection so far.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, status: &'static str, heads: Arc<Mutex<Vec<String>>>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let heads = Arc::clone(&heads);
        connections.spawn(async move { pass(client, status, &heads).await });
    }
}

/// Ends with the connection; a client that goes away is no fault.
async fn pass(mut client: TcpStream, status: &str, heads: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await?);
    }
    let text = String::from_utf8(head.clone()).expect("a head of text");
    heads.lock().unwrap_or_else(PoisonError::into_inner).push(text.clone());
    let asked = text.split(' ').nth(1).expect("a request line");
    let authority = asked.strip_prefix("http://").unwrap_or(asked).split('/').next().expect("a first part");
    let port: u16 = authority.rsplit_once(':').expect("a port").1.parse().expect("a number");
    if text.starts_with("CONNECT ") {
        client.write_all(format!("HTTP/1.1 {status}\r\n\r\n").as_bytes()).await?;
        if !status.starts_with("200") {
            return Ok(());
        }
        head.clear();
    }
    let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    server.write_all(&head).await?;
    copy_bidirectional(&mut client, &mut server).await.map(|_| ())
}
