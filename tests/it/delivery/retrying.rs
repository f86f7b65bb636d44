//! What is sent again, when, and in which order.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use meshscrape::config::{OAuth2, SecretSource};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Notify;

use super::*;
use crate::support::ca::{Ca, LeafSpec, Name};
use crate::support::loopback;
use crate::support::receiver::Rule;
use crate::support::tls_server::{Reply, Server, Talk, Then};

#[tokio::test]
async fn each_series_arrives_in_order_whatever_the_receiver_does() {
    let trouble = (0..60).map(|n| match n % 6 {
        0 => Answer::status(500),
        1 => Answer::status(503),
        2 => Answer::cut(),
        3 => Answer::status(429),
        4 => Answer::ok().saying("never complete").cut_inside(),
        _ => Answer::ok(),
    });
    let receiver = Receiver::start(script(trouble)).await;
    let mut remote = remote("main", &receiver.url());
    remote.queue.max_samples_per_send = 30;
    let pipe = Pipe::to(vec![remote]);
    for scrape in 0..40 {
        for target in 0..3 {
            pipe.push(block_of(target, scrape, 4)).await;
        }
    }
    assert_eq!(pipe.end().await, [Undelivered::default()]);
    let samples = receiver.samples(480).await;
    for target in 0..3 {
        let mut values = values_of(target, &samples);
        assert!(values.is_sorted(), "target {target}: {values:?}");
        values.dedup();
        assert_eq!(values, (0..40).map(f64::from).collect::<Vec<_>>(), "target {target}");
    }
    assert_eq!(samples.len(), 480, "an answer whose body breaks off is an answer");
}

#[tokio::test]
async fn retry_after_is_obeyed() {
    for status in [429, 503] {
        let receiver = Receiver::start(script([Answer::status(status).header("retry-after", "1")])).await;
        let pipe = Pipe::to(vec![remote("main", &receiver.url())]);
        pipe.push(block_of(1, 1, 1)).await;
        let recorded = receiver.requests(2).await;
        assert!(recorded[1].at - recorded[0].at >= Duration::from_secs(1), "{status}");
        pipe.end().await;
    }
}

#[tokio::test]
async fn pauses_grow() {
    let receiver = Receiver::start(script(std::iter::repeat_n(Answer::status(503), 5))).await;
    let mut remote = remote("main", &receiver.url());
    remote.queue.min_backoff = Duration::from_millis(20);
    remote.queue.max_backoff = Duration::from_secs(5);
    let pipe = Pipe::to(vec![remote]);
    pipe.push(block_of(1, 1, 1)).await;
    let recorded = receiver.requests(6).await;
    for (n, pair) in recorded.windows(2).enumerate() {
        let least = Duration::from_millis(20).mul_f64(1.5f64.powi(n as i32));
        assert!(pair[1].at - pair[0].at >= least, "pause {n}");
    }
    let attempts: Vec<_> = recorded.iter().map(|one| one.header("retry-attempt")).collect();
    assert_eq!(attempts, [None, Some("1"), Some("2"), Some("3"), Some("4"), Some("5")]);
    pipe.end().await;
}

#[tokio::test]
async fn a_receiver_that_does_not_answer_in_time_is_asked_again() {
    let receiver = Receiver::start(script([Answer::hang(), Answer::ok().after(Duration::from_secs(3600))])).await;
    let mut remote = remote("main", &receiver.url());
    remote.remote_timeout = Duration::from_millis(100);
    let pipe = Pipe::to(vec![remote]);
    pipe.push(block_of(1, 1, 1)).await;
    let recorded = receiver.requests(3).await;
    assert_eq!(recorded[2].header("retry-attempt"), Some("2"));
    let retried = pipe.metric("prometheus_remote_storage_samples_retried_total");
    assert_eq!(retried, 2.0, "each was given up before the next was sent");
    assert_eq!(pipe.end().await, [Undelivered::default()]);
}

#[tokio::test]
async fn an_answer_that_never_ends_is_an_answer() {
    let flood = Answer::status(200).saying(vec![b'x'; 4096]).endlessly();
    let drip = Answer::status(200).saying("x").endlessly();
    let receiver = Receiver::start(script([flood, drip])).await;
    let mut remote = remote("main", &receiver.url());
    remote.queue.max_samples_per_send = 1;
    let pipe = Pipe::to(vec![remote]);
    pipe.push(block_of(1, 1, 1)).await;
    pipe.push(block_of(1, 2, 1)).await;
    assert_eq!(pipe.end().await, [Undelivered::default()]);
    assert_eq!(values_of(1, &receiver.samples(2).await), [1.0, 2.0]);
}

#[tokio::test]
async fn a_receiver_that_is_down_gets_everything_when_it_is_back() {
    // An address of its own: nobody else takes the port meanwhile.
    let gone = Receiver::start_at((loopback(), 0).into(), None, script([])).await;
    let address = gone.address();
    let pipe = Pipe::to(vec![remote("main", &gone.url())]);
    pipe.push(block_of(1, 0, 5)).await;
    let monitor = pipe.monitors[0].clone();
    until(&monitor, |seen| seen.delivered_samples == 5).await;
    drop(gone);
    for scrape in 1..20 {
        pipe.push(block_of(1, scrape, 5)).await;
    }
    let detail = trouble(&monitor, TroubleKind::Connect).await;
    assert!(!detail.contains("http://"), "{detail}");

    let back = Receiver::start_at(address, None, script([])).await;
    let samples = back.samples(95).await;
    let mut values = values_of(1, &samples);
    values.dedup();
    assert_eq!(values, (1..20).map(f64::from).collect::<Vec<_>>());
    assert_eq!(pipe.end().await, [Undelivered::default()]);
    assert_eq!(monitor.snapshot().trouble, None);
    assert_eq!(monitor.snapshot().lag, Duration::ZERO);
}

#[tokio::test]
async fn what_is_too_old_is_dropped_before_it_is_sent() {
    let receiver = Receiver::start(script([])).await;
    let mut remote = remote("main", &receiver.url());
    remote.queue.sample_age_limit = Duration::from_secs(600);
    remote.queue.max_samples_per_send = 1;
    let pipe = Pipe::to(vec![remote]);
    let old = block_of(1, 0, 1);
    pipe.push(Block { min_ms: old.min_ms - 601_000, max_ms: old.max_ms - 601_000, ..old }).await;
    pipe.push(block_of(1, 1, 1)).await;
    let monitor = pipe.monitors[0].clone();
    assert_eq!(values_of(1, &receiver.samples(1).await), [1.0]);
    pipe.end().await;
    assert_eq!(monitor.snapshot().too_old_samples, 1);
}

#[tokio::test]
async fn what_grows_too_old_while_it_is_retried_is_dropped() {
    let receiver = Receiver::start(always(Answer::status(503))).await;
    let mut remote = remote("main", &receiver.url());
    remote.queue.sample_age_limit = Duration::from_secs(600);
    let clock = Clock::system();
    let pipe = Pipe::with(vec![remote], clock.clone(), |_| unreachable!("an ordinary receiver"));
    let monitor = pipe.monitors[0].clone();
    pipe.push(block_of(1, 1, 4)).await;
    receiver.requests(2).await;
    clock.shift(601_000);
    assert_eq!(pipe.end().await, [Undelivered::default()]);
    assert_eq!(monitor.snapshot().too_old_samples, 4);
}

#[tokio::test]
async fn redirects_stay_within_the_origin() {
    let elsewhere = Receiver::start(script([])).await;
    let here = Receiver::start(script([
        Answer::status(307).header("location", "/api/v1/other"),
        Answer::ok(),
        Answer::status(308).header("location", elsewhere.url()),
        Answer::status(302).header("location", "/api/v1/other"),
        Answer::status(301).header("location", format!("http://{}:1/", Ipv4Addr::LOCALHOST)),
    ]))
    .await;
    let mut remote = remote("main", &here.url());
    remote.queue.max_samples_per_send = 1;
    let pipe = Pipe::to(vec![remote]);
    pipe.push(block_of(1, 1, 1)).await;
    pipe.push(block_of(1, 2, 1)).await;
    assert_eq!(pipe.end().await, [Undelivered::default()]);

    let recorded = here.recorded();
    let seen: Vec<_> =
        recorded.iter().map(|one| (one.method.as_str(), one.path_and_query.as_str(), one.status)).collect();
    let (write, other) = ("/api/v1/write", "/api/v1/other");
    let expected = [(write, 307), (other, 204), (write, 308), (write, 302), (write, 301), (write, 204)];
    assert_eq!(seen, expected.map(|(path, status)| ("POST", path, Some(status))));
    assert_eq!(recorded[1].body, recorded[0].body);
    assert!(elsewhere.recorded().is_empty());
}

#[tokio::test]
async fn a_redirect_loop_ends() {
    let receiver = Receiver::start(always(Answer::status(307).header("location", "/api/v1/write"))).await;
    let pipe = Pipe::to(vec![remote("main", &receiver.url())]);
    pipe.push(block_of(1, 1, 1)).await;
    let recorded =
        receiver.until("a second attempt", |all| all.iter().any(|one| one.header("retry-attempt").is_some()));
    let first = recorded.await.iter().filter(|one| one.header("retry-attempt").is_none()).count();
    assert_eq!(first, 4, "the request and three hops");
    pipe.give_up.cancel();
    pipe.end().await;
}

/// A receiver that speaks both versions over TLS, and the configuration that trusts it.
async fn receiver_of_both_versions(enable_http2: bool, rule: Rule) -> (Receiver, RemoteWrite, TempDir) {
    let ca = Ca::new("receivers");
    let dir = TempDir::new().expect("a directory");
    let ca_file = dir.path().join("ca.pem");
    std::fs::write(&ca_file, ca.pem()).expect("a file");
    let leaf = ca.issue(&LeafSpec::named(vec![Name::Ip(Ipv4Addr::LOCALHOST.into())]));
    let mut tls = rustls::ServerConfig::builder_with_provider(meshscrape::identity::crypto_provider())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(leaf.chain.clone(), leaf.key())
        .expect("a good leaf");
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let receiver = Receiver::start_tls(Arc::new(tls), rule).await;
    let mut remote = remote("main", &receiver.url());
    remote.enable_http2 = enable_http2;
    remote.security = ReceiverSecurity::Ordinary(OrdinaryTls { ca_file: Some(ca_file), ..OrdinaryTls::default() });
    (receiver, remote, dir)
}

#[tokio::test]
async fn http_2_is_spoken_only_where_it_is_asked_for() {
    for (enable_http2, version) in [(false, http::Version::HTTP_11), (true, http::Version::HTTP_2)] {
        let (receiver, remote, _dir) = receiver_of_both_versions(enable_http2, script([])).await;
        let pipe = Pipe::to(vec![remote]);
        pipe.push(block_of(1, 1, 1)).await;
        assert_eq!(receiver.requests(1).await[0].version, version);
        pipe.end().await;
    }
}

#[tokio::test]
async fn a_connection_on_which_no_answer_came_is_not_used_again() {
    for enable_http2 in [false, true] {
        let (receiver, mut remote, _dir) = receiver_of_both_versions(enable_http2, script([Answer::hang()])).await;
        remote.remote_timeout = Duration::from_millis(500);
        let pipe = Pipe::to(vec![remote]);
        pipe.push(block_of(1, 1, 1)).await;
        let recorded = receiver.requests(2).await;
        assert_ne!(recorded[0].connection, recorded[1].connection, "{:?}", recorded[0].version);
        assert_eq!(pipe.end().await, [Undelivered::default()]);
    }
}

#[tokio::test]
async fn what_grew_too_old_is_counted_once_though_the_rest_goes_target_by_target() {
    let clock = Clock::system();
    let (shifted, mut answers) = (clock.clone(), [503, 400, 204, 204].into_iter());
    let receiver = Receiver::start(Box::new(move |_| {
        let status = answers.next().expect("four requests");
        if status == 503 {
            shifted.shift(400_000);
        }
        Answer::status(status)
    }))
    .await;
    let mut remote = remote("main", &receiver.url());
    remote.queue.sample_age_limit = Duration::from_secs(600);
    remote.queue.max_samples_per_send = 3;
    remote.queue.batch_send_deadline = Duration::from_secs(3600);
    let pipe = Pipe::with(vec![remote], clock, |_| unreachable!("an ordinary receiver"));
    let monitor = pipe.monitors[0].clone();
    let older = block_of(1, 1, 1);
    pipe.push(Block { min_ms: older.min_ms - 300_000, max_ms: older.max_ms - 300_000, ..older }).await;
    pipe.push(block_of(2, 1, 1)).await;
    pipe.push(block_of(3, 1, 1)).await;
    assert_eq!(pipe.end().await, [Undelivered::default()]);
    let sizes: Vec<_> = receiver.recorded().iter().map(|one| one.samples.len()).collect();
    assert_eq!(sizes, [3, 2, 1, 1]);
    let seen = monitor.snapshot();
    assert_eq!((seen.too_old_samples, seen.delivered_samples, seen.rejected_samples), (1, 2, 0));
}

/// Far more than the buffers of a socket take; nobody looks inside.
fn heavy_block() -> Block {
    Block { elements: vec![0; 16 << 20].into(), ..block_of(1, 1, 1) }
}

#[tokio::test]
async fn a_receiver_that_takes_connections_and_never_reads_is_given_up_on_in_time() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port on loopback");
    let url = format!("http://{}/", listener.local_addr().expect("it is bound"));
    let mut remote = remote("main", &url);
    remote.remote_timeout = Duration::from_millis(100);
    let pipe = Pipe::to(vec![remote]);
    let monitor = pipe.monitors[0].clone();
    pipe.push(heavy_block()).await;

    let first = listener.accept().await.expect("a connection");
    trouble(&monitor, TroubleKind::Timeout).await;
    let second = listener.accept().await.expect("another connection");
    pipe.give_up.cancel();
    assert_eq!(pipe.end().await, [Undelivered { blocks: 1, samples: 1 }]);
    drop((first, second));
}

#[tokio::test]
async fn an_answer_that_comes_before_the_body_is_read_is_an_answer() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port on loopback");
    let url = format!("http://{}/", listener.local_addr().expect("it is bound"));
    let pipe = Pipe::to(vec![remote("main", &url)]);
    let monitor = pipe.monitors[0].clone();
    pipe.push(heavy_block()).await;

    let (mut stream, _) = listener.accept().await.expect("a connection");
    let mut some = [0; 1024];
    stream.read_exact(&mut some).await.expect("the head");
    let answer = "HTTP/1.1 413 too large\r\ncontent-length: 3\r\nconnection: close\r\n\r\nno!";
    stream.write_all(answer.as_bytes()).await.expect("it is sent");
    let refusal = until(&monitor, |seen| seen.rejected_samples == 1).await.last_refusal.expect("just seen");
    assert_eq!((refusal.status, refusal.words.as_str()), (413, "no!"));
    assert_eq!(pipe.end().await, [Undelivered::default()]);
}

/// Gives tokens, the second one and all after it once `signal` says so.
fn issuer(signal: &Arc<Notify>) -> Server {
    let (count, signal) = (AtomicUsize::new(0), Arc::clone(signal));
    Server::start(Talk::Plain(Arc::new(move |_| {
        let number = count.fetch_add(1, Ordering::Relaxed) + 1;
        let reply = Reply::with("200 OK", &[], &format!("{{\"access_token\": \"canary-{number}\"}}"));
        match number {
            1 => reply,
            _ => Reply::raw("", Then::Keep).later(Arc::clone(&signal), reply.bytes),
        }
    })))
}

fn oauth2(issuer: &Server, secret: &Path) -> Arc<OAuth2> {
    Arc::new(OAuth2 {
        client_id: "scraper".to_owned(),
        client_secret: SecretSource::File(secret.to_owned()),
        scopes: Vec::new(),
        token_url: format!("http://{}/token?canary=canary", issuer.socket()).parse().expect("a URL"),
        endpoint_params: Vec::new(),
        tls: OrdinaryTls::default(),
        proxies: None,
    })
}

#[tokio::test]
async fn that_no_token_comes_is_not_held_against_the_receiver() {
    let dir = TempDir::new().expect("a directory");
    let secret = dir.path().join("secret");
    std::fs::write(&secret, "canary").expect("a secret");
    let signal = Arc::new(Notify::new());
    let (issuer, receiver) = (issuer(&signal), Receiver::start(script([])).await);
    let remote = RemoteWrite {
        oauth2: Some(oauth2(&issuer, &secret)),
        remote_timeout: Duration::from_secs(2),
        ..remote("main", &receiver.url())
    };
    let pipe = Pipe::to(vec![remote]);
    pipe.push(block_of(1, 1, 1)).await;
    receiver.samples(1).await;

    // Another secret needs another token.
    std::fs::write(&secret, "canary too").expect("a secret");
    pipe.push(block_of(1, 2, 1)).await;
    let said = trouble(&pipe.monitors[0], TroubleKind::NotReady).await;
    let expected = format!("no OAuth 2 token from http://{}/token: none came within 2s", issuer.socket());
    assert!(said.starts_with(&expected) && !said.contains("canary"), "{said}");
    assert_eq!(receiver.recorded().len(), 1, "nothing is sent without a token");
    signal.notify_one();
    receiver.samples(2).await;
    let recorded = receiver.recorded();
    let authorized: Vec<_> = recorded.iter().map(|one| one.header("authorization").expect("a token")).collect();
    assert_eq!(authorized, ["Bearer canary-1", "Bearer canary-2"]);
    assert!(recorded.iter().all(|one| one.connection == 0), "its good connection is kept");
    assert_eq!(pipe.end().await, [Undelivered::default()]);
}
