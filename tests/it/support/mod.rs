//! What the chapters share: a certificate authority, servers that do exactly one thing wrong, real peers with the small
//! clients that ask them, and the real agent.

pub(crate) mod agent;
pub(crate) mod ca;
pub(crate) mod envoy;
pub(crate) mod gather;
pub(crate) mod http;
pub(crate) mod kubelet;
pub(crate) mod kubernetes;
pub(crate) mod mesh;
pub(crate) mod namespaces;
pub(crate) mod process;
pub(crate) mod program;
pub(crate) mod prometheus;
pub(crate) mod protobuf;
pub(crate) mod proxy;
pub(crate) mod receiver;
pub(crate) mod stored;
pub(crate) mod tap;
pub(crate) mod tls_server;
pub(crate) mod usage;
pub(crate) mod victoria;

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, Ordering};

/// `short` in an ordinary run, `long` in `make soak`.
pub(crate) fn scale<T>(short: T, long: T) -> T {
    if std::env::var_os("MESHSCRAPE_SOAK").is_some() { long } else { short }
}

/// A loopback address that nobody else in this run has, as each pod has its own.
pub(crate) fn loopback() -> Ipv4Addr {
    static NEXT: AtomicU32 = AtomicU32::new(0x7f40_0001); // 127.64.0.1
    Ipv4Addr::from(NEXT.fetch_add(1, Ordering::Relaxed))
}
