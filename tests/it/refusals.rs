//! One test per way to refuse: against a real server that does exactly one thing wrong, the scrape fails for exactly the
//! reason that says so, and nothing that the server sends is handed out.
//!
//! [`SCENARIOS`] is a plain table, so that other chapters can put the same servers before a whole agent. Each row's
//! server is the one of [`GOOD`] with one thing changed; `GOOD` itself is scraped, which shows that the rows fail for
//! what they change and for nothing else.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use meshscrape::connect::{Client, SpiffeClient};
use meshscrape::identity::Credentials;
use meshscrape::model::{Address, ExitClass, Failure, Peer, Reason, SpiffeId};
use tokio::sync::watch;

use crate::support::ca::refused_leaves;
use crate::support::mesh::{CART, Mesh, ONLY_12, ONLY_13, get, scrape};
use crate::support::tls_server::{Reply, Script, Server, Talk, Then, always, closed_port};

/// What every server of this chapter says if it is believed. No test may ever see it stored.
pub(crate) const MARKER: &str = "refused_marker 424242\n";

/// Longer than any test: a scrape with this timeout ends by something else, or by a paused clock.
const LONG: Duration = Duration::from_secs(60);

/// One way to fail.
pub(crate) struct Scenario {
    /// What is wrong.
    pub(crate) name: &'static str,
    /// Starts what is needed for it.
    pub(crate) stage: fn(&Mesh) -> Stage,
    /// The reason that must come out.
    pub(crate) reason: Reason,
    /// The test of this chapter that stages it.
    pub(crate) test: &'static str,
}

/// A scenario's servers, running.
pub(crate) struct Stage {
    /// What to scrape; [`CART`] must answer.
    pub(crate) address: Address,
    pub(crate) path: &'static str,
    /// The server behind `address`.
    pub(crate) server: Option<Server>,
    /// Servers that nobody may connect to.
    pub(crate) bystanders: Vec<Server>,
    /// The server never answers: the scrape ends when its time has run out.
    pub(crate) hangs: bool,
    _port: Option<tokio::net::TcpSocket>,
}

impl Stage {
    fn with(server: Server) -> Self {
        let address = server.address();
        Self { address, path: "/stats/prometheus", server: Some(server), bystanders: vec![], hangs: false, _port: None }
    }

    fn talk(talk: Talk) -> Self {
        Self::with(Server::start(talk))
    }

    /// The right workload, with this reply to everything.
    fn cart(mesh: &Mesh, reply: Reply) -> Self {
        let hangs = reply.then == Then::Hang;
        Self { hangs, ..Self::talk(Talk::Tls(mesh.cart(), always(reply))) }
    }

    fn hanging(talk: Talk) -> Self {
        Self { hangs: true, ..Self::talk(talk) }
    }

    /// Another leaf of the right CA, from the table that identity is tested with.
    fn leaf(mesh: &Mesh, name: &str) -> Self {
        let (_, leaf, _) =
            refused_leaves(&mesh.ca, CART).into_iter().find(|(row, ..)| *row == name).expect("a row of refused_leaves");
        Self::talk(Talk::Tls(mesh.tls(&leaf), good()))
    }

    /// The right workload redirects to a place on another server of the right workload.
    fn redirect(mesh: &Mesh, status: u16, place: fn(&Server, &Server) -> String) -> Self {
        let elsewhere = Server::start_at((Ipv4Addr::new(127, 0, 0, 2), 0).into(), Talk::Tls(mesh.cart(), good()));
        let plain = Server::start(Talk::Plain(good()));
        let location = place(&elsewhere, &plain);
        let script: Script = Arc::new(move |_| Reply::redirect(status, &location));
        Self { bystanders: vec![elsewhere, plain], ..Self::talk(Talk::Tls(mesh.cart(), script)) }
    }
}

fn good() -> Script {
    always(Reply::ok(MARKER))
}

/// The scenario that does not fail.
fn good_stage(mesh: &Mesh) -> Stage {
    Stage::cart(mesh, Reply::ok(MARKER))
}

/// Declares the table and a test for each of its rows.
macro_rules! scenarios {
    ($($test:ident, $name:literal, $reason:ident, $stage:expr;)+) => {
        /// Every way to fail, the server that fails so, and the reason.
        pub(crate) const SCENARIOS: &[Scenario] =
            &[$(Scenario { name: $name, stage: $stage, reason: Reason::$reason, test: stringify!($test) },)+];

        $(
            #[tokio::test]
            async fn $test() {
                refuse(SCENARIOS.iter().find(|row| row.name == $name).expect("it is a row")).await;
            }
        )+
    };
}

scenarios! {
    another_service_account, "another service account", IdentityMismatch,
        |mesh| Stage::leaf(mesh, "another service account");
    id_and_more, "the id and more", IdentityMismatch, |mesh| Stage::leaf(mesh, "the id and more");
    id_and_a_segment_more, "the id and a segment more", IdentityMismatch,
        |mesh| Stage::leaf(mesh, "the id and a segment more");
    id_without_its_end, "the id without its end", IdentityMismatch, |mesh| Stage::leaf(mesh, "the id without its end");
    id_behind_something, "the id behind something", IdentityMismatch,
        |mesh| Stage::leaf(mesh, "the id behind something");
    id_in_other_case, "the id in other case", IdentityMismatch, |mesh| Stage::leaf(mesh, "the id in other case");
    another_trust_domain, "another trust domain", IdentityMismatch, |mesh| Stage::leaf(mesh, "another trust domain");
    trust_domain_begins_alike, "a trust domain that begins alike", IdentityMismatch,
        |mesh| Stage::leaf(mesh, "a trust domain that begins alike");
    expired, "expired", CertificateExpired, |mesh| Stage::leaf(mesh, "expired");
    not_yet_valid, "not yet valid", CertificateNotYetValid, |mesh| Stage::leaf(mesh, "not yet valid");
    no_names, "no names", NoSpiffeId, |mesh| Stage::leaf(mesh, "no names");
    host_name_only, "a host name only", NoSpiffeId, |mesh| Stage::leaf(mesh, "a host name only");
    address_only, "an address only", NoSpiffeId, |mesh| Stage::leaf(mesh, "an address only");
    two_uris, "two URIs", InvalidSvid, |mesh| Stage::leaf(mesh, "two URIs");
    same_uri_twice, "the same URI twice", InvalidSvid, |mesh| Stage::leaf(mesh, "the same URI twice");
    second_uri_not_utf8, "a second URI that is not UTF-8", InvalidSvid,
        |mesh| Stage::leaf(mesh, "a second URI that is not UTF-8");
    two_name_extensions, "two name extensions", InvalidSvid, |mesh| Stage::leaf(mesh, "two name extensions");
    uri_of_another_scheme, "a URI of another scheme", InvalidSvid, |mesh| Stage::leaf(mesh, "a URI of another scheme");
    scheme_in_capitals, "a scheme in capitals", InvalidSvid, |mesh| Stage::leaf(mesh, "a scheme in capitals");
    trust_domain_only, "a trust domain only", InvalidSvid, |mesh| Stage::leaf(mesh, "a trust domain only");
    slash_at_the_end, "a slash at the end", InvalidSvid, |mesh| Stage::leaf(mesh, "a slash at the end");
    nul_behind_the_id, "a NUL behind the id", InvalidSvid, |mesh| Stage::leaf(mesh, "a NUL behind the id");
    uri_of_4_kib, "a URI of 4 KiB", InvalidSvid, |mesh| Stage::leaf(mesh, "a URI of 4 KiB");
    a_ca_as_leaf, "a CA", InvalidSvid, |mesh| Stage::leaf(mesh, "a CA");
    no_key_usage, "no key usage", InvalidSvid, |mesh| Stage::leaf(mesh, "no key usage");
    no_digital_signature, "no digitalSignature", InvalidSvid, |mesh| Stage::leaf(mesh, "no digitalSignature");
    key_cert_sign, "keyCertSign", InvalidSvid, |mesh| Stage::leaf(mesh, "keyCertSign");
    crl_sign, "cRLSign", InvalidSvid, |mesh| Stage::leaf(mesh, "cRLSign");
    for_clients_only, "for clients only", InvalidSvid, |mesh| Stage::leaf(mesh, "for clients only");

    other_ca_right_id, "the right id from another CA of the same name", UnknownAuthority,
        |mesh| Stage::talk(Talk::Tls(mesh.tls(&mesh.other.leaf(CART)), good()));
    client_certificate_refused, "our certificate is refused", ClientCertificateRejected,
        |mesh| Stage::talk(Talk::Tls(mesh.ca.leaf(CART).server(&[&mesh.other], mesh.versions), good()));

    plaintext_server, "a plaintext server", PlaintextServer, |_| Stage::talk(Talk::Plain(good()));
    garbage_for_a_greeting, "garbage for a greeting", PlaintextServer,
        |_| Stage::talk(Talk::Babble(b"220 mail.example ESMTP\r\n".to_vec()));
    closed_in_the_handshake, "closed in the handshake", ClosedInHandshake, |_| Stage::talk(Talk::CloseInHandshake);
    reset_in_the_handshake, "reset in the handshake", ClosedInHandshake, |_| Stage::talk(Talk::ResetInHandshake);
    cut_inside_a_record, "cut inside a TLS record", ClosedInHandshake,
        |_| Stage::talk(Talk::Babble(vec![22, 3, 3, 0x40, 0, 2, 0]));
    garbage_inside_a_record, "garbage inside a TLS record", TlsHandshake,
        |_| Stage::talk(Talk::Babble([&[22, 3, 3, 0, 64][..], &[0xff; 64]].concat()));
    nobody_listens, "nobody listens", ConnectRefused, |_| {
        let (port, address) = closed_port();
        Stage { address, path: "/metrics", server: None, bystanders: vec![], hangs: false, _port: Some(port) }
    };

    hang_before_the_handshake, "a hang before the handshake", Timeout, |_| Stage::hanging(Talk::HangBeforeHandshake);
    hang_in_the_handshake, "a hang in the handshake", Timeout, |_| Stage::hanging(Talk::HangInHandshake);
    hang_before_the_answer, "a hang before the answer", Timeout, |mesh| Stage::cart(mesh, Reply::raw("", Then::Hang));
    hang_in_the_headers, "a hang in the headers", Timeout,
        |mesh| Stage::cart(mesh, Reply::raw("HTTP/1.1 200 OK\r\nContent-T", Then::Hang));
    hang_after_the_headers, "a hang after the headers", Timeout,
        |mesh| Stage::cart(mesh, Reply::raw("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 22\r\n\r\n", Then::Hang));
    hang_in_the_body, "a hang in the body", Timeout, |mesh| {
        Stage::cart(mesh, Reply::raw(format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 1000\r\n\r\n{MARKER}"), Then::Hang))
    };

    closed_after_the_handshake, "closed after the handshake", ClosedAfterHandshake,
        |mesh| Stage::cart(mesh, Reply::raw("", Then::Close));
    cut_after_the_handshake, "cut after the handshake", ClosedAfterHandshake,
        |mesh| Stage::cart(mesh, Reply::raw("", Then::Cut));
    reset_after_the_handshake, "reset after the handshake", ClosedAfterHandshake,
        |mesh| Stage::cart(mesh, Reply::raw("", Then::Reset));

    headers_break_off, "the headers break off", HttpProtocol,
        |mesh| Stage::cart(mesh, Reply::raw("HTTP/1.1 200 OK\r\nContent-T", Then::Close));
    not_http, "not HTTP inside TLS", HttpProtocol, |mesh| Stage::cart(mesh, Reply::raw(MARKER, Then::Close));
    headers_too_large, "headers of 17 KiB", HttpProtocol, |mesh| {
        let header = format!("X-Much: {}", "x".repeat(17 * 1024));
        Stage::cart(mesh, Reply::with("200 OK", &[&header], MARKER))
    };
    body_shorter_than_its_length, "a body shorter than its Content-Length", HttpProtocol, |mesh| {
        Stage::cart(mesh, Reply::raw(format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 1000\r\n\r\n{MARKER}"), Then::Close))
    };
    chunks_without_an_end, "chunks without the last one", HttpProtocol, |mesh| {
        let chunk = format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{MARKER}\r\n", MARKER.len());
        Stage::cart(mesh, Reply::raw(chunk, Then::Close))
    };
    body_cut_by_somebody_on_the_path, "a body that ends without close_notify", HttpProtocol, |mesh| {
        Stage::cart(mesh, Reply::raw(format!("HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n{MARKER}"), Then::Cut))
    };

    redirect_to_another_address, "a redirect to another address", RedirectRefused, |mesh| Stage::redirect(mesh, 302,
        |elsewhere, _| format!("https://{}/metrics", elsewhere.socket()));
    redirect_to_another_port, "a redirect to another port", RedirectRefused, |mesh| Stage::redirect(mesh, 301,
        |_, plain| format!("https://{}/metrics", plain.socket()));
    redirect_to_http, "a redirect to http", RedirectRefused, |mesh| Stage::redirect(mesh, 307,
        |_, plain| format!("http://{}/metrics", plain.socket()));
    redirect_to_a_metadata_address, "a redirect to a metadata address", RedirectRefused,
        |mesh| Stage::redirect(mesh, 303, |_, _| "http://169.254.169.254/latest/meta-data/".to_owned());
    redirect_in_a_circle, "a redirect in a circle", RedirectRefused,
        |mesh| Stage::redirect(mesh, 308, |_, _| "/stats/prometheus".to_owned());
}

/// Puts a scenario before a client, once per version of TLS.
async fn refuse(scenario: &Scenario) {
    for versions in [ONLY_13, ONLY_12] {
        let mesh = Mesh::new(versions).await;
        let stage = (scenario.stage)(&mesh);
        let (failure, handed_out) = attempt(&mesh, &stage).await.expect_err(scenario.name);
        assert_eq!(failure.reason, scenario.reason, "{}: {failure}", scenario.name);
        assert_eq!(failure.expected.as_deref(), Some(CART), "{}: {failure}", scenario.name);
        if failure.reason.class() == ExitClass::Identity {
            assert_eq!(handed_out, 0, "{}: bytes of an unverified peer were handed out", scenario.name);
            let asked = stage.server.as_ref().map_or(0, |server| server.requests().len());
            let verified = matches!(failure.reason, Reason::ClosedAfterHandshake | Reason::ClientCertificateRejected);
            assert!(verified || asked == 0, "{}: a request was written to an unverified peer", scenario.name);
        }
        for bystander in &stage.bystanders {
            assert_eq!(bystander.connections(), 0, "{}: a second host was dialled", scenario.name);
        }
    }
}

/// One scrape of a stage by a client that accepts [`CART`] only.
async fn attempt(mesh: &Mesh, stage: &Stage) -> Result<Vec<u8>, (Failure, usize)> {
    let mut client = mesh.client();
    let request = get(&stage.address, stage.path, LONG);
    let Some(server) = stage.server.as_ref().filter(|_| stage.hangs) else {
        return scrape(&mut client, &request).await;
    };
    // Time stands still until the server hangs, and then runs to the deadline at once.
    let run_out = async {
        server.hanging().await;
        tokio::time::pause();
        std::future::pending().await
    };
    let outcome = tokio::select! { outcome = scrape(&mut client, &request) => outcome, never = run_out => never };
    tokio::time::resume();
    outcome
}

#[tokio::test]
async fn the_server_that_does_nothing_wrong_is_scraped() {
    for versions in [ONLY_13, ONLY_12] {
        let mesh = Mesh::new(versions).await;
        let body = attempt(&mesh, &good_stage(&mesh)).await.expect("nothing is wrong");
        assert_eq!(body, MARKER.as_bytes());
    }
}

#[tokio::test]
async fn every_leaf_that_identity_refuses_has_a_row() {
    let mesh = Mesh::new(ONLY_13).await;
    for (name, _, reason) in refused_leaves(&mesh.ca, CART) {
        let row = SCENARIOS.iter().find(|row| row.name == name);
        assert_eq!(row.map(|row| row.reason), Some(reason), "{name}");
    }
}

#[tokio::test]
async fn the_timeout_names_the_phase_that_took_the_time() {
    let mesh = Mesh::new(ONLY_13).await;
    for (name, words) in [
        ("a hang before the handshake", "the TLS handshake did not finish"),
        ("a hang in the handshake", "the TLS handshake did not finish"),
        ("a hang before the answer", "no answer to the request"),
        ("a hang in the headers", "no answer to the request"),
        ("a hang after the headers", "the body did not end, 0 bytes"),
        ("a hang in the body", "the body did not end, 22 bytes"),
    ] {
        let row = SCENARIOS.iter().find(|row| row.name == name).expect(name);
        let (failure, _) = attempt(&mesh, &(row.stage)(&mesh)).await.expect_err(name);
        assert!(failure.detail.contains(words), "{name}: {failure}");
        assert!(failure.detail.contains("connect took"), "{name}: {failure}");
    }
}

#[tokio::test]
async fn no_status_that_redirects_leads_anywhere_else() {
    let mesh = Mesh::new(ONLY_13).await;
    let places: [fn(&Server, &Server) -> String; 6] = [
        |elsewhere, _| format!("https://{}/metrics", elsewhere.socket()),
        |elsewhere, _| format!("//{}/metrics", elsewhere.socket()),
        |_, plain| format!("https://{}/metrics", plain.socket()),
        |_, plain| format!("http://{}/metrics", plain.socket()),
        |_, _| "https://169.254.169.254/".to_owned(),
        |elsewhere, _| format!("https://x@{}/metrics", elsewhere.socket()),
    ];
    for status in [301, 302, 303, 307, 308] {
        for place in places {
            let stage = Stage::redirect(&mesh, status, place);
            let (failure, bytes) = attempt(&mesh, &stage).await.expect_err("it leads elsewhere");
            assert_eq!((failure.reason, bytes), (Reason::RedirectRefused, 0), "{status}: {failure}");
            assert!(stage.bystanders.iter().all(|bystander| bystander.connections() == 0), "{status}: {failure}");
            let asked = stage.server.as_ref().map_or(0, |server| server.requests().len());
            assert_eq!(asked, 1, "{status}: the place was asked for on this connection instead: {failure}");
        }
    }
}

#[tokio::test]
async fn without_a_certificate_of_our_own_nothing_is_dialled() {
    let mesh = Mesh::new(ONLY_13).await;
    let stage = good_stage(&mesh);
    let (_sender, nothing_loaded) = watch::channel(Arc::new(Credentials::default()));
    let peer = Peer::exactly(SpiffeId::parse(CART).expect("well-formed"));
    let mut client = Client::Spiffe(SpiffeClient::new(peer, nothing_loaded, mesh.clock.clone(), true, None));
    let failure = client.get(&get(&stage.address, stage.path, LONG)).await.expect_err("no certificate");
    assert_eq!(failure.reason, Reason::NoOwnCertificate);
    assert_eq!(stage.server.expect("it runs").connections(), 0);
}
