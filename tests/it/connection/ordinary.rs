//! Jobs that do not verify SPIFFE IDs: chain and host name over `https`, nothing over `http`, and no way between.

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, COOKIE, USER_AGENT};
use http::{HeaderName, HeaderValue};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use meshscrape::clock::Clock;
use meshscrape::config::{Auth, ClientFiles, HttpHeader, NoProxy, OrdinaryTls, Proxies, Secret, SecretSource};
use meshscrape::connect::{Client, HostNameClient, OrdinarySettings, PlainClient, Request};
use meshscrape::model::{Address, Failure, Reason};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::{BODY, SOON};
use crate::support::ca::{Ca, HOUR, LeafSpec, Name};
use crate::support::mesh::{get, scrape};
use crate::support::proxy::Proxy;
use crate::support::tls_server::{Reply, Script, Server, Talk, Then, always, closed_port};

fn settings() -> OrdinarySettings {
    let credentials = SecretSource::Inline(Secret::new("canary"));
    let auth = Some(Auth::Authorization { kind: "Bearer".to_owned(), credentials });
    OrdinarySettings {
        timeout: SOON,
        follow_redirects: true,
        within_origin: false,
        http2: true,
        auth,
        tokens: None,
        http_headers: vec![HttpHeader {
            name: HeaderName::from_static("x-team"),
            value: SecretSource::Inline(Secret::new("canary-team")),
            secret: true,
        }],
        proxies: None,
    }
}

fn plain() -> Client {
    Client::Plain(PlainClient::new(settings()).expect("a client"))
}

/// A CA in a file, and what is verified with it.
struct Site {
    ca: Ca,
    directory: tempfile::TempDir,
    clock: Clock,
}

impl Site {
    fn new() -> Self {
        let site = Self {
            ca: Ca::new("site.example"),
            directory: tempfile::tempdir().expect("a temporary directory"),
            clock: Clock::system(),
        };
        site.write("ca.pem", &site.ca.pem());
        site
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.directory.path().join(name), text).expect("a file");
    }

    fn tls(&self) -> OrdinaryTls {
        OrdinaryTls { ca_file: Some(self.directory.path().join("ca.pem")), ..OrdinaryTls::default() }
    }

    fn client(&self, tls: OrdinaryTls) -> Client {
        Client::HostName(HostNameClient::new(settings(), tls, self.clock.clone()))
    }

    /// A leaf for 127.0.0.1.
    fn leaf(&self) -> LeafSpec {
        LeafSpec::named(vec![Name::Ip(Ipv4Addr::LOCALHOST.into())])
    }
}

async fn fails(client: &mut Client, request: &Request) -> Failure {
    let (failure, _) = scrape(client, request).await.expect_err("it must fail");
    assert!(!failure.detail.contains("canary"), "{failure}");
    failure
}

#[tokio::test]
async fn plain_http_is_scraped_over_one_connection() {
    let server = Server::start(Talk::Plain(always(Reply::ok(BODY))));
    let mut client = plain();
    for _ in 0..3 {
        let request = get(&server.address(), "/metrics?a=b", SOON);
        assert_eq!(scrape(&mut client, &request).await.expect("an answer"), BODY.as_bytes());
    }
    assert_eq!(server.connections(), 1);
    let asked = &server.requests()[0];
    assert_eq!(asked.path(), "/metrics?a=b");
    assert_eq!(asked.header("host"), Some(server.address().to_string().as_str()));
    assert_eq!(asked.header("authorization"), Some("Bearer canary"));
    assert_eq!(asked.header("x-team"), Some("canary-team"));
    assert!(asked.head.starts_with("GET ") && !asked.head.to_lowercase().contains("accept-encoding"), "{}", asked.head);
}

#[tokio::test]
async fn a_kept_connection_that_was_closed_is_replaced() {
    for end in [Then::Close, Then::Reset] {
        let idle = Server::start(Talk::Plain(always(Reply::ok(BODY).then(end))));
        let swallows: Script = Arc::new(move |asked| match asked.earlier_here {
            0 => Reply::ok(BODY),
            _ => Reply::raw("", end),
        });
        let swallows = Server::start(Talk::Plain(swallows));
        for server in [idle, swallows] {
            let mut client = plain();
            for _ in 0..3 {
                scrape(&mut client, &get(&server.address(), "/metrics", SOON)).await.expect("nobody notices");
            }
            assert_eq!(server.connections(), 3, "{end:?}");
        }
    }
}

#[tokio::test]
async fn plain_http_fails_for_its_reasons() {
    let (_port, nobody) = closed_port();
    assert_eq!(fails(&mut plain(), &get(&nobody, "/metrics", SOON)).await.reason, Reason::ConnectRefused);
    let short = format!("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{BODY}");
    let large = format!("X-Much: {}", "x".repeat(17 * 1024));
    for reply in [
        Reply::raw(short, Then::Close),
        Reply::raw("220 mail.example ESMTP\r\n", Then::Close),
        Reply::raw("HTTP/1.1 200 OK\r\nContent-T", Then::Close),
        Reply::raw("", Then::Close),
        Reply::with("200 OK", &[&large], BODY),
    ] {
        let server = Server::start(Talk::Plain(always(reply)));
        let failure = fails(&mut plain(), &get(&server.address(), "/metrics?canary", SOON)).await;
        assert_eq!(failure.reason, Reason::HttpProtocol, "{failure}");
    }
}

#[tokio::test]
async fn the_deadline_ends_an_answer_and_a_body() {
    for bytes in ["", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"] {
        let server = Server::start(Talk::Plain(always(Reply::raw(bytes, Then::Hang))));
        let run_out = async {
            server.hanging().await;
            tokio::time::pause();
            std::future::pending::<()>().await
        };
        let (mut client, request) = (plain(), get(&server.address(), "/metrics", Duration::from_secs(10)));
        let failure = tokio::select! {
            failure = fails(&mut client, &request) => failure,
            () = run_out => unreachable!("it waits for ever"),
        };
        tokio::time::resume();
        assert_eq!(failure.reason, Reason::Timeout, "{failure}");
    }
}

#[tokio::test]
async fn what_proves_who_we_are_stays_at_its_origin() {
    let second = Server::start(Talk::Plain(always(Reply::ok(BODY))));
    let place = format!("http://{}/there", second.socket());
    let first: Script = Arc::new(move |asked| match asked.path() {
        "/metrics" => Reply::redirect(302, "/here"),
        _ => Reply::redirect(307, &place),
    });
    let first = Server::start(Talk::Plain(first));
    let mut request = get(&first.address(), "/metrics", SOON);
    for (name, value) in [(ACCEPT, "text/plain"), (USER_AGENT, "meshscrape"), (COOKIE, "session=canary")] {
        request.headers.insert(name, HeaderValue::from_static(value));
    }
    assert_eq!(scrape(&mut plain(), &request).await.expect("it is followed"), BODY.as_bytes());
    let told: Vec<_> = first.requests().iter().map(|asked| asked.header("authorization").is_some()).collect();
    assert_eq!(told, [true, true], "the same origin is told");
    let there = &second.requests()[0];
    assert_eq!((there.header("accept"), there.header("user-agent")), (Some("text/plain"), Some("meshscrape")));
    assert!(!there.head.contains("canary"), "{}", there.head);
}

#[tokio::test]
async fn no_redirect_leads_from_one_kind_of_connection_to_another() {
    let site = Site::new();
    let tls = Server::start(Talk::Tls(site.ca.issue(&site.leaf()).open_server(), always(Reply::ok(BODY))));
    let clear = Server::start(Talk::Plain(always(Reply::ok(BODY))));
    let to_tls = Reply::redirect(302, &format!("https://{}/", tls.socket()));
    let to_clear = Reply::redirect(302, &format!("http://{}/", clear.socket()));
    let from_clear = Server::start(Talk::Plain(always(to_tls)));
    let from_tls = Server::start(Talk::Tls(site.ca.issue(&site.leaf()).open_server(), always(to_clear)));
    let failure = fails(&mut plain(), &get(&from_clear.address(), "/metrics", SOON)).await;
    assert_eq!(failure.reason, Reason::RedirectRefused, "{failure}");
    let failure = fails(&mut site.client(site.tls()), &get(&from_tls.address(), "/metrics", SOON)).await;
    assert_eq!(failure.reason, Reason::RedirectRefused, "{failure}");
    assert_eq!((tls.connections(), clear.connections()), (0, 0));
}

#[tokio::test]
async fn chain_and_host_name_are_verified() {
    let site = Site::new();
    let good = site.leaf();
    let server = Server::start(Talk::Tls(site.ca.issue(&good).open_server(), always(Reply::ok(BODY))));
    let mut client = site.client(site.tls());
    for _ in 0..2 {
        let request = get(&server.address(), "/metrics", SOON);
        let mut response = client.get(&request).await.expect("a good server");
        let peer = response.peer.take().expect("it was verified");
        assert_eq!((peer.identity.as_str(), peer.tls_version.as_str()), ("127.0.0.1", "TLSv1.3"));
        while response.body.chunk().await.expect("a whole body").is_some() {}
        drop(response);
        client.confirm().expect("nothing to confirm");
    }
    assert_eq!(server.connections(), 1);

    let named = |name: &str| LeafSpec::named(vec![Name::dns(name)]);
    let stranger = Ca::new("site.example");
    for (leaf, reason) in [
        (site.ca.issue(&named("elsewhere.example")), Reason::HostNameMismatch),
        (stranger.issue(&good), Reason::UnknownAuthority),
        (site.ca.issue(&good.clone().valid(-2 * HOUR, -HOUR)), Reason::CertificateExpired),
        (site.ca.issue(&good.clone().valid(HOUR, 2 * HOUR)), Reason::CertificateNotYetValid),
    ] {
        let server = Server::start(Talk::Tls(leaf.open_server(), always(Reply::ok(BODY))));
        let failure = fails(&mut site.client(site.tls()), &get(&server.address(), "/metrics", SOON)).await;
        assert_eq!(failure.reason, reason, "{failure}");
        assert!(server.requests().is_empty(), "{failure}");
    }
}

#[tokio::test]
async fn https_fails_for_its_reasons() {
    let site = Site::new();
    let strict = || site.ca.issue(&site.leaf()).server(&[&site.ca], rustls::ALL_VERSIONS);
    let silent = Reply::raw("", Then::Close);
    for (talk, reason) in [
        (Talk::Plain(always(Reply::ok(BODY))), Reason::PlaintextServer),
        (Talk::CloseInHandshake, Reason::ClosedInHandshake),
        (Talk::ResetInHandshake, Reason::ClosedInHandshake),
        (Talk::Tls(strict(), always(Reply::ok(BODY))), Reason::ClientCertificateRejected),
        (Talk::Tls(site.ca.issue(&site.leaf()).open_server(), always(silent)), Reason::ClosedAfterHandshake),
    ] {
        let server = Server::start(talk);
        let failure = fails(&mut site.client(site.tls()), &get(&server.address(), "/metrics", SOON)).await;
        assert_eq!(failure.reason, reason, "{failure}");
    }
}

#[tokio::test]
async fn the_server_name_is_verified_in_place_of_the_address() {
    let site = Site::new();
    let leaf = site.ca.issue(&LeafSpec::named(vec![Name::dns("metrics.site.example")]));
    let server = Server::start(Talk::Tls(leaf.open_server(), always(Reply::ok(BODY))));
    let by_name = |name: &str| OrdinaryTls { server_name: Some(name.to_owned()), ..site.tls() };
    let localhost = Address::parse(&format!("localhost:{}", server.port())).expect("an address");
    for address in [server.address(), localhost] {
        let request = get(&address, "/metrics", SOON);
        scrape(&mut site.client(by_name("metrics.site.example")), &request).await.expect("it has that name");
        let asked = server.requests().pop().expect("it was asked");
        assert_eq!(asked.header("host"), Some(address.to_string().as_str()));
        let failure = fails(&mut site.client(by_name("other.site.example")), &request).await;
        assert_eq!(failure.reason, Reason::HostNameMismatch, "{failure}");
    }
}

#[tokio::test]
async fn a_client_certificate_is_shown_and_never_follows_a_redirect_elsewhere() {
    let site = Site::new();
    let own = site.ca.leaf("spiffe://site.example/scraper");
    site.write("own.pem", &own.chain_pem());
    site.write("own.key", &own.key_pem());
    let file = |name: &str| site.directory.path().join(name);
    let tls =
        OrdinaryTls { identity: Some(ClientFiles { chain: file("own.pem"), key: file("own.key") }), ..site.tls() };
    let strict = |script| {
        let config = site.ca.issue(&site.leaf()).server(&[&site.ca], rustls::ALL_VERSIONS);
        Server::start(Talk::Tls(config, script))
    };
    let second = strict(always(Reply::ok(BODY)));
    let place = format!("https://{}/", second.socket());
    let first = strict(Arc::new(move |asked| match asked.path() {
        "/metrics" => Reply::ok(BODY),
        _ => Reply::redirect(302, &place),
    }));
    let mut client = site.client(tls);
    scrape(&mut client, &get(&first.address(), "/metrics", SOON)).await.expect("it takes our certificate");
    let failure = fails(&mut client, &get(&first.address(), "/away", SOON)).await;
    assert_eq!((failure.reason, second.connections()), (Reason::RedirectRefused, 0), "{failure}");
}

#[tokio::test]
async fn a_changed_ca_file_is_used_from_the_next_scrape_on() {
    let site = Site::new();
    let server = Server::start(Talk::Tls(site.ca.issue(&site.leaf()).open_server(), always(Reply::ok(BODY))));
    let mut client = site.client(site.tls());
    let request = get(&server.address(), "/metrics", SOON);
    scrape(&mut client, &request).await.expect("a good server");
    site.write("next.pem", &Ca::new("another.example").pem());
    std::fs::rename(site.directory.path().join("next.pem"), site.directory.path().join("ca.pem")).expect("a rename");
    assert_eq!(fails(&mut client, &request).await.reason, Reason::UnknownAuthority);
    std::fs::remove_file(site.directory.path().join("ca.pem")).expect("it is there");
    assert_eq!(fails(&mut client, &request).await.reason, Reason::UnknownAuthority);
    site.write("ca.pem", &site.ca.pem());
    scrape(&mut client, &request).await.expect("a good server again");
}

#[tokio::test]
async fn http2_is_spoken_exactly_where_the_job_allows_it() {
    let site = Site::new();
    let mut config = Arc::unwrap_or_clone(site.ca.issue(&site.leaf()).open_server());
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    let address = Address::parse(&listener.local_addr().expect("it is bound").to_string()).expect("an address");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let tls = acceptor.accept(tcp).await.expect("a handshake");
            let service = service_fn(async |request: http::Request<Incoming>| {
                Ok::<_, Infallible>(http::Response::new(Full::<Bytes>::from(format!("{:?}", request.version()))))
            });
            tokio::spawn(
                auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(tls), service).into_owned(),
            );
        }
    });
    for (http2, version) in [(true, "HTTP/2.0"), (false, "HTTP/1.1")] {
        let settings = OrdinarySettings { http2, ..settings() };
        let mut client = Client::HostName(HostNameClient::new(settings, site.tls(), site.clock.clone()));
        for _ in 0..2 {
            let body = scrape(&mut client, &get(&address, "/metrics", SOON)).await.expect("a good server");
            assert_eq!(body, version.as_bytes());
        }
    }
}

/// The settings of a job with this proxy, which wants a password, and `no_proxy`.
fn through(address: std::net::SocketAddr, except: Option<&str>) -> OrdinarySettings {
    let proxy = meshscrape::config::Proxy::parse(&format!("http://me:canary@{address}")).expect("a proxy");
    let proxies = Proxies {
        http: Some(proxy.clone()),
        https: Some(proxy),
        except: except.map(NoProxy::parse),
        connect_headers: ["canary-a", "canary-b"]
            .map(|value| (HeaderName::from_static("x-pass"), Secret::new(value)))
            .into(),
    };
    OrdinarySettings { proxies: Some(Arc::new(proxies)), ..settings() }
}

// base64 of me:canary
const PASSWORD: &str = "Basic bWU6Y2FuYXJ5";

#[tokio::test]
async fn plain_http_goes_through_a_proxy_in_the_absolute_form() {
    let server = Server::start(Talk::Plain(always(Reply::ok(BODY))));
    let proxy = Proxy::start();
    let mut client = Client::Plain(PlainClient::new(through(proxy.address(), None)).expect("a client"));
    // Only the proxy can know who that is.
    let address = Address::parse(&format!("metrics.invalid:{}", server.port())).expect("an address");
    let request = get(&address, "/metrics?a=b", SOON);
    for _ in 0..2 {
        assert_eq!(scrape(&mut client, &request).await.expect("an answer"), BODY.as_bytes());
    }
    assert_eq!((proxy.heads().len(), server.connections()), (1, 1), "the connection is kept");
    for asked in server.requests() {
        assert_eq!(asked.path(), format!("http://{address}/metrics?a=b"));
        assert_eq!(asked.header("host"), Some(address.to_string().as_str()));
        assert_eq!(asked.header("proxy-authorization"), Some(PASSWORD));
        assert_eq!(asked.header("authorization"), Some("Bearer canary"));
        assert_eq!(asked.header("x-pass"), None, "they are for tunnels");
    }
}

#[tokio::test]
async fn https_goes_through_a_tunnel_and_is_verified_behind_it() {
    let site = Site::new();
    let named = |name: &str| site.ca.issue(&LeafSpec::named(vec![Name::dns(name)])).open_server();
    let server = Server::start(Talk::Tls(named("metrics.invalid"), always(Reply::ok(BODY))));
    let proxy = Proxy::start();
    let client = || {
        let settings = through(proxy.address(), None);
        Client::HostName(HostNameClient::new(settings, site.tls(), site.clock.clone()))
    };
    let address = |server: &Server| Address::parse(&format!("metrics.invalid:{}", server.port())).expect("an address");
    let mut kept = client();
    let request = get(&address(&server), "/metrics", SOON);
    for _ in 0..2 {
        scrape(&mut kept, &request).await.expect("a good server");
    }
    let head = proxy.heads().remove(0);
    assert!(head.starts_with(&format!("CONNECT {} HTTP/1.1\r\n", address(&server))), "{head}");
    let said: Vec<_> = head.lines().filter(|line| line.to_lowercase().starts_with("x-pass")).collect();
    assert_eq!(said, ["x-pass: canary-a", "x-pass: canary-b"]);
    assert!(head.to_lowercase().contains(&format!("proxy-authorization: {PASSWORD}").to_lowercase()), "{head}");
    assert!(!head.contains("Bearer"), "the proxy is not told what the server is told: {head}");
    let asked = server.requests();
    assert_eq!((asked.len(), server.connections(), proxy.heads().len()), (2, 1, 1), "the connection is kept");
    assert_eq!(asked[0].path(), "/metrics");
    assert_eq!(asked[0].header("proxy-authorization").or(asked[0].header("x-pass")), None);

    let other = Server::start(Talk::Tls(named("other.invalid"), always(Reply::ok(BODY))));
    let failure = fails(&mut client(), &get(&address(&other), "/metrics", SOON)).await;
    assert_eq!((failure.reason, other.requests().len()), (Reason::HostNameMismatch, 0), "{failure}");
}

#[tokio::test]
async fn a_proxy_that_does_not_help_is_named() {
    let site = Site::new();
    let server = Server::start(Talk::Tls(site.ca.issue(&site.leaf()).open_server(), always(Reply::ok(BODY))));
    let request = get(&server.address(), "/metrics", SOON);
    let client = |settings| Client::HostName(HostNameClient::new(settings, site.tls(), site.clock.clone()));
    let (_port, nobody) = closed_port();
    let nobody: std::net::SocketAddr = nobody.to_string().parse().expect("an IP address");
    for (proxy, reason) in [
        (Proxy::answering("407 Proxy Authentication Required"), Reason::ConnectFailed),
        (Proxy::answering("403 Forbidden"), Reason::ConnectFailed),
    ] {
        let failure = fails(&mut client(through(proxy.address(), None)), &request).await;
        assert_eq!(failure.reason, reason, "{failure}");
        assert!(failure.detail.contains(&format!("through the proxy http://{}: ", proxy.address())), "{failure}");
        assert!(failure.hint().contains("no_proxy") && !failure.hint().contains("to the pod"), "{}", failure.hint());
    }
    let failure = fails(&mut client(through(nobody, None)), &request).await;
    assert_eq!(failure.reason, Reason::ConnectRefused, "{failure}");
    assert!(failure.detail.contains(&format!("through the proxy http://{nobody}: ")), "{failure}");
    assert_eq!(server.connections(), 0, "nobody is asked without the proxy instead");
    scrape(&mut client(through(nobody, Some("other.example"))), &request).await.expect("loopback is excepted");
}
