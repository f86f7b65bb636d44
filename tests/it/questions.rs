//! One question to a port: whoever answers over TLS is verified, whatever of ours was shown, and no more comes of it than a
//! status.

use std::net::SocketAddr;
use std::time::Duration;

use meshscrape::connect::{Answered, PlainAnswer, Shown, ask_plainly, ask_verified};
use meshscrape::model::{Address, Alpn, Failure, Peer, Reason, SpiffeId};

use crate::support::ca::LeafSpec;
use crate::support::envoy::{Envoy, ListenerSpec};
use crate::support::mesh::{CART, Mesh, ONLY_12, ONLY_13, get};
use crate::support::tls_server::{Reply, Server, Talk, Then, always, closed_port};

/// Longer than anything takes on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(30);

async fn ask(mesh: &Mesh, address: &Address, shown: Shown) -> Result<Answered, Failure> {
    let peer = Peer::exactly(SpiffeId::parse(CART).expect("well-formed"));
    let credentials = mesh.identity.current();
    let request = get(address, "/stats/prometheus", PATIENCE);
    ask_verified(&request, &peer, &credentials, shown, &Alpn::default(), &mesh.clock).await.map_err(|none| none.failure)
}

fn reason(answered: Result<Answered, Failure>) -> Option<Reason> {
    answered.err().map(|failure| failure.reason)
}

fn address(socket: SocketAddr) -> Address {
    Address::parse(&socket.to_string()).expect("a socket address is an address")
}

#[tokio::test(flavor = "multi_thread")]
async fn who_answers_is_verified_also_where_no_certificate_of_ours_is_shown() {
    let mesh = Mesh::new(ONLY_13).await;
    let open = |id: &str| {
        let leaf = mesh.ca.leaf(id);
        Server::start(Talk::Tls(leaf.open_server(), always(Reply::ok("x 1\n"))))
    };
    let (cart, other) = (open(CART), open("spiffe://cluster.local/ns/shop/sa/other"));
    let leaf = mesh.other.issue(&LeafSpec::of(CART));
    let foreign = Server::start(Talk::Tls(leaf.open_server(), always(Reply::ok("x 1\n"))));
    for shown in [Shown::OurCertificate, Shown::Nothing] {
        let answered = ask(&mesh, &cart.address(), shown).await.expect("an answer");
        assert_eq!((answered.status, answered.peer.identity.as_str()), (200, CART));
        assert_eq!(reason(ask(&mesh, &other.address(), shown).await), Some(Reason::IdentityMismatch));
        assert_eq!(reason(ask(&mesh, &foreign.address(), shown).await), Some(Reason::UnknownAuthority));
    }
    assert_eq!((cart.requests().len(), other.requests().len(), foreign.requests().len()), (2, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_verified_is_told_also_where_no_answer_comes() {
    let mesh = Mesh::new(ONLY_13).await;
    let silent = |id: &str| Server::start(Talk::Tls(mesh.tls(&mesh.ca.leaf(id)), always(Reply::raw("", Then::Close))));
    let (cart, other) = (silent(CART), silent("spiffe://cluster.local/ns/shop/sa/other"));
    let peer = Peer::exactly(SpiffeId::parse(CART).expect("well-formed"));
    for (server, reason, seen) in
        [(&cart, Reason::ClosedAfterHandshake, Some(CART)), (&other, Reason::IdentityMismatch, None)]
    {
        let request = get(&server.address(), "/stats/prometheus", PATIENCE);
        let credentials = mesh.identity.current();
        let asked =
            ask_verified(&request, &peer, &credentials, Shown::OurCertificate, &Alpn::default(), &mesh.clock).await;
        let none = asked.expect_err("no answer");
        assert_eq!((none.failure.reason, none.peer.as_ref().map(|peer| &*peer.identity)), (reason, seen));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_wants_a_certificate_refuses_whoever_shows_none() {
    let mesh = Mesh::new(ONLY_13).await;
    let spec = ListenerSpec::stats("stats", &mesh.ca.leaf(CART), &[&mesh.ca]);
    let envoy = Envoy::start(&[spec]).await;
    let stats = address(envoy.address("stats"));
    assert_eq!(ask(&mesh, &stats, Shown::OurCertificate).await.map(|answered| answered.status), Ok(200));
    assert_eq!(reason(ask(&mesh, &stats, Shown::Nothing).await), Some(Reason::ClientCertificateRejected));
    for versions in [ONLY_12, ONLY_13] {
        let mesh = Mesh::new(versions).await;
        let server = Server::start(Talk::Tls(mesh.cart(), always(Reply::ok("x 1\n"))));
        let refused = reason(ask(&mesh, &server.address(), Shown::Nothing).await);
        assert!(matches!(refused, Some(Reason::ClientCertificateRejected | Reason::TlsHandshake)), "{refused:?}");
        assert_eq!(server.requests().len(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_is_answered_by_a_status_a_close_or_something_else() {
    let mesh = Mesh::new(ONLY_13).await;
    let leaf = mesh.ca.leaf(CART);
    let inner = ListenerSpec::stats("inner", &leaf, &[&mesh.ca]);
    let inner_envoy = Envoy::start(&[inner]).await;
    let inner = inner_envoy.address("inner");
    let envoy = Envoy::start(&[
        ListenerSpec::plain_stats("plain", &leaf),
        ListenerSpec::permissive("hop", &leaf, inner),
        ListenerSpec::legacy("legacy", &leaf, &[&mesh.ca]).and_plain(),
    ])
    .await;
    let babbling = Server::start(Talk::Babble(b"\x15\x03\x03\0\x02\x02\x50".to_vec()));
    let endless = Server::start(Talk::Plain(always(Reply::raw("", Then::Hang).flood(b"x".to_vec()))));
    for (socket, answer) in [
        (envoy.address("plain"), PlainAnswer::Status(200)),
        (envoy.address("legacy"), PlainAnswer::Status(200)),
        (envoy.address("hop"), PlainAnswer::Status(503)),
        (inner, PlainAnswer::Closed),
        (babbling.socket(), PlainAnswer::NotHttp),
        (endless.socket(), PlainAnswer::NotHttp),
    ] {
        let answered = ask_plainly(&get(&address(socket), "/stats/prometheus", PATIENCE)).await;
        assert_eq!(answered, Ok(answer), "{socket}");
    }
    assert_eq!(
        ask(&mesh, &address(envoy.address("hop")), Shown::OurCertificate).await.map(|seen| seen.status),
        Ok(200)
    );
    let (_held, closed) = closed_port();
    let refused = ask_plainly(&get(&closed, "/stats/prometheus", PATIENCE)).await.expect_err("nobody is there");
    assert_eq!(refused.reason, Reason::ConnectRefused);
    let silent = Server::start(Talk::HangBeforeHandshake);
    let late = ask_plainly(&get(&silent.address(), "/", Duration::from_secs(1))).await.expect_err("nothing comes");
    assert_eq!(late.reason, Reason::Timeout);
}

/// To Istio's agent, whoever hangs up half way is a scrape that failed.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_taken_to_its_end() {
    let mesh = Mesh::new(ONLY_13).await;
    // More than lies in sockets.
    let long = "x".repeat(32 * 1024 * 1024);
    let reply = || always(Reply::ok(&long).then(Then::Cut));
    let verified = Server::start(Talk::Tls(mesh.cart(), reply()));
    assert_eq!(ask(&mesh, &verified.address(), Shown::OurCertificate).await.map(|answered| answered.status), Ok(200));
    let plain = Server::start(Talk::Plain(reply()));
    let request = get(&plain.address(), "/stats/prometheus", PATIENCE);
    assert_eq!(ask_plainly(&request).await, Ok(PlainAnswer::Status(200)));
    for server in [verified, plain] {
        let taken = tokio::time::timeout(PATIENCE, server.taken()).await;
        assert!(taken.is_ok(), "it was hung up on");
    }
    // What has no end is left, and the answer is as good.
    let endless = Server::start(Talk::Plain(always(Reply::raw("HTTP/1.1 200 OK\r\n\r\n", Then::Hang))));
    let request = get(&endless.address(), "/stats/prometheus", Duration::from_secs(1));
    assert_eq!(ask_plainly(&request).await, Ok(PlainAnswer::Status(200)));
}
