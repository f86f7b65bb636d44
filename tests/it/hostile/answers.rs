//! A verified peer that answers as no honest server does. It may be scraped or refused; it must never leave anything for
//! the next scrape, nor hold us beyond the deadline.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use meshscrape::config;
use meshscrape::connect::Client;
use meshscrape::model::{Failure, Reason};
use meshscrape::parse::Entry;
use meshscrape::scrape::{Budget, RequestHead, exchange};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::support::gather::Each;
use crate::support::mesh::{Mesh, ONLY_12, ONLY_13, get, scrape};
use crate::support::tls_server::{Reply, Server, Talk, Then};

const SOON: Duration = Duration::from_secs(60);
/// What every path but `/first` is answered with: whatever else comes out of a second scrape was left by the first.
const OWN: &str = "own 1\n";
/// A whole answer that nobody asked for.
const PLANTED: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 10\r\n\r\nplanted 1\n";
const TEXT: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n";

/// Answers `/first` with `first`, and everything else honestly.
fn server(mesh: &Mesh, first: Reply) -> Server {
    let script = move |path: &str| if path == "/first" { first.clone() } else { Reply::ok(OWN) };
    Server::start(Talk::Tls(mesh.cart(), Arc::new(move |asked| script(asked.path()))))
}

/// One scrape as the agent does it, with the samples that would count.
async fn read(client: &mut Client, server: &Server, path: &str) -> Result<Vec<String>, Failure> {
    let text = "scrape_configs: [{job_name: j, static_configs: [{targets: ['h:1']}]}]";
    let config = config::parse(Path::new("hostile.yaml"), text, &|_| None).config.expect("a good configuration");
    let head = RequestHead::new(&config.scrape_configs[0], SOON, Default::default());
    let mut samples = Vec::new();
    let mut each = Each(|entry: &Entry<'_>| {
        if let Entry::Sample(sample) = entry {
            samples.push(format!("{} {}", String::from_utf8_lossy(sample.series.key().as_bytes()), sample.value));
        }
    });
    let (deadline, mut share) = (Instant::now() + SOON, Budget::unlimited().share());
    let (_, outcome) = exchange(client, &server.address(), path, &head, deadline, &mut each, &mut share).await;
    outcome.map(|()| samples)
}

#[tokio::test]
async fn what_follows_an_answer_is_never_the_answer_to_the_next_request() {
    let body = format!("{TEXT}Content-Length: 8\r\n\r\nfirst 1\n");
    let chunked = format!("{TEXT}Transfer-Encoding: chunked\r\n\r\n8\r\nfirst 1\n\r\n0\r\n\r\n");
    let rows = [
        ("a second answer", format!("{body}{PLANTED}")),
        ("a second answer behind chunks", format!("{chunked}{PLANTED}")),
        ("a second answer behind trailers", {
            let trailed = chunked.strip_suffix("\r\n").expect("its last line");
            format!("{trailed}X-Trailer: x\r\n\r\n{PLANTED}")
        }),
        ("the head of an answer", format!("{body}{}", &PLANTED[..20])),
        ("an informational answer", format!("{body}HTTP/1.1 100 Continue\r\n\r\n")),
        ("a timeout nobody waited for", format!("{body}HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")),
        ("one line feed", format!("{body}\n")),
        ("a length and chunks", {
            format!("{TEXT}Content-Length: 8\r\nTransfer-Encoding: chunked\r\n\r\n8\r\nfirst 1\n\r\n0\r\n\r\n{PLANTED}")
        }),
        ("no content, and content", format!("HTTP/1.1 204 No Content\r\nContent-Length: 8\r\n\r\n{PLANTED}")),
        ("not modified, and content", format!("HTTP/1.1 304 Not Modified\r\nContent-Length: 8\r\n\r\n{PLANTED}")),
        ("a redirect", format!("HTTP/1.1 302 Found\r\nLocation: /second\r\nContent-Length: 0\r\n\r\n{PLANTED}")),
        (
            "an upgrade",
            format!("HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n{PLANTED}"),
        ),
    ];
    for versions in [ONLY_13, ONLY_12] {
        let mesh = Mesh::new(versions).await;
        for (name, bytes) in &rows {
            let server = server(&mesh, Reply::raw(bytes.as_bytes(), Then::Keep));
            let mut client = mesh.client();
            let first = read(&mut client, &server, "/first").await;
            let foreign = |samples: &[String]| samples.iter().any(|sample| sample.starts_with("planted"));
            assert!(!first.is_ok_and(|samples| foreign(&samples)), "{name}");
            for _ in 0..2 {
                let own = read(&mut client, &server, "/own").await;
                assert_eq!(own, Ok(vec!["own 1".to_owned()]), "{name}");
            }
            assert_eq!(server.connections(), 2, "{name}");
        }
    }
}

#[tokio::test]
async fn answers_that_no_honest_server_gives() {
    let mesh = Mesh::new(ONLY_13).await;
    let chunks = |what: &str| format!("{TEXT}Transfer-Encoding: chunked\r\n\r\n{what}");
    let much = "x".repeat(20 * 1024);
    for (name, bytes, then, expected) in [
        (
            "headers without end",
            format!("HTTP/1.1 200 OK\r\n{}", "X-Much: x\r\n".repeat(2000)),
            Then::Hang,
            Reason::HttpProtocol,
        ),
        ("one header without end", format!("{TEXT}X: {much}"), Then::Hang, Reason::HttpProtocol),
        ("a thousand small headers", format!("{TEXT}{}\r\n", "a:b\r\n".repeat(1000)), Then::Keep, Reason::HttpProtocol),
        ("a chunk extension without end", chunks(&format!("8;{much}")), Then::Hang, Reason::HttpProtocol),
        ("a chunk size of 20 digits", chunks("fffffffffffffffffffff\r\nx"), Then::Hang, Reason::HttpProtocol),
        ("a negative chunk size", chunks("-8\r\nfirst 1\n\r\n"), Then::Hang, Reason::HttpProtocol),
        ("a chunk longer than it says", chunks("7\r\nfirst 1\n\r\n0\r\n\r\n"), Then::Hang, Reason::HttpProtocol),
        ("trailers without end", chunks(&format!("0\r\nX: {much}")), Then::Hang, Reason::HttpProtocol),
        (
            "two lengths",
            format!("{TEXT}Content-Length: 8\r\nContent-Length: 18\r\n\r\nfirst 1\n"),
            Then::Hang,
            Reason::HttpProtocol,
        ),
        (
            "a length with a sign",
            format!("{TEXT}Content-Length: +8\r\n\r\nfirst 1\n"),
            Then::Hang,
            Reason::HttpProtocol,
        ),
        ("a greeting of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), Then::Hang, Reason::HttpProtocol),
        ("frames of HTTP/2", "\0\0\0\x04\0\0\0\0\0".to_owned(), Then::Hang, Reason::HttpProtocol),
        ("a body without a head", "first 1\nfirst 2\n".to_owned(), Then::Hang, Reason::HttpProtocol),
        ("a NUL in a header", format!("{TEXT}X: \0\r\n\r\n"), Then::Hang, Reason::HttpProtocol),
        (
            "an upgrade",
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n\r\n".to_owned(),
            Then::Hang,
            Reason::HttpStatus,
        ),
        (
            "a status of 999",
            "HTTP/1.1 999 What\r\nContent-Length: 0\r\n\r\n".to_owned(),
            Then::Keep,
            Reason::HttpStatus,
        ),
    ] {
        let server = server(&mesh, Reply::raw(bytes, then));
        let mut client = mesh.client();
        let outcome = read(&mut client, &server, "/first").await;
        assert_eq!(outcome.map_err(|failure| failure.reason), Err(expected), "{name}");
        let own = read(&mut client, &server, "/own").await;
        assert_eq!(own, Ok(vec!["own 1".to_owned()]), "{name}");
    }
}

#[tokio::test]
async fn answers_that_are_odd_and_good() {
    let mesh = Mesh::new(ONLY_13).await;
    for (name, bytes) in [
        (
            "informational answers first",
            format!(
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n{TEXT}Content-Length: 8\r\n\r\nfirst 1\n"
            ),
        ),
        (
            "small chunks with extensions",
            format!(
                "{TEXT}Transfer-Encoding: chunked\r\n\r\n1;a=b\r\nf\r\n7;c\r\nirst 1\n\r\n0\r\nX-Trailer: x\r\n\r\n"
            ),
        ),
        ("bare line feeds", format!("{TEXT}Content-Length: 8\r\n\r\nfirst 1\n").replace("\r\n", "\n")),
    ] {
        let server = server(&mesh, Reply::raw(bytes, Then::Keep));
        let mut client = mesh.client();
        let outcome = read(&mut client, &server, "/first").await;
        assert_eq!(outcome, Ok(vec!["first 1".to_owned()]), "{name}");
        let own = read(&mut client, &server, "/own").await;
        assert_eq!((own, server.connections()), (Ok(vec!["own 1".to_owned()]), 1), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_never_stops_talking_is_left_at_the_deadline() {
    let mesh = Mesh::new(ONLY_13).await;
    let chunked = format!("{TEXT}Transfer-Encoding: chunked\r\n\r\n");
    for (name, first, again) in [
        ("informational answers", "", "HTTP/1.1 100 Continue\r\n\r\n".repeat(600)),
        ("a body", &*format!("{TEXT}\r\n"), "# nothing\n".repeat(1500)),
        ("chunks of one byte", &*chunked, "1\r\n\n\r\n".repeat(2000)),
        ("zeros before a chunk size", &*chunked, "0".repeat(15_000)),
    ] {
        let server = server(&mesh, Reply::raw(first, Then::Keep).flood(again));
        let request = get(&server.address(), "/first", Duration::from_millis(200));
        let (failure, _) = scrape(&mut mesh.client(), &request).await.expect_err("it has no end");
        assert_eq!(failure.reason, Reason::Timeout, "{name}: {failure}");
    }
}

#[tokio::test]
async fn a_peer_that_drips_is_left_at_the_deadline() {
    let mesh = Mesh::new(ONLY_13).await;
    let whole = format!("{TEXT}Content-Length: 1000\r\n\r\n{}", "first 1\n".repeat(125));
    for (name, first, drops) in [
        ("the head", "", whole.clone()),
        ("informational answers", "", "HTTP/1.1 100 Continue\r\n\r\n".to_owned()),
        ("the body", &*format!("{TEXT}Content-Length: 1000\r\n\r\n"), "first 1\n".to_owned()),
        ("a chunk extension", &*format!("{TEXT}Transfer-Encoding: chunked\r\n\r\n8"), ";x".to_owned()),
        ("trailers", &*format!("{TEXT}Transfer-Encoding: chunked\r\n\r\n0\r\n"), "X: x\r\n".to_owned()),
    ] {
        let server = server(&mesh, Reply::raw(first, Then::Keep).drip(drops));
        let request = get(&server.address(), "/first", SOON);
        let mut client = mesh.client();
        // Time stands still while the connection is made, and then passes from drop to drop.
        let waited = async {
            server.hanging().await;
            tokio::time::pause();
            std::future::pending::<()>().await
        };
        let outcome =
            tokio::select! { outcome = scrape(&mut client, &request) => outcome, () = waited => unreachable!() };
        tokio::time::resume();
        let (failure, _) = outcome.expect_err("it takes too long");
        assert_eq!(failure.reason, Reason::Timeout, "{name}: {failure}");
    }
}

#[tokio::test]
async fn a_root_withdrawn_in_the_middle_of_an_answer_takes_the_samples_with_it() {
    for versions in [ONLY_13, ONLY_12] {
        let mesh = Mesh::new(versions).await;
        let go_on = Arc::new(Notify::new());
        let first = Reply::raw(format!("{TEXT}Content-Length: 16\r\n\r\nfirst 1\n"), Then::Keep);
        let server = server(&mesh, first.later(Arc::clone(&go_on), "second 2"));
        let mut client = mesh.client();
        let withdrawn = async {
            server.hanging().await;
            mesh.reload(|certs| certs.write_roots(&[&mesh.other])).await;
            go_on.notify_one();
        };
        let (outcome, ()) = tokio::join!(read(&mut client, &server, "/first"), withdrawn);
        assert_eq!(outcome.map_err(|failure| failure.reason), Err(Reason::VerificationEnded));
        // Brought back, it is believed again, on a connection of its own.
        mesh.reload(|certs| certs.write_roots(&[&mesh.ca])).await;
        let own = read(&mut client, &server, "/own").await;
        assert_eq!((own, server.connections()), (Ok(vec!["own 1".to_owned()]), 2));
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).expect("in memory");
    encoder.finish().expect("in memory")
}

/// A whole answer with this compressed body.
fn packed(body: &[u8]) -> Reply {
    let head = format!("{TEXT}Content-Encoding: gzip\r\nContent-Length: {}\r\n\r\n", body.len());
    Reply::raw([head.as_bytes(), body].concat(), Then::Keep)
}

#[tokio::test]
async fn compressed_bodies_of_every_bad_kind() {
    let mesh = Mesh::new(ONLY_13).await;
    let good = gzip(b"first 1\n");
    let empty = gzip(b"");
    let named = |bytes: usize| {
        // The flag FNAME, and a name of this many bytes (RFC 1952, section 2.3).
        let mut member = good.clone();
        member[3] = 8;
        member.splice(10..10, std::iter::repeat_n(b'x', bytes).chain([0]));
        member
    };
    let bad = |name, body: Vec<u8>| (name, body, Err(Reason::Encoding));
    let one = || Ok(vec!["first 1".to_owned()]);
    for (name, body, expected) in [
        ("thousands of empty members", [empty.repeat(5000), good.clone()].concat(), one()),
        ("a short name", named(100), one()),
        bad("a name of 100 KB", named(100_000)),
        bad("garbage behind a member", [good.clone(), b"first 2\n".to_vec()].concat()),
        bad("half a header behind a member", [good.clone(), good[..5].to_vec()].concat()),
        bad("a member cut off behind a good one", [good.clone(), good[..good.len() - 3].to_vec()].concat()),
        ("packed twice", gzip(&good), Err(Reason::Parse)),
        bad("not packed at all", b"first 1\n".to_vec()),
        bad("another method", [&good[..2], &[7], &good[3..]].concat()),
        bad("another length", [&good[..good.len() - 4], &[9, 0, 0, 0]].concat()),
    ] {
        let server = server(&mesh, packed(&body));
        let outcome = read(&mut mesh.client(), &server, "/first").await;
        assert_eq!(outcome.map_err(|failure| failure.reason), expected, "{name}");
    }
}
