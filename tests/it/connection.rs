//! Connections: what a kept one may and may not do, and that it ends with what verified it.

mod ordinary;

use std::sync::Arc;
use std::time::Duration;

use meshscrape::config::{Auth, HttpHeader, SecretSource};
use meshscrape::connect::{Client, SpiffeClient};
use meshscrape::model::{Address, Peer, Reason, SpiffeId};

use crate::support::ca::LeafSpec;
use crate::support::mesh::{CART, Mesh, ONLY_12, ONLY_13, SCRAPER, get, scrape};
use crate::support::tls_server::{Asked, Reply, Script, Server, Talk, Then, always};

const BODY: &str = "requests_total 1\n";
const SOON: Duration = Duration::from_secs(60);

fn cart(mesh: &Mesh, script: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Server {
    Server::start(Talk::Tls(mesh.cart(), Arc::new(script)))
}

#[tokio::test]
async fn one_connection_serves_many_scrapes() {
    for (versions, version, suite) in [(ONLY_13, "TLSv1.3", "TLS_AES_"), (ONLY_12, "TLSv1.2", "TLS_ECDHE_")] {
        let mesh = Mesh::new(versions).await;
        let server = cart(&mesh, |_| Reply::ok(BODY));
        let mut client = mesh.client();
        for round in 0..3 {
            let request = get(&server.address(), "/stats/prometheus?usedonly", SOON);
            let mut response = client.get(&request).await.expect("a good peer");
            let peer = response.peer.take().expect("it was verified");
            assert_eq!((peer.identity.as_str(), peer.exact, peer.tls_version.as_str()), (CART, true, version));
            assert!(peer.cipher.starts_with(suite), "{}", peer.cipher);
            assert!(peer.chain[0].contains(CART), "{:?}", peer.chain);
            let phases = response.phases;
            assert_eq!((phases.connect.is_some(), phases.tls.is_some()), (round == 0, round == 0), "round {round}");
            assert!(phases.first_byte.is_some_and(|first_byte| first_byte <= phases.total));
            while response.body.chunk().await.expect("a whole body").is_some() {}
            drop(response);
            client.confirm().expect("nothing has changed");
        }
        assert_eq!((server.connections(), server.requests().len()), (1, 3));
        let asked = &server.requests()[0];
        assert_eq!(asked.path(), "/stats/prometheus?usedonly");
        assert_eq!(asked.header("host"), Some(server.address().to_string().as_str()));
    }
}

#[tokio::test]
async fn a_name_is_resolved_and_sent_as_host() {
    let mesh = Mesh::new(ONLY_13).await;
    let server = cart(&mesh, |_| Reply::ok(BODY));
    let address = Address::parse(&format!("localhost:{}", server.port())).expect("an address");
    scrape(&mut mesh.client(), &get(&address, "/metrics", SOON)).await.expect("a good peer");
    assert_eq!(server.requests()[0].header("host"), Some(address.to_string().as_str()));
}

#[tokio::test]
async fn a_connection_that_the_peer_closed_while_idle_is_replaced() {
    for end in [Then::Close, Then::Cut, Then::Reset] {
        let mesh = Mesh::new(ONLY_13).await;
        let server = cart(&mesh, move |_| Reply::ok(BODY).then(end));
        let mut client = mesh.client();
        for _ in 0..3 {
            let body = scrape(&mut client, &get(&server.address(), "/metrics", SOON)).await;
            assert_eq!(body.expect("nobody notices"), BODY.as_bytes(), "{end:?}");
        }
        assert_eq!(server.connections(), 3, "{end:?}");
    }
}

#[tokio::test]
async fn a_request_that_a_kept_connection_swallowed_is_sent_again() {
    for end in [Then::Close, Then::Cut, Then::Reset] {
        let mesh = Mesh::new(ONLY_13).await;
        let server = cart(&mesh, move |asked| match asked.earlier_here {
            0 => Reply::ok(BODY),
            _ => Reply::raw("", end),
        });
        let mut client = mesh.client();
        for _ in 0..2 {
            scrape(&mut client, &get(&server.address(), "/metrics", SOON)).await.expect("nobody notices");
        }
        assert_eq!((server.connections(), server.requests().len()), (2, 3), "{end:?}");
    }
}

#[tokio::test]
async fn nothing_is_sent_again_once_a_byte_came_or_on_a_new_connection() {
    let mesh = Mesh::new(ONLY_13).await;
    let swallows = cart(&mesh, |_| Reply::raw("", Then::Close));
    let (failure, _) =
        scrape(&mut mesh.client(), &get(&swallows.address(), "/metrics", SOON)).await.expect_err("no answer");
    assert_eq!((failure.reason, swallows.connections()), (Reason::ClosedAfterHandshake, 1));

    let stutters = cart(&mesh, |asked| match asked.earlier_here {
        0 => Reply::ok(BODY),
        _ => Reply::raw("HTTP/1.1 2", Then::Close),
    });
    let mut client = mesh.client();
    let request = get(&stutters.address(), "/metrics", SOON);
    scrape(&mut client, &request).await.expect("the first is whole");
    let (failure, _) = scrape(&mut client, &request).await.expect_err("half an answer");
    assert_eq!((failure.reason, stutters.connections()), (Reason::HttpProtocol, 1));
}

#[tokio::test]
async fn an_answer_left_unread_takes_its_connection_with_it() {
    let mesh = Mesh::new(ONLY_13).await;
    let server = cart(&mesh, |_| Reply::ok(BODY));
    let mut client = mesh.client();
    let request = get(&server.address(), "/metrics", SOON);
    drop(client.get(&request).await.expect("a good peer"));
    assert_eq!(scrape(&mut client, &request).await.expect("a good peer"), BODY.as_bytes());
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn a_scrape_given_up_leaves_nothing_for_the_next() {
    let mesh = Mesh::new(ONLY_13).await;
    let server = cart(&mesh, |asked| match asked.path() {
        "/slow" => Reply::raw("HTTP/1.1 200 OK\r\n", Then::Hang),
        _ => Reply::ok(BODY),
    });
    let mut client = mesh.client();
    let slow = get(&server.address(), "/slow", SOON);
    tokio::select! {
        _ = client.get(&slow) => unreachable!("the answer has no end"),
        () = server.hanging() => {}
    }
    let body = scrape(&mut client, &get(&server.address(), "/metrics", SOON)).await.expect("a good peer");
    assert_eq!((body.as_slice(), server.connections()), (BODY.as_bytes(), 2));
}

#[tokio::test]
async fn new_credentials_mean_exactly_one_new_handshake() {
    let mesh = Mesh::new(ONLY_13).await;
    let server = cart(&mesh, |_| Reply::ok(BODY));
    let mut client = mesh.client();
    let request = get(&server.address(), "/metrics", SOON);
    for handshakes in [1, 1] {
        scrape(&mut client, &request).await.expect("a good peer");
        assert_eq!(server.handshakes(), handshakes);
    }
    mesh.reload(|certs| certs.write_leaf(&mesh.ca.leaf(SCRAPER))).await;
    for handshakes in [2, 2] {
        scrape(&mut client, &request).await.expect("a good peer");
        assert_eq!(server.handshakes(), handshakes, "after our own certificate changed");
    }
    mesh.reload(|certs| certs.write_roots(&[&mesh.ca, &mesh.other])).await;
    for handshakes in [3, 3] {
        scrape(&mut client, &request).await.expect("a good peer");
        assert_eq!(server.handshakes(), handshakes, "after a root was added");
    }
}

#[tokio::test]
async fn what_was_read_does_not_count_once_its_root_is_withdrawn() {
    let mesh = Mesh::new(ONLY_13).await;
    let server = cart(&mesh, |_| Reply::ok(BODY));
    let mut client = mesh.client();
    let request = get(&server.address(), "/metrics", SOON);
    let mut body = client.get(&request).await.expect("a good peer").body;
    while body.chunk().await.expect("a whole body").is_some() {}
    drop(body);
    mesh.reload(|certs| certs.write_roots(&[&mesh.other])).await;
    assert_eq!(client.confirm().expect_err("withdrawn").reason, Reason::VerificationEnded);
    let (failure, _) = scrape(&mut client, &request).await.expect_err("withdrawn");
    assert_eq!((failure.reason, server.handshakes()), (Reason::UnknownAuthority, 1));
}

#[tokio::test]
async fn our_own_rotation_does_not_spoil_an_answer_being_read() {
    let mesh = Mesh::new(ONLY_13).await;
    let server = cart(&mesh, |_| Reply::ok(BODY));
    let mut client = mesh.client();
    let mut body = client.get(&get(&server.address(), "/metrics", SOON)).await.expect("a good peer").body;
    mesh.reload(|certs| certs.write_leaf(&mesh.ca.leaf(SCRAPER))).await;
    while body.chunk().await.expect("a whole body").is_some() {}
    drop(body);
    client.confirm().expect("the peer is still who it was");
}

#[tokio::test]
async fn a_connection_ends_with_the_certificate_of_its_peer() {
    let mesh = Mesh::new(ONLY_13).await;
    let leaf = mesh.ca.issue(&LeafSpec::of(CART).valid(-120, 600));
    let server = Server::start(Talk::Tls(mesh.tls(&leaf), always(Reply::ok(BODY))));
    let mut client = mesh.client();
    let request = get(&server.address(), "/metrics", SOON);
    scrape(&mut client, &request).await.expect("still valid");
    mesh.clock.shift(700_000);
    assert_eq!(client.confirm().expect_err("ended").reason, Reason::VerificationEnded);
    let (failure, _) = scrape(&mut client, &request).await.expect_err("ended");
    assert_eq!(failure.reason, Reason::CertificateExpired, "{failure}");
    assert_eq!((server.connections(), server.requests().len()), (2, 1), "nothing more is asked of it");
}

#[tokio::test]
async fn redirects_to_the_same_place_are_followed_on_the_same_connection() {
    let mesh = Mesh::new(ONLY_13).await;
    for status in [301, 302, 303, 307, 308] {
        let server = cart(&mesh, move |asked| match asked.path() {
            "/metrics" => Reply::redirect(status, "/stats"),
            "/stats" => Reply::redirect(status, &format!("https://{}/end", asked.header("host").expect("a host"))),
            _ => Reply::ok(BODY),
        });
        let body = scrape(&mut mesh.client(), &get(&server.address(), "/metrics", SOON)).await;
        assert_eq!(body.expect("the same peer"), BODY.as_bytes(), "{status}");
        assert_eq!((server.connections(), server.requests().len()), (1, 3), "{status}");
    }
}

#[tokio::test]
async fn redirects_that_cannot_be_followed_here_are_refused() {
    let mesh = Mesh::new(ONLY_13).await;
    let further = |asked: &Asked| Reply::redirect(302, &format!("{}x", asked.path()));
    let huge = |_: &Asked| Reply::with("302 Found", &["Location: /x"], &"x".repeat(65 * 1024));
    let closing = |_: &Asked| Reply::with("302 Found", &["Location: /x", "Connection: close"], "").then(Then::Close);
    let nowhere = |_: &Asked| Reply::with("302 Found", &[], "");
    let scripts: [(&str, usize, Script); 4] = [
        ("more than 10", 11, Arc::new(further)),
        ("64 KiB", 1, Arc::new(huge)),
        ("same connection", 1, Arc::new(closing)),
        ("no Location", 1, Arc::new(nowhere)),
    ];
    for (words, requests, script) in scripts {
        let server = Server::start(Talk::Tls(mesh.cart(), script));
        let (failure, _) =
            scrape(&mut mesh.client(), &get(&server.address(), "/m", SOON)).await.expect_err("not followed");
        assert_eq!(failure.reason, Reason::RedirectRefused, "{failure}");
        assert!(failure.detail.contains(words), "{failure}");
        assert_eq!((server.connections(), server.requests().len()), (1, requests), "{words}");
    }
}

#[tokio::test]
async fn a_redirect_is_an_answer_where_redirects_are_not_followed() {
    let mesh = Mesh::new(ONLY_13).await;
    let server = cart(&mesh, |_| Reply::redirect(302, "/elsewhere"));
    let mut client = mesh.spiffe_client(false);
    let response = client.get(&get(&server.address(), "/metrics", SOON)).await.expect("an answer");
    assert_eq!(response.status, 302);
}

#[tokio::test]
async fn credentials_are_read_anew_and_told_to_verified_peers_only() {
    let mesh = Mesh::new(ONLY_13).await;
    let token = mesh.certs.path().join("token");
    let auth = Auth::Authorization { kind: "Bearer".to_owned(), credentials: SecretSource::File(token.clone()) };
    let peer = Peer::exactly(SpiffeId::parse(CART).expect("well-formed"));
    let client = SpiffeClient::new(peer, mesh.identity.credentials(), mesh.clock.clone(), true, Some(auth));
    let header = HttpHeader {
        name: http::HeaderName::from_static("x-key"),
        value: SecretSource::File(token.clone()),
        secret: true,
    };
    let mut client = Client::Spiffe(client.adding(vec![header]));
    let server = cart(&mesh, |_| Reply::ok(BODY));
    let request = get(&server.address(), "/metrics", SOON);

    let (failure, _) = scrape(&mut client, &request).await.expect_err("there is no file");
    assert_eq!((failure.reason, server.connections()), (Reason::CredentialsUnreadable, 0));
    for word in ["one", "two"] {
        std::fs::write(&token, word).expect("a token");
        scrape(&mut client, &request).await.expect("a good peer");
        let asked = server.requests().pop().expect("it was asked");
        assert_eq!(asked.header("authorization"), Some(format!("Bearer {word}").as_str()));
        assert_eq!(asked.header("x-key"), Some(word));
    }
    let impostor = Server::start(Talk::Tls(mesh.tls(&mesh.ca.leaf(SCRAPER)), always(Reply::ok(BODY))));
    scrape(&mut client, &get(&impostor.address(), "/metrics", SOON)).await.expect_err("somebody else");
    assert!(impostor.requests().is_empty());
}
