//! What the agent does on every sort of answer: one agent, and a receiver for each test.

use std::time::Duration;

use tempfile::TempDir;
use tokio::time::Instant;

use super::message;
use crate::support::agent;
use crate::support::program::Program;
use crate::support::receiver::{Answer, OF_2, Receiver, Recorded, Rule, always, confirming, script};
use crate::support::tls_server::{Reply, Server, Talk};

/// The first pause at least, and the longest.
const MIN_BACKOFF: Duration = Duration::from_millis(500);
const MAX_BACKOFF: Duration = Duration::from_secs(2);

/// A test of the list: how the receiver answers, and what must have come when it is over.
struct Case {
    name: &'static str,
    rule: Rule,
    holds: fn(&[Recorded]) -> bool,
}

fn case(name: &'static str, rule: Rule, holds: fn(&[Recorded]) -> bool) -> Case {
    Case { name, rule, holds }
}

/// First these answers, then everything is taken and confirmed.
fn then_confirming(answers: Vec<Answer>) -> Rule {
    let mut first = script(answers.clone());
    let mut left = answers.len();
    Box::new(move |request| {
        if left == 0 {
            return Answer::ok().confirming(request);
        }
        left -= 1;
        first(request)
    })
}

/// No request is sent again, and the next samples come all the same.
fn never_again(recorded: &[Recorded]) -> bool {
    recorded.len() >= 2
        && recorded.iter().all(|one| one.header("retry-attempt").is_none())
        && recorded.windows(2).all(|pair| pair[0].body != pair[1].body)
}

/// The first request is sent again, and then others.
fn again_and_on(recorded: &[Recorded]) -> bool {
    recorded.len() >= 3
        && recorded[0].body == recorded[1].body
        && recorded[1].header("retry-attempt") == Some("1")
        && recorded[2].header("retry-attempt").is_none()
}

/// One request again and again, each pause at least half again as long as the one before may have been, up to the longest. A
/// loaded machine only adds to them.
fn with_growing_pauses(recorded: &[Recorded]) -> bool {
    let gaps: Vec<_> = recorded.windows(2).map(|pair| pair[1].at - pair[0].at).collect();
    let shortest = std::iter::successors(Some(MIN_BACKOFF), |pause| Some(pause.mul_f64(1.5).min(MAX_BACKOFF)));
    gaps.len() >= 3
        && gaps.iter().zip(shortest).all(|(gap, shortest)| (shortest..=Duration::from_secs(60)).contains(gap))
        && recorded.iter().all(|one| one.body == recorded[0].body)
}

fn versions(recorded: &[Recorded]) -> Vec<bool> {
    recorded.iter().map(|one| one.header("content-type") == Some(OF_2)).collect()
}

/// 2.0 once, and from then on 1.0, with the same samples.
fn falls_back(recorded: &[Recorded]) -> bool {
    let versions = versions(recorded);
    versions.len() >= 3
        && versions[0]
        && versions[1..].iter().all(|of_2| !of_2)
        && recorded[0].samples == recorded[1].samples
        && recorded[1].header("x-prometheus-remote-write-version") == Some("0.1.0")
}

fn cases() -> Vec<Case> {
    let large = || Answer::status(400).saying(vec![b'x'; 1 << 20]);
    let final_ones = [
        ("TestRetryBehavior/no_retry_on_400", Answer::status(400)),
        ("TestRetryBehavior/no_retry_on_401", Answer::status(401)),
        ("TestRetryBehavior/no_retry_on_404", Answer::status(404)),
        ("TestRetryBehavior/no_retry_on_413", Answer::status(413)),
        ("TestErrorHandling/handle_partial_write, TestResponseProcessing/handle_partial_write_response", {
            Answer::status(400).header("x-prometheus-remote-write-samples-written", "3").saying("out of order")
        }),
        ("TestErrorHandling/handle_large_error_response, TestResponseProcessing/handle_large_error_body", large()),
        ("a request that the receiver cannot process", Answer::status(422).saying("series 7 is too long")),
        ("TestResponseProcessing/handle_missing_written_headers", Answer::status(204)),
    ];
    let passing = [
        ("TestRetryBehavior/retry_on_500", Answer::status(500)),
        ("TestRetryBehavior/retry_on_502", Answer::status(502)),
        ("TestRetryBehavior/retry_on_503", Answer::status(503)),
        ("TestRetryBehavior/retry_on_504", Answer::status(504)),
        ("TestRetryBehavior/may_retry_on_429", Answer::status(429).header("retry-after", "1")),
        ("TestErrorHandling/handle_invalid_status_code", Answer::status(999)),
        ("TestErrorHandling/handle_empty_response, /sender_continues_after_errors", Answer::cut()),
        ("TestErrorHandling/handle_timeout", Answer::hang()),
    ];
    let taken = [
        ("TestResponseProcessing/handle_200_ok", Answer::status(200)),
        ("TestResponseProcessing/handle_204_no_content", Answer::status(204)),
        (
            "TestResponseProcessing/ignore_response_body_on_success",
            Answer::status(200).saying("an error, or so it seems"),
        ),
    ];
    let mut cases = Vec::new();
    cases.extend(final_ones.map(|(name, answer)| case(name, always(answer), never_again)));
    cases.extend(passing.map(|(name, answer)| case(name, then_confirming(vec![answer]), again_and_on)));
    cases.extend(taken.map(|(name, answer)| {
        let rule: Rule = Box::new(move |request| answer.clone().confirming(request));
        case(name, rule, never_again)
    }));
    cases.extend([
        case(
            "TestBackoffBehavior/exponential_backoff_on_retries, /backoff_required, /backoff_max_delay, /backoff_with_jitter",
            always(Answer::status(503)),
            with_growing_pauses,
        ),
        case(
            "TestResponseProcessing/process_written_count_headers, TestNoFallbackOn2xx",
            always(Answer::ok().header("x-prometheus-remote-write-samples-written", "1")),
            |recorded| never_again(recorded) && versions(recorded).into_iter().all(|of_2| of_2),
        ),
        case(
            "TestFallbackBehavior/fallback_on_415_unsupported_media_type, /retry_with_different_version, \
             /fallback_header_changes, /accept_success_after_fallback, /persistent_fallback_choice",
            Box::new(|request| match request.header("content-type") {
                Some(OF_2) => Answer::status(415),
                _ => Answer::ok(),
            }),
            falls_back,
        ),
        case(
            "TestErrorHandling/handle_malformed_response",
            then_confirming(vec![Answer::status(200).saying("cut").cut_inside()]),
            |recorded| recorded.len() >= 3,
        ),
        case("and one that takes everything", confirming(), never_again),
    ]);
    cases
}

fn config(target: &Server, receivers: &[(&'static str, String)]) -> String {
    let mut text = format!(
        "global: {{ scrape_interval: 1s }}
scrape_configs:
  - {{ job_name: test, static_configs: [{{ targets: ['{}'] }}] }}
remote_write:
",
        target.socket()
    );
    for (at, (_, url)) in receivers.iter().enumerate() {
        text += &format!(
            "  - url: {url}
    name: n{at}
    protobuf_message: io.prometheus.write.v2.Request
    remote_timeout: 2s
    queue_config: {{ batch_send_deadline: 100ms, min_backoff: {}ms, max_backoff: {}ms }}
",
            MIN_BACKOFF.as_millis(),
            MAX_BACKOFF.as_millis()
        );
    }
    text
}

fn target() -> Server {
    Server::start(Talk::Plain(std::sync::Arc::new(|_| Reply::ok("x 1\n"))))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_are_understood_as_the_list_asks_for() {
    let mut running = Vec::new();
    for Case { name, rule, holds } in cases() {
        running.push((name, Receiver::start(rule).await, holds));
    }
    let mut receivers: Vec<_> = running.iter().map(|(name, receiver, _)| (*name, receiver.url())).collect();
    receivers.push(("TestErrorHandling/handle_connection_refused", "http://127.0.0.1:9/api/v1/write".to_owned()));
    receivers.push(("TestNetworkErrors/dns_resolution_failure", "http://nobody.invalid/api/v1/write".to_owned()));
    let target = target();
    let dir = TempDir::new().expect("a directory");
    let agent = agent::start(dir.path(), &config(&target, &receivers)).await;

    let deadline = Instant::now() + Duration::from_secs(40);
    let failing = loop {
        let failing: Vec<_> = running.iter().filter(|(_, receiver, holds)| !holds(&receiver.recorded())).collect();
        if failing.is_empty() || Instant::now() > deadline {
            break failing;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    for (name, receiver, _) in &failing {
        let requests: Vec<_> =
            receiver.recorded().iter().map(|one| (one.at, one.headers.clone(), one.status)).collect();
        println!("{name}: {requests:#?}");
    }
    assert_eq!(failing.iter().map(|(name, ..)| name).collect::<Vec<_>>(), [&""; 0]);
    // Whoever hangs, refuses or is not there holds up nobody else: who takes everything has every scrape so far.
    let (_, taking, _) = running.last().expect("the one that takes everything");
    let scraped = target.requests().len();
    let entries = |one: &Recorded| message(one).timeseries.len();
    let all = |recorded: &[Recorded]| recorded.iter().map(entries).sum::<usize>() >= 6 * scraped;
    taking.until("all that was scraped", all).await;
    // Nor does it keep the agent from ending when its time is up.
    agent.stop().await;
}

/// `TestNetworkErrors/invalid_url_scheme`: the file is wrong, and yet the agent does what it can until it is stopped.
#[tokio::test]
async fn a_receiver_that_nobody_can_send_to_is_an_error_that_the_agent_survives() {
    let (target, receiver) = (target(), Receiver::start(confirming()).await);
    let dir = TempDir::new().expect("a directory");
    let file = dir.path().join("meshscrape.yaml");
    let text = config(&target, &[("good", receiver.url()), ("bad", "invalid://localhost:9999".to_owned())]);
    std::fs::write(&file, text).expect("a configuration file");
    let file = file.to_str().expect("a path in UTF-8");

    let checked = Program::start(&["check", "config", file]).end().await;
    let said = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert_eq!(checked.status.code(), Some(1), "{said}");
    assert!(said.contains("remote_write[1].url: the URL begins with \"invalid:\""), "{said}");

    let program = Program::start(&["run", "--config", file, "--listen", "127.0.0.1:0", "--api-listen", "127.0.0.1:0"]);
    receiver.requests(2).await;
    program.signal("INT");
    let output = program.end().await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("the URL begins with") && said.contains("these receivers get nothing"), "{said}");
}
