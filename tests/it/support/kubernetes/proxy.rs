//! What stands between clients and the API server: it passes bytes on as they are (TLS stays end to end), counts them, and on
//! command cuts connections, falls silent, or turns clients away.
//!
//! It has the address of the API server and a port of its own, so the server's certificate is good for it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

/// The running proxy; it ends with its value.
pub(crate) struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    _accepting: DropGuard,
}

/// What a proxy has passed on so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Passed {
    /// Connections from clients, ended ones too.
    pub(crate) connections: usize,
    /// Bytes from clients, with TLS around them.
    pub(crate) to_server: u64,
    /// Bytes from the API server, with TLS around them.
    pub(crate) from_server: u64,
}

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Pass,
    Silent,
    Refuse,
}

struct Shared {
    mode: watch::Sender<Mode>,
    /// The connections that are open now end with it.
    present: Mutex<CancellationToken>,
    /// How many more bytes of the server are passed on before all is cut; `u64::MAX` is no limit.
    left: AtomicU64,
    open: AtomicUsize,
    connections: AtomicUsize,
    to_server: AtomicU64,
    from_server: AtomicU64,
}

impl Proxy {
    pub(super) async fn start(address: Ipv4Addr, server: SocketAddr) -> Self {
        let listener = TcpListener::bind((address, 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            mode: watch::Sender::new(Mode::Pass),
            present: Mutex::default(),
            left: AtomicU64::new(u64::MAX),
            open: AtomicUsize::default(),
            connections: AtomicUsize::default(),
            to_server: AtomicU64::default(),
            from_server: AtomicU64::default(),
        });
        let end = CancellationToken::new();
        tokio::spawn(end.clone().run_until_cancelled_owned(accept(listener, server, Arc::clone(&shared))));
        Self { address, shared, _accepting: end.drop_guard() }
    }

    /// The URL of the API server by way of this proxy.
    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Ends every open connection, wherever in its stream it is; new ones pass.
    pub(crate) fn cut(&self) {
        self.shared.cut();
    }

    /// Ends every open connection once the API server has sent this many bytes more.
    pub(crate) fn cut_after(&self, bytes: u64) {
        self.shared.left.store(bytes, Ordering::SeqCst);
    }

    /// No byte passes any more, open connections stay open, and new ones get no answer.
    pub(crate) fn fall_silent(&self) {
        self.shared.mode.send_replace(Mode::Silent);
    }

    /// Ends every open connection, and each new one at once.
    pub(crate) fn refuse(&self) {
        self.shared.mode.send_replace(Mode::Refuse);
        self.shared.cut();
    }

    /// All is well again; what was held back passes now.
    pub(crate) fn pass(&self) {
        self.shared.mode.send_replace(Mode::Pass);
    }

    /// How many connections are open.
    pub(crate) fn open(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// What has passed so far.
    pub(crate) fn passed(&self) -> Passed {
        Passed {
            connections: self.shared.connections.load(Ordering::SeqCst),
            to_server: self.shared.to_server.load(Ordering::SeqCst),
            from_server: self.shared.from_server.load(Ordering::SeqCst),
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.cut();
    }
}

impl Shared {
    fn cut(&self) {
        let mut present = self.present.lock().expect("no panic while it is held");
        std::mem::take(&mut *present).cancel();
    }

    fn present(&self) -> CancellationToken {
        self.present.lock().expect("no panic while it is held").clone()
    }

    async fn until_not_silent(&self) {
        let seen = self.mode.subscribe().wait_for(|mode| *mode != Mode::Silent).await.map(drop);
        seen.expect("the sender is in self");
    }
}

async fn accept(listener: TcpListener, server: SocketAddr, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        if *shared.mode.borrow() == Mode::Refuse {
            continue;
        }
        shared.connections.fetch_add(1, Ordering::SeqCst);
        shared.open.fetch_add(1, Ordering::SeqCst);
        let (shared, cut) = (Arc::clone(&shared), shared.present());
        tokio::spawn(async move {
            // When it is cut, both sockets go here; when an end is gone, the other end gets to know.
            cut.run_until_cancelled(pass_on(client, server, &shared)).await;
            shared.open.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

async fn pass_on(client: TcpStream, server: SocketAddr, shared: &Shared) {
    shared.until_not_silent().await;
    let Ok(server) = TcpStream::connect(server).await else { return };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::join!(
        carry(from_client, to_server, shared, |bytes| {
            shared.to_server.fetch_add(bytes, Ordering::SeqCst);
            bytes
        }),
        carry(from_server, to_client, shared, |bytes| {
            let left = shared.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| match left {
                u64::MAX => None,
                left => Some(left.saturating_sub(bytes)),
            });
            let may = left.map_or(bytes, |left| left.min(bytes));
            shared.from_server.fetch_add(may, Ordering::SeqCst);
            may
        }),
    );
}

/// Passes bytes on until an end is gone; `may` says how many of those that have come may pass, fewer being the last.
async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, shared: &Shared, may: impl Fn(u64) -> u64) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(come @ 1..) = from.read(&mut buffer).await {
        shared.until_not_silent().await;
        let passing = may(come as u64) as usize;
        if to.write_all(&buffer[..passing]).await.is_err() {
            return;
        }
        if passing < come {
            shared.left.store(u64::MAX, Ordering::SeqCst);
            shared.cut();
        }
    }
}
