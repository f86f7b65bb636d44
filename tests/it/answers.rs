//! What an answer may look like: statuses, content types, compression, ends and sizes, each from a real server, read with
//! the agent's own exchange.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use meshscrape::clock::Clock;
use meshscrape::config;
use meshscrape::connect::Client;
use meshscrape::label::targets_of;
use meshscrape::model::{Candidate, Failure, Reason};
use meshscrape::parse::Entry;
use meshscrape::scrape::{Budget, Exchange, RequestHead, exchange};
use tokio::time::Instant;

use crate::support::gather::Each;
use crate::support::tls_server::{Asked, Reply, Server, Talk, Then, always};

/// Scrapes `server` once as a job with these extra keys would; the samples as `name=value`.
async fn ask(server: &Server, keys: &str) -> (Exchange, Result<Vec<String>, Failure>) {
    ask_within(server, keys, Duration::from_secs(20)).await
}

async fn ask_within(server: &Server, keys: &str, time: Duration) -> (Exchange, Result<Vec<String>, Failure>) {
    let text =
        format!("scrape_configs:\n- job_name: j\n  static_configs: [{{targets: ['{}']}}]\n{keys}", server.address());
    let config = config::parse(Path::new("answers.yaml"), &text, &|_| None).config.expect("a good configuration");
    let job = &config.scrape_configs[0];
    let labels = [("__address__", server.address().to_string())].into_iter().collect();
    let targets = targets_of(job, &[Candidate { labels, source: "test".into(), pod: None }], None);
    let target = &targets.active[0];
    let mut client = Client::for_target(target, job, None, None, &Clock::system()).expect("a plain client");
    let mut samples = Vec::new();
    let mut each = Each(|entry: &Entry<'_>| {
        if let Entry::Sample(sample) = entry {
            samples.push(format!("{}={}", String::from_utf8_lossy(sample.series.key().as_bytes()), sample.value));
        }
    });
    let head = RequestHead::new(job, target.timeout, target.histograms);
    let deadline = Instant::now() + time;
    let (path, mut share) = (&target.path_and_query, Budget::unlimited().share());
    let (seen, outcome) = exchange(&mut client, &target.address, path, &head, deadline, &mut each, &mut share).await;
    (seen, outcome.map(|()| samples))
}

async fn answer(reply: Reply, keys: &str) -> Result<Vec<String>, Failure> {
    ask(&Server::start(Talk::Plain(always(reply))), keys).await.1
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes()).expect("in memory");
    encoder.finish().expect("in memory")
}

/// A whole answer with these header lines and body bytes.
fn reply(status: &str, headers: &[&str], body: &[u8]) -> Reply {
    let mut bytes = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n", body.len());
    for header in headers {
        bytes.push_str(header);
        bytes.push_str("\r\n");
    }
    bytes.push_str("\r\n");
    let mut bytes = bytes.into_bytes();
    bytes.extend_from_slice(body);
    Reply::raw(bytes, Then::Close)
}

const TEXT: &str = "Content-Type: text/plain; version=0.0.4";
const OPENMETRICS: &str = "Content-Type: application/openmetrics-text; version=1.0.0; charset=utf-8";
const GZIP: &str = "Content-Encoding: gzip";
const COMPLETE: &str = "  require_complete: true\n";

#[tokio::test]
async fn good_answers() {
    let two = gzip("a 1\n").into_iter().chain(gzip("b 2\n")).collect::<Vec<u8>>();
    for (name, reply, keys, samples) in [
        ("text", reply("200 OK", &[TEXT], b"a 1\nb 2\n"), "", vec!["a=1", "b=2"]),
        ("OpenMetrics", reply("200 OK", &[OPENMETRICS], b"a 1\n# EOF\n"), COMPLETE, vec!["a=1"]),
        ("no line feed after EOF", reply("200 OK", &[OPENMETRICS], b"a 1\n# EOF"), COMPLETE, vec!["a=1"]),
        ("gzip", reply("200 OK", &[TEXT, GZIP], &gzip("a 1\n")), COMPLETE, vec!["a=1"]),
        ("two gzip members", reply("200 OK", &[TEXT, GZIP], &two), "", vec!["a=1", "b=2"]),
        (
            "Envoy's content type",
            reply("200 OK", &["Content-Type: text/plain; charset=UTF-8"], b"a{} 1\n"),
            "",
            vec!["a{}=1"],
        ),
        ("no last line feed", reply("200 OK", &[TEXT], b"a 1\nb 2"), "", vec!["a=1", "b=2"]),
        ("an empty body of no type", reply("200 OK", &[], b""), COMPLETE, vec![]),
        ("an empty body of any type", reply("200 OK", &["Content-Type: text/html"], b""), COMPLETE, vec![]),
        ("an empty body, compressed", reply("200 OK", &[TEXT, GZIP], &gzip("")), COMPLETE, vec![]),
        (
            "the fallback for no type",
            reply("200 OK", &[], b"a 1\n"),
            "  fallback_scrape_protocol: PrometheusText0.0.4\n",
            vec!["a=1"],
        ),
        (
            "an encoding nobody asked for, in plain",
            reply("200 OK", &[TEXT, "Content-Encoding: x-none"], b"a 1\n"),
            "",
            vec!["a=1"],
        ),
        ("one byte below the limit", reply("200 OK", &[TEXT], b"a 1\n"), "  body_size_limit: 5B\n", vec!["a=1"]),
    ] {
        let outcome = answer(reply, keys).await;
        assert_eq!(
            outcome.map_err(|failure| failure.to_string()),
            Ok(samples.into_iter().map(str::to_owned).collect()),
            "{name}"
        );
    }
}

#[tokio::test]
async fn answers_that_fail() {
    let cut = gzip("a 1\nb 2\nc 3\n");
    let cut = &cut[..cut.len() - 9];
    let mut wrong_sum = gzip("a 1\n");
    let at = wrong_sum.len() - 8;
    wrong_sum[at] ^= 1;
    for (name, reply, keys, reason) in [
        ("201", reply("201 Created", &[TEXT], b"a 1\n"), "", Reason::HttpStatus),
        ("204", Reply::raw("HTTP/1.1 204 No Content\r\n\r\n", Then::Close), "", Reason::HttpStatus),
        ("404", reply("404 Not Found", &[TEXT], b"a 1\n"), "", Reason::HttpStatus),
        ("503", reply("503 Service Unavailable", &[TEXT], b"a 1\n"), "", Reason::HttpStatus),
        ("no type", reply("200 OK", &[], b"a 1\n"), "", Reason::ContentType),
        ("html", reply("200 OK", &["Content-Type: text/html"], b"a 1\n"), "", Reason::ContentType),
        ("malformed type", reply("200 OK", &["Content-Type: text/plain; =x"], b"a 1\n"), "", Reason::ContentType),
        ("nothing where gzip is announced", reply("200 OK", &[TEXT, GZIP], b""), "", Reason::Encoding),
        ("gzip that is none", reply("200 OK", &[TEXT, GZIP], b"a 1\n"), "", Reason::Encoding),
        ("gzip cut off", reply("200 OK", &[TEXT, GZIP], cut), "", Reason::Encoding),
        ("gzip with a wrong checksum", reply("200 OK", &[TEXT, GZIP], &wrong_sum), "", Reason::Encoding),
        ("a torn line", reply("200 OK", &[TEXT], b"a 1\nb_truncated 12"), COMPLETE, Reason::Truncated),
        ("a torn name", reply("200 OK", &[TEXT], b"a 1\nb_trun"), COMPLETE, Reason::Truncated),
        ("no EOF", reply("200 OK", &[OPENMETRICS], b"a 1\n"), COMPLETE, Reason::Truncated),
        ("no EOF, which OpenMetrics never allows", reply("200 OK", &[OPENMETRICS], b"a 1\n"), "", Reason::Parse),
        ("an EOF without line feed, in text", reply("200 OK", &[TEXT], b"a 1\n# EOF"), COMPLETE, Reason::Truncated),
        ("half an EOF", reply("200 OK", &[OPENMETRICS], b"a 1\n# E"), COMPLETE, Reason::Truncated),
        ("a line that cannot be read", reply("200 OK", &[TEXT], b"a 1\nb x\nc 3\n"), COMPLETE, Reason::Parse),
        ("exactly the limit", reply("200 OK", &[TEXT], b"a 1\n"), "  body_size_limit: 4B\n", Reason::BodyTooLarge),
        (
            "over the limit when unpacked",
            reply("200 OK", &[TEXT, GZIP], &gzip(&"a 1\n".repeat(10_000))),
            "  body_size_limit: 1KB\n",
            Reason::BodyTooLarge,
        ),
        ("a line without end", reply("200 OK", &[TEXT], &vec![b'a'; 3 << 20]), "", Reason::Parse),
    ] {
        match answer(reply, keys).await {
            Ok(samples) => panic!("{name}: {samples:?} were accepted"),
            Err(failure) => assert_eq!(failure.reason, reason, "{name}: {failure}"),
        }
    }
}

#[tokio::test]
async fn a_bomb_stops_at_the_ceiling() {
    // 300 MiB of comments in some 300 KiB.
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    let line = format!("#{}\n", "x".repeat(1022));
    for _ in 0..300 << 10 {
        encoder.write_all(line.as_bytes()).expect("in memory");
    }
    let bomb = encoder.finish().expect("in memory");
    assert!(bomb.len() < 2 << 20, "{}", bomb.len());
    let failure = answer(reply("200 OK", &[TEXT, GZIP], &bomb), "").await.expect_err("refused");
    assert_eq!(failure.reason, Reason::BodyTooLarge, "{failure}");
    assert!(failure.hint().starts_with("body_size_limit cannot be raised above this ceiling"), "{}", failure.hint());
}

/// Data that never ceases to come, and unpacks to much, does not outlast the deadline.
#[tokio::test]
async fn the_deadline_holds_while_data_comes() {
    // 100 MiB of line feeds in 100 KiB: seconds of parsing.
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    for _ in 0..100 {
        encoder.write_all(&vec![b'\n'; 1 << 20]).expect("in memory");
    }
    let body = encoder.finish().expect("in memory");
    let server = Server::start(Talk::Plain(always(reply("200 OK", &[TEXT, GZIP], &body))));
    let started = Instant::now();
    let (seen, outcome) = ask_within(&server, "", Duration::from_millis(300)).await;
    assert_eq!(outcome.expect_err("no time").reason, Reason::Timeout);
    assert!(seen.body_bytes < 90 << 20, "{} bytes were unpacked all the same", seen.body_bytes);
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_parse_error_names_line_and_column() {
    let failure = answer(reply("200 OK", &[TEXT], b"a 1\nb{x=\"1\" 2\n"), "").await.expect_err("refused");
    assert!(failure.detail.starts_with("line 2, column "), "{failure}");
}

#[tokio::test]
async fn the_request_says_what_is_wanted() {
    let server = Server::start(Talk::Plain(always(Reply::ok("a 1\n"))));
    let keys = "  scrape_timeout: 10s\n  scrape_interval: 30s\n  params: {b: ['1 2', x], a: [y]}\n";
    let (seen, outcome) = ask(&server, keys).await;
    assert_eq!(outcome, Ok(vec!["a=1".to_owned()]));
    assert_eq!((seen.status, seen.body_bytes, seen.wire_bytes), (Some(200), 4, 4));
    let asked: &Asked = &server.requests()[0];
    assert_eq!(asked.path(), "/metrics?a=y&b=1+2&b=x");
    assert_eq!(asked.header("host"), Some(&*server.address().to_string()));
    assert_eq!(asked.header("accept-encoding"), Some("gzip"));
    assert_eq!(asked.header("x-prometheus-scrape-timeout-seconds"), Some("10"));
    assert!(asked.header("user-agent").is_some_and(|agent| agent.starts_with("meshscrape/")));
    assert!(
        asked.header("accept").is_some_and(|accept| accept.starts_with("application/openmetrics-text;version=1.0.0"))
    );
}

#[tokio::test]
async fn istio_is_promised_less_time_than_there_is() {
    for (timeout, promised) in [("10s", "9"), ("20s", "14"), ("1s", "0.9")] {
        let server = Server::start(Talk::Plain(always(Reply::ok("a 1\n"))));
        let keys =
            format!("  scrape_interval: 1m\n  scrape_timeout: {timeout}\n  enable_compression: false\n{COMPLETE}");
        ask(&server, &keys).await.1.expect("scraped");
        let asked = &server.requests()[0];
        assert_eq!(asked.header("x-prometheus-scrape-timeout-seconds"), Some(promised), "{timeout}");
        assert_eq!(asked.header("accept-encoding"), Some("identity"));
    }
}

/// How a target repeats what it was told.
type Repeats = fn(&Asked) -> Reply;

/// What a request told that nobody is to see.
fn repeated(asked: &Asked) -> String {
    ["authorization", "x-key"].iter().filter_map(|name| asked.header(name)).collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn a_target_that_repeats_our_secrets_does_not_bring_them_to_light() {
    const KEYS: [&str; 2] = [
        "  scheme: http\n  basic_auth: {username: me, password: canary-in-a-password}\n",
        "  scheme: http\n  authorization: {credentials: canary-in-a-token}\n  \
         http_headers: {X-Key: {secrets: [canary-in-a-header]}}\n",
    ];
    let secrets =
        ["canary-in-a-password", "canary-in-a-token", "canary-in-a-header", "bWU6Y2FuYXJ5LWluLWEtcGFzc3dvcmQ="];
    // Of a text that was cut, less than eight characters may be left.
    let runs = secrets.iter().flat_map(|secret| secret.as_bytes().array_windows::<8>());
    let repeats: [(Reason, Repeats); 4] = [
        (Reason::ContentType, |asked| {
            let header = format!("Content-Type: {}", repeated(asked));
            Reply::with("200 OK", &[&header], "a 1\n")
        }),
        (Reason::Parse, |asked| {
            let body = format!("a {}\n", repeated(asked).replace(' ', "-"));
            Reply::with("200 OK", &["Content-Type: text/plain"], &body)
        }),
        // The excerpt in the error is cut anywhere.
        (Reason::Parse, |asked| {
            let word = asked.header("authorization").unwrap_or_default().rsplit(' ').next().unwrap_or_default();
            Reply::with(
                "200 OK",
                &["Content-Type: text/plain"],
                &format!("a {}{word}{}\n", "x".repeat(20), word.repeat(20)),
            )
        }),
        (Reason::RedirectRefused, |asked| {
            Reply::redirect(302, &format!("ftp://elsewhere/{}", repeated(asked).replace(' ', "/")))
        }),
    ];
    for keys in KEYS {
        for (reason, reply) in repeats {
            let server = Server::start(Talk::Plain(std::sync::Arc::new(reply)));
            let (seen, outcome) = ask(&server, keys).await;
            let failure = outcome.expect_err("it cannot be read");
            assert_eq!(failure.reason, reason, "{failure}");
            assert!(failure.detail.contains("<secret>"), "{failure}");
            let told = format!("{failure} {:?} {:?}", seen.content_type, seen.encoding);
            let shown = |run: &&[u8; 8]| told.as_bytes().windows(8).any(|window| window == *run);
            assert_eq!(runs.clone().find(shown), None, "{told}");
        }
    }
}
