//! Credentials reach the receiver and nobody else: not the log, however much is logged, nor metrics nor snapshots.

use std::io;
use std::sync::{LazyLock, Mutex, PoisonError};

use meshscrape::config::{self, Auth, HttpHeader, Secret, SecretSource};
use tracing::Dispatch;
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::util::SubscriberInitExt;

use super::*;
use crate::support::proxy::Proxy;
use crate::support::tls_server::closed_port;

/// Everything that this thread logs while the guard lives, down to the last detail of every library.
pub(super) fn capture() -> (Log, DefaultGuard) {
    // With a single one, what another test says first on a thread without any is said nowhere from then on.
    static ANOTHER: LazyLock<Dispatch> = LazyLock::new(|| {
        let trace = tracing::level_filters::LevelFilter::TRACE;
        Dispatch::new(tracing_subscriber::fmt().with_max_level(trace).with_writer(io::sink).finish())
    });
    LazyLock::force(&ANOTHER);
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::level_filters::LevelFilter::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    (log, subscriber.set_default())
}

#[derive(Clone, Default)]
pub(super) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn inline(text: &str) -> SecretSource {
    SecretSource::Inline(Secret::new(text))
}

/// Repeats all it was told, as a debugging proxy would.
fn parrot(status: u16) -> impl FnMut(&crate::support::receiver::Recorded) -> Answer {
    move |request| {
        let headers: Vec<_> = request.headers.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
        Answer::status(status).saying(format!("you said {} {}", request.path_and_query, headers.join(" ")))
    }
}

/// The same in the place that a redirect names.
fn parrot_elsewhere(request: &crate::support::receiver::Recorded) -> Answer {
    let all = request.headers.get_all("authorization").iter().chain(request.headers.get_all("x-api-key"));
    let path: Vec<_> = all.map(|value| value.to_str().expect("ASCII").replace(' ', "/")).collect();
    let place = format!("https://elsewhere.invalid/{}{}", path.join("/"), request.path_and_query);
    Answer::status(307).header("location", place)
}

#[tokio::test]
async fn no_secret_is_shown_even_if_the_receiver_repeats_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let token_file = dir.path().join("token");
    std::fs::write(&token_file, "canary-file\n").expect("a file");
    let basic = Auth::Basic { username: inline("scraper"), password: inline("canary-password") };
    let bearer = Auth::Authorization { kind: "Bearer".into(), credentials: SecretSource::File(token_file.clone()) };
    let (log, _guard) = capture();
    for (auth, sent) in [(basic, "Basic c2NyYXBlcjpjYW5hcnktcGFzc3dvcmQ="), (bearer, "Bearer canary-file")] {
        let (mut again, mut never) = (parrot(503), parrot(400));
        let mut count = 0;
        let receiver = Receiver::start(Box::new(move |request| {
            count += 1;
            match count {
                1 => again(request),
                2 => parrot_elsewhere(request),
                _ => never(request),
            }
        }))
        .await;
        let mut remote = remote("main", &format!("{}?token=canary-query&x=1", receiver.url()));
        remote.headers = vec![(http::HeaderName::from_static("x-api-key"), Secret::new("canary-header"))];
        let header = |value, secret| HttpHeader { name: http::HeaderName::from_static("x-api-key"), value, secret };
        remote.http_headers =
            vec![header(inline("canary-inline"), true), header(SecretSource::File(token_file.clone()), true)];
        remote.auth = Some(auth);
        let shown_config = format!("{remote:?}");
        let pipe = Pipe::to(vec![remote]);
        let monitor = pipe.monitors[0].clone();
        pipe.push(block_of(1, 1, 1)).await;
        let recorded = receiver.requests(3).await;
        assert_eq!(recorded[0].header("authorization"), Some(sent), "the receiver gets what it should");
        assert_eq!(recorded[0].header("x-api-key"), Some("canary-header"));
        let keys: Vec<_> = recorded[0].headers.get_all("x-api-key").iter().collect();
        assert_eq!(keys, ["canary-header", "canary-inline", "canary-file"], "all of them");
        assert_eq!(recorded[0].path_and_query, "/api/v1/write?token=canary-query&x=1");
        let metrics = pipe.metrics();
        pipe.end().await;

        let snapshot = format!("{:?}", monitor.snapshot());
        assert!(snapshot.contains("you said"), "{snapshot}");
        let said = log.text();
        assert!(said.contains("you said"), "the words are shown");
        assert!(said.contains("307 to https://elsewhere.invalid/"), "so is the place");
        for text in [said, snapshot, metrics, shown_config] {
            for secret in ["canary", "c2NyYXBlcjpj"] {
                let at = text.find(secret);
                assert!(at.is_none(), "{secret} in …{}", &text[at.unwrap_or(0).saturating_sub(200)..]);
            }
        }
    }
}

#[tokio::test]
async fn a_receiver_that_is_down_does_not_bring_the_query_into_the_log() {
    let (_bound, gone) = closed_port();
    let url = format!("http://{gone}/api/v1/write?token=canary");
    let (log, _guard) = capture();
    let pipe = Pipe::to(vec![remote("main", &url)]);
    let monitor = pipe.monitors[0].clone();
    pipe.push(block_of(1, 1, 1)).await;
    trouble(&monitor, TroubleKind::Connect).await;
    pipe.give_up.cancel();
    pipe.end().await;
    let said = log.text();
    assert!(said.contains("samples are not delivered"));
    assert!(!said.contains("canary") && !format!("{:?}", monitor.snapshot()).contains("canary"));
}

#[tokio::test]
async fn a_credential_in_a_file_is_read_for_every_request() {
    let dir = tempfile::tempdir().expect("a directory");
    let token_file = dir.path().join("token");
    let receiver = Receiver::start(script([])).await;
    let mut remote = remote("main", &receiver.url());
    remote.auth =
        Some(Auth::Authorization { kind: "Bearer".into(), credentials: SecretSource::File(token_file.clone()) });
    let pipe = Pipe::to(vec![remote]);
    let monitor = pipe.monitors[0].clone();

    pipe.push(block_of(1, 1, 1)).await;
    trouble(&monitor, TroubleKind::NotReady).await;
    assert!(receiver.recorded().is_empty(), "nothing is sent without the credential");

    std::fs::write(&token_file, "one\n").expect("a file");
    receiver.requests(1).await;
    std::fs::write(&token_file, "two\n").expect("a file");
    pipe.push(block_of(1, 2, 1)).await;
    let recorded = receiver.requests(2).await;
    let seen: Vec<_> = recorded.iter().map(|one| one.header("authorization")).collect();
    assert_eq!(seen, [Some("Bearer one"), Some("Bearer two")]);
    pipe.end().await;
}

#[tokio::test]
async fn a_receiver_is_reached_through_its_proxy_whose_password_is_shown_nowhere() {
    let (log, _guard) = capture();
    let receiver = Receiver::start(Box::new(parrot(400))).await;
    let port = receiver.url().parse::<url::Url>().expect("a URL").port().expect("a port");
    let through = Proxy::start();
    let mut remote = remote("main", &format!("http://receiver.invalid:{port}/api/v1/write"));
    let proxy = config::Proxy::parse(&format!("http://me:canary@{}", through.address())).expect("a proxy");
    let proxies = config::Proxies { http: Some(proxy), https: None, except: None, connect_headers: Vec::new() };
    remote.proxies = Some(Arc::new(proxies));
    let shown = format!("{remote:?}");
    let pipe = Pipe::to(vec![remote]);
    pipe.push(block_of(1, 1, 1)).await;
    let recorded = receiver.requests(1).await;
    // base64 of me:canary
    assert_eq!(recorded[0].header("proxy-authorization"), Some("Basic bWU6Y2FuYXJ5"));
    assert!(through.heads()[0].starts_with(&format!("POST http://receiver.invalid:{port}/api/v1/write ")));
    let metrics = pipe.metrics();
    pipe.end().await;
    assert!(log.text().contains("you said"), "what the receiver says is shown: {}", log.text());
    for text in [log.text(), metrics, shown] {
        assert!(!text.contains("canary") && !text.contains("bWU6Y2FuYXJ5"), "{text}");
    }
}
