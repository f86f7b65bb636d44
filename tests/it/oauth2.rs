//! Tokens of OAuth 2: asked for as Prometheus asks, shared, renewed in time, sent to whom they are for, and shown to nobody.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use meshscrape::clock::Clock;
use meshscrape::config::{OAuth2, OrdinaryTls, Proxies, Proxy, Secret, SecretSource};
use meshscrape::token::Tokens;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::support::agent;
use crate::support::ca::{Ca, LeafSpec, Name};
use crate::support::process::Process;
use crate::support::receiver::{Answer, Receiver, always};
use crate::support::tls_server::{Reply, Server, Talk, closed_port};

const ID: &str = "scraper one";
const SECRET: &str = "canary secret+1";
/// Both as they stand in the header: each encoded as in a form, then in base64.
const BASIC: &str = "Basic c2NyYXBlcitvbmU6Y2FuYXJ5K3NlY3JldCUyQjE=";
const ENCODED: &str = "canary+secret%2B1";

/// One request for a token.
#[derive(Clone, Debug, PartialEq)]
struct Wish {
    authorization: Option<String>,
    content_type: Option<String>,
    /// Sorted, for the order says nothing.
    form: Vec<(String, String)>,
}

/// Gives tokens over http.
struct Issuer {
    url: String,
    wishes: Arc<Mutex<Vec<Wish>>>,
    open: watch::Sender<bool>,
}

impl Issuer {
    /// `answer` is told the number of the request, from 1.
    async fn start(answer: impl Fn(usize, &Wish) -> Response + Clone + Send + Sync + 'static) -> Self {
        let issuer = Self::start_closed(answer).await;
        issuer.open();
        issuer
    }

    /// The same, without an answer until [`Issuer::open`].
    async fn start_closed(answer: impl Fn(usize, &Wish) -> Response + Clone + Send + Sync + 'static) -> Self {
        let open = watch::Sender::new(false);
        let opened = open.subscribe();
        let wishes = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&wishes);
        let give = move |headers: HeaderMap, body: Bytes| {
            let header = |name: &str| headers.get(name).map(|value| value.to_str().expect("ASCII").to_owned());
            let mut form: Vec<_> = url::form_urlencoded::parse(&body).into_owned().collect();
            form.sort();
            let wish = Wish { authorization: header("authorization"), content_type: header("content-type"), form };
            let number = {
                let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                seen.push(wish.clone());
                seen.len()
            };
            let (answer, mut opened) = (answer(number, &wish), opened.clone());
            async move {
                // Fails when the test is over.
                let _ = opened.wait_for(|open| *open).await;
                answer
            }
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}/token", listener.local_addr().expect("it is bound"));
        let router = Router::new().route("/token", post(give));
        tokio::spawn(async { axum::serve(listener, router).await });
        Self { url, wishes, open }
    }

    /// Answers from now on.
    fn open(&self) {
        self.open.send_replace(true);
    }

    fn wishes(&self) -> Vec<Wish> {
        self.wishes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Tokens from here, for a secret that stands in the configuration.
    fn tokens(&self) -> Tokens {
        self.tokens_for(SecretSource::Inline(Secret::new(SECRET)))
    }

    fn tokens_for(&self, client_secret: SecretSource) -> Tokens {
        Tokens::new(Arc::new(OAuth2 { client_secret, ..settings(&self.url) }), Clock::system())
    }
}

/// Tokens from `url`, whoever is there.
fn settings(url: &str) -> OAuth2 {
    OAuth2 {
        client_id: ID.to_owned(),
        client_secret: SecretSource::Inline(Secret::new(SECRET)),
        scopes: Vec::new(),
        token_url: format!("{url}?realm=canary-realm").parse().expect("a URL"),
        endpoint_params: vec![("x".to_owned(), Secret::new("canary param,1"))],
        tls: OrdinaryTls::default(),
        proxies: None,
    }
}

fn json(body: &str) -> Response {
    ([("content-type", "application/json")], body.to_owned()).into_response()
}

/// Token number so-and-so, good for this long.
fn token(number: usize, seconds: u64) -> Response {
    json(&format!(r#"{{"access_token": "canary-token-{number}", "token_type": "bearer", "expires_in": {seconds}}}"#))
}

/// What is said where no token comes; nothing of it is secret.
async fn refusal(tokens: &Tokens) -> String {
    let error = tokens.header().await.expect_err("no token");
    let said = format!("{error} {error:?}");
    assert!(!said.contains("canary") && !said.contains(&BASIC[6..]), "{said}");
    error.to_string()
}

async fn header(tokens: &Tokens) -> String {
    let header = tokens.header().await.expect("a token");
    assert!(header.is_sensitive());
    header.to_str().expect("ASCII").to_owned()
}

/// A configuration for both, of targets with a token and a receiver with one of its own.
fn configuration(issuer: &Issuer, targets: &[&Server], receiver: &Receiver, dir: &Path) -> String {
    let targets: Vec<_> = targets.iter().map(|server| format!("'{}'", server.socket())).collect();
    let oauth2 = |who: &str| {
        format!(
            "{{ client_id: {ID}, client_secret_file: {}, scopes: [read, '{who}'], token_url: '{}', endpoint_params: {{ audience: a b&c }} }}",
            dir.join("secret").display(),
            issuer.url
        )
    };
    format!(
        "global: {{ scrape_interval: 1s, scrape_timeout: 1s }}
remote_write:
  - url: {}
    queue_config: {{ batch_send_deadline: 100ms }}
    oauth2: {}
scrape_configs:
  - job_name: shop
    scheme: http
    oauth2: {}
    static_configs: [{{ targets: [{}] }}]
",
        receiver.url(),
        oauth2("receiver"),
        oauth2("targets"),
        targets.join(", ")
    )
}

fn target() -> Server {
    Server::start(Talk::Plain(Arc::new(|asked| match asked.header("authorization") {
        Some(_) => Reply::with("200 OK", &["content-type: text/plain; version=0.0.4"], "a 1\n"),
        None => Reply::with("401 Unauthorized", &[], ""),
    })))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_and_a_receiver_get_a_token_each_as_prometheus_does() {
    let dir = TempDir::new().expect("a directory");
    std::fs::write(dir.path().join("secret"), format!("{SECRET}\n")).expect("a secret");
    let issuers =
        [Issuer::start(|number, _| token(number, 3600)).await, Issuer::start(|number, _| token(number, 3600)).await];
    let receivers = [Receiver::start(always(Answer::ok())).await, Receiver::start(always(Answer::ok())).await];
    let targets = [target(), target()];
    let ours = configuration(&issuers[0], &[&targets[0], &targets[1]], &receivers[0], dir.path());
    let agent = agent::start(dir.path(), &ours).await;
    let up = agent.until_all("both are up", |target| target["health"] == "up").await;
    let mine = receivers[0].requests(3).await;
    let shown = format!("{} {up:?}", agent.metrics().await);
    agent.stop().await;
    assert!(!shown.contains("canary"), "{shown}");
    let asked = targets.iter().flat_map(Server::requests);
    let told = |asked: &str| asked.starts_with("Bearer canary-token-");
    assert!(asked.into_iter().all(|asked| asked.header("authorization").is_some_and(told)));
    assert!(mine.iter().all(|request| request.header("authorization").is_some_and(told)));
    let wishes = issuers[0].wishes();
    assert_eq!(wishes.len(), 2, "one for all targets of the job, one for the receiver: {wishes:?}");

    let theirs = configuration(&issuers[1], &[&targets[0]], &receivers[1], dir.path());
    let home = TempDir::new().expect("a directory");
    std::fs::write(home.path().join("prometheus.yml"), theirs).expect("its configuration");
    let arguments =
        ["--agent", "--config.file=prometheus.yml", "--storage.agent.path=data", "--web.listen-address=127.0.0.1:0"];
    let _prometheus = Process::start("prometheus", home, &arguments);
    receivers[1].requests(1).await;
    let sorted = |mut wishes: Vec<Wish>| {
        wishes.sort_by(|one, other| one.form.cmp(&other.form));
        wishes
    };
    let (ours, theirs) = (sorted(wishes), sorted(issuers[1].wishes()));
    assert_eq!(ours, theirs);
    assert_eq!(ours[0].authorization.as_deref(), Some(BASIC));
}

#[tokio::test]
async fn a_token_is_shared_and_renewed_before_it_ends() {
    let issuer = Issuer::start(|number, _| token(number, 3600)).await;
    let tokens = issuer.tokens();
    let others: Vec<_> = (0..20).map(|_| tokens.clone()).collect();
    let waiting: Vec<_> = others.iter().map(|tokens| async move { header(tokens).await }).collect();
    let got = futures_util::future::join_all(waiting).await;
    assert_eq!(got, vec!["Bearer canary-token-1"; 20]);
    assert_eq!(issuer.wishes().len(), 1);

    // Ten seconds before its end a token is not used any more.
    let issuer = Issuer::start(|number, _| token(number, 10)).await;
    let tokens = issuer.tokens();
    assert_eq!([header(&tokens).await, header(&tokens).await], ["Bearer canary-token-1", "Bearer canary-token-2"]);
    let issuer = Issuer::start(|number, _| token(number, if number == 1 { 11 } else { 3600 })).await;
    let tokens = issuer.tokens();
    assert_eq!(header(&tokens).await, "Bearer canary-token-1");
    let renewed = agent::eventually("another one", async || {
        let header = header(&tokens).await;
        (header != "Bearer canary-token-1").then_some(header)
    });
    assert_eq!(renewed.await, "Bearer canary-token-2");
}

#[tokio::test]
async fn a_request_goes_on_when_whoever_asked_has_given_up() {
    let impatience = Duration::from_millis(10);
    let issuer = Issuer::start_closed(|number, _| match number {
        1 => token(number, 3600),
        _ => StatusCode::FORBIDDEN.into_response(),
    });
    let issuer = issuer.await;
    let tokens = issuer.tokens();
    for _ in 0..5 {
        tokio::time::timeout(impatience, tokens.header()).await.expect_err("no answer yet");
    }
    agent::eventually("a request", async || (!issuer.wishes().is_empty()).then_some(())).await;
    issuer.open();
    assert_eq!(header(&tokens).await, "Bearer canary-token-1");
    assert_eq!(issuer.wishes().len(), 1, "one request for all of them");

    // Those who come later are told of a failure that nobody waited for, too.
    let issuer = Issuer::start_closed(|_, _| StatusCode::FORBIDDEN.into_response()).await;
    let tokens = issuer.tokens();
    tokio::time::timeout(impatience, tokens.header()).await.expect_err("no answer yet");
    agent::eventually("a request", async || (!issuer.wishes().is_empty()).then_some(())).await;
    let (said, ()) = tokio::join!(refusal(&tokens), async { issuer.open() });
    assert!(said.contains("it answered 403 Forbidden"), "{said}");
    assert_eq!(issuer.wishes().len(), 2, "in the header and in the form, once each");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_takes_longer_than_a_scrape_serves_a_later_one() {
    let dir = TempDir::new().expect("a directory");
    std::fs::write(dir.path().join("secret"), SECRET).expect("a secret");
    let issuer = Issuer::start_closed(|number, _| token(number, 3600)).await;
    let (receiver, servers) = (Receiver::start(always(Answer::ok())).await, [target(), target()]);
    let configuration = configuration(&issuer, &[&servers[0], &servers[1]], &receiver, dir.path());
    let agent = agent::start(dir.path(), &configuration).await;
    agent.until_all("both are down", |target| target["health"] == "down").await;
    assert!(servers.iter().all(|server| server.connections() == 0), "nobody is asked without a token");
    issuer.open();
    agent.until_all("both are up", |target| target["health"] == "up").await;
    agent.stop().await;
    let of_targets = |wish: &Wish| wish.form.contains(&("scope".to_owned(), "read targets".to_owned()));
    assert_eq!(issuer.wishes().into_iter().filter(of_targets).count(), 1);
}

#[tokio::test]
async fn another_secret_brings_another_token() {
    let dir = TempDir::new().expect("a directory");
    let file = dir.path().join("secret");
    let issuer = Issuer::start(|number, _| token(number, 3600)).await;
    let tokens = issuer.tokens_for(SecretSource::File(file.clone()));
    assert!(refusal(&tokens).await.contains("cannot read the secret"));
    for (secret, expected) in [("one", 1), ("one\n", 1), ("two", 2), ("two", 2)] {
        std::fs::write(&file, secret).expect("a secret");
        assert_eq!(header(&tokens).await, format!("Bearer canary-token-{expected}"), "{secret:?}");
    }
}

#[tokio::test]
async fn who_wants_the_secret_in_the_form_gets_it_there() {
    let issuer = Issuer::start(|number, wish| match wish.authorization {
        Some(_) => (StatusCode::UNAUTHORIZED, "no").into_response(),
        None => token(number, 11),
    });
    let issuer = issuer.await;
    let tokens = issuer.tokens();
    assert_eq!(header(&tokens).await, "Bearer canary-token-2");
    let form = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let expected = [
        form("client_id", ID),
        form("client_secret", SECRET),
        form("grant_type", "client_credentials"),
        form("x", "canary param,1"),
    ];
    assert_eq!(issuer.wishes()[1].form, expected);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(header(&tokens).await, "Bearer canary-token-3", "the way is remembered");
}

#[tokio::test]
async fn every_form_of_an_answer_is_read() {
    let form =
        ([("content-type", "text/plain; charset=utf-8")], "access_token=canary%2D1&token_type=MAC&expires_in=60");
    for (answer, expected) in [
        (form.into_response(), "MAC canary-1"),
        (json(r#"{"access_token": "canary-1"}"#), "Bearer canary-1"),
        (json(r#"{"access_token": "canary-1", "expires_in": "60", "scope": null}"#), "Bearer canary-1"),
        (json(r#"{"access_token": "canary-1", "expires_in": null, "token_type": "DPoP"}"#), "DPoP canary-1"),
        (
            json(r#"{"access_token": "canary-1", "token_type": null, "error": null, "error_description": null}"#),
            "Bearer canary-1",
        ),
        (json(r#"{"access_token": "canary-1", "expires_in": 1e300}"#), "Bearer canary-1"),
        (json(r#"{"access_token": "canary-1", "expires_in": -1}"#), "Bearer canary-1"),
    ] {
        let answer = Mutex::new(Some(answer));
        let answer =
            Arc::new(move || answer.lock().unwrap_or_else(PoisonError::into_inner).take().expect("asked once"));
        let issuer = Issuer::start(move |_, _| answer()).await;
        assert_eq!(header(&issuer.tokens()).await, expected);
    }
}

#[tokio::test]
async fn what_is_no_token_is_told_in_a_sentence_without_secrets() {
    let elsewhere = Issuer::start(|number, _| token(number, 60)).await;
    let url = elsewhere.url.clone();
    let refused = format!(r#"{{"error": "invalid_client", "error_description": "not {SECRET}\u001b"}}"#);
    let as_sent =
        format!(r#"{{"error": "got {BASIC}", "error_description": "and client_secret={ENCODED}&x=canary+param%2C1"}}"#);
    let of_url = r#"{"error": "no ?realm=canary-realm", "error_description": "nor canary-realm by me:canary-proxy"}"#;
    type Give = Box<dyn Fn() -> Response + Send + Sync>;
    let cases: Vec<(&str, Give)> = vec![
        (r"it answered 401 Unauthorized (invalid_client: not <secret>\u{1b})", {
            let refused = refused.clone();
            Box::new(move || (StatusCode::UNAUTHORIZED, json(&refused)).into_response())
        }),
        ("it answered 200 OK (invalid_client", Box::new(move || json(&refused))),
        (
            "it answered 200 OK (got Basic <secret>: and client_secret=<secret>&x=<secret>)",
            Box::new(move || json(&as_sent)),
        ),
        ("it answered 200 OK (no ?<secret>: nor <secret> by <secret>)", Box::new(move || json(of_url))),
        ("it answered 503 Service Unavailable", Box::new(|| StatusCode::SERVICE_UNAVAILABLE.into_response())),
        ("it answered 307 Temporary Redirect", {
            Box::new(move || (StatusCode::TEMPORARY_REDIRECT, [("location", url.clone())]).into_response())
        }),
        ("holds no access_token", Box::new(|| json("{}"))),
        ("holds no access_token", Box::new(|| json(r#"{"access_token": null}"#))),
        ("is neither JSON nor a form", Box::new(|| json("<html>"))),
        ("holds a token that no header may hold", Box::new(|| json(r#"{"access_token": "canary\r\nX-Evil: 1"}"#))),
        ("is larger than 1 MiB", Box::new(|| json(&"x".repeat(2 << 20)))),
    ];
    // It is asked over http, and so not through this one, whose password it knows nevertheless.
    let proxy = Proxy::parse("http://me:canary-proxy@proxy.invalid:3128").expect("a proxy");
    let proxies = Proxies { http: None, https: Some(proxy), except: None, connect_headers: Vec::new() };
    let proxies = Some(Arc::new(proxies));
    for (expected, give) in cases {
        let give = Arc::new(give);
        let issuer = Issuer::start(move |_, _| give()).await;
        // Once more where the machine was so busy that a second went by.
        loop {
            let settings = OAuth2 { proxies: proxies.clone(), ..settings(&issuer.url) };
            let (tokens, begun) = (Tokens::new(Arc::new(settings), Clock::system()), Instant::now());
            let said = refusal(&tokens).await;
            assert!(
                said.starts_with(&format!("no OAuth 2 token from {}: ", issuer.url)) && said.contains(expected),
                "{said}"
            );
            let asked = issuer.wishes().len();
            assert_eq!(refusal(&tokens).await, said, "whoever asks at once is told the same");
            if begun.elapsed() < Duration::from_secs(1) {
                assert_eq!(issuer.wishes().len(), asked);
                break;
            }
        }
    }
    assert_eq!(elsewhere.wishes(), [], "nobody is followed elsewhere");

    let (_bound, nobody) = closed_port();
    let url = format!("http://{nobody}/token");
    let said = refusal(&Issuer { url, ..elsewhere }.tokens()).await;
    assert!(said.contains("refused"), "{said}");
}

#[tokio::test]
async fn over_https_the_one_who_is_asked_is_verified_by_the_name_that_he_must_have() {
    let (dir, ca) = (TempDir::new().expect("a directory"), Ca::new("tokens.example"));
    let ca_file = dir.path().join("ca.pem");
    std::fs::write(&ca_file, ca.pem()).expect("a CA");
    let serve = |name: Name| {
        let leaf = ca.issue(&LeafSpec::named(vec![name]));
        let body = r#"{"access_token": "canary-1"}"#;
        Server::start(Talk::Tls(leaf.open_server(), Arc::new(|_| Reply::with("200 OK", &[], body))))
    };
    let by_ip = serve(Name::Ip(std::net::Ipv4Addr::LOCALHOST.into()));
    let by_name = serve(Name::dns("tokens.example"));
    let tokens_of = |server: &Server, ca_file: Option<&Path>, server_name: Option<&str>| {
        let tls = OrdinaryTls {
            ca_file: ca_file.map(Path::to_owned),
            server_name: server_name.map(str::to_owned),
            ..OrdinaryTls::default()
        };
        let settings = OAuth2 { tls, ..settings(&format!("https://{}/token", server.socket())) };
        Tokens::new(Arc::new(settings), Clock::system())
    };
    for (server, name) in [(&by_ip, None), (&by_name, Some("tokens.example")), (&by_name, Some("Tokens.Example"))] {
        assert_eq!(header(&tokens_of(server, Some(&ca_file), name)).await, "Bearer canary-1", "{name:?}");
        let asked = server.requests().pop().expect("a request");
        assert_eq!(asked.headers("host"), [server.socket().to_string()]);
    }
    let asked = [by_ip.requests().len(), by_name.requests().len()];
    for (server, ca_file, name, words) in [
        (&by_ip, None, None, "certificate"),
        (&by_name, Some(&*ca_file), None, "127.0.0.1"),
        (&by_ip, Some(&*ca_file), Some("tokens.example"), "tokens.example"),
        (&by_name, Some(&*ca_file), Some("other.example"), "other.example"),
        (&by_ip, Some(&*ca_file), Some("127.0.0.1"), "it must be a host name"),
    ] {
        let said = refusal(&tokens_of(server, ca_file, name)).await;
        assert!(said.contains(words), "{said}");
    }
    assert_eq!([by_ip.requests().len(), by_name.requests().len()], asked, "nobody else is asked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn that_no_token_comes_is_nobodys_fault_but_the_issuers() {
    let dir = TempDir::new().expect("a directory");
    std::fs::write(dir.path().join("secret"), SECRET).expect("a secret");
    let issuer = Issuer::start_closed(|number, _| token(number, 60)).await;
    let (receiver, server) = (Receiver::start(always(Answer::ok())).await, target());
    let url = format!("{}?realm=canary-realm", issuer.url);
    let configuration = configuration(&issuer, &[&server], &receiver, dir.path()).replace(&issuer.url, &url);
    let agent = agent::start(dir.path(), &configuration).await;
    let down = agent.until_all("it is down", |target| target["health"] == "down").await;
    agent.stop().await;
    let said = down[0]["lastError"].as_str().expect("an error").to_owned();
    let expected = format!("credentials_unreadable: no OAuth 2 token from {}: none came within 1s", issuer.url);
    assert!(said.starts_with(&expected), "{said}");
    assert_eq!(server.connections(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_without_its_token_says_why() {
    let dir = TempDir::new().expect("a directory");
    std::fs::write(dir.path().join("secret"), SECRET).expect("a secret");
    let issuer = Issuer::start(|_, _| (StatusCode::FORBIDDEN, "no").into_response()).await;
    let (receiver, server) = (Receiver::start(always(Answer::ok())).await, target());
    let agent = agent::start(dir.path(), &configuration(&issuer, &[&server], &receiver, dir.path())).await;
    let down = agent.until_all("it is down", |target| target["health"] == "down").await;
    agent.stop().await;
    let said = down[0]["lastError"].as_str().expect("an error").to_owned();
    let expected = format!("credentials_unreadable: no OAuth 2 token from {}: it answered 403 Forbidden", issuer.url);
    assert!(said.starts_with(&expected), "{said}");
    assert_eq!(server.requests().len(), 0, "nobody is asked without a token");
    assert_eq!(receiver.recorded().len(), 0);
}
