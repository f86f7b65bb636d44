//! No connection comes about.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use meshscrape::model::Reason;

use super::stage::{Mend, Row, Stage};
use crate::support::envoy::ListenerSpec;
use crate::support::tls_server::{Reply, Talk, always};

pub(super) fn rows(stage: &mut Stage) -> Vec<Row> {
    let well = stage.job(stage.well);
    let off = stage.later(ListenerSpec::stats("connect_refused", &stage.cart(), &[&stage.ca]));
    let (full, waiting) = full();
    let dropped = full.local_addr().expect("it is bound");
    stage.sockets.extend(waiting);
    let talk = Talk::Tls(stage.cart().server(&[&stage.ca], rustls::ALL_VERSIONS), always(Reply::ok("beans 1\n")));
    vec![
        Row::rewritten(
            Reason::NameResolution,
            well.clone().at("nobody.invalid:15092"),
            "pods are best addressed by IP",
            well.clone(),
        ),
        Row {
            reason: Reason::ConnectRefused,
            job: stage.job(off),
            asks: "ENVOY_SECURE_MERGED_METRICS_PORT",
            mend: Mend::Anew,
        },
        Row {
            reason: Reason::ConnectTimeout,
            job: stage.job(dropped),
            asks: "packets are dropped on the way",
            mend: Mend::Accepting(full, talk),
        },
        Row::rewritten(
            Reason::ConnectFailed,
            well.clone().at("255.255.255.255:15092"),
            "check the address, and the route from this node to the pod",
            well,
        ),
    ]
}

/// A socket whose queue is full, so that the kernel drops who comes, and those who wait in it.
fn full() -> (TcpListener, Vec<TcpStream>) {
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None);
    let socket = socket.expect("a socket");
    rustix::net::bind(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("a free port");
    rustix::net::listen(&socket, 0).expect("it listens");
    let socket = TcpListener::from(socket);
    let address = socket.local_addr().expect("it is bound");
    let mut waiting = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
        waiting.push(stream);
    }
    (socket, waiting)
}
