//! What the suite itself would start, as it starts it: `tests/compliance.sh` in an empty directory, stopped by SIGINT.
//!
//! The suite stops a sender after so many seconds. Here it is stopped after so many scrapes, one a second, which is the same
//! where a machine is not loaded.

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tempfile::TempDir;

use super::message;
use crate::support::agent;
use crate::support::program::Program;
use crate::support::receiver::{Answer, OF_2, Receiver, Recorded, Rule, always, confirming};
use crate::support::tls_server::{Reply, Server, Talk};

/// As many series as the suite's test of symbols has.
const FOUR_SERIES: &str = "\
http_total{code=\"200\",method=\"GET\"} 1
http_total{code=\"404\",method=\"GET\"} 2
http_total{code=\"200\",method=\"POST\"} 3
http_total{code=\"500\",method=\"POST\"} 4
";

/// What a scrape says of itself.
const ABOUT_A_SCRAPE: usize = 5;

/// What came of a sender that was stopped after so many scrapes.
struct Ran {
    recorded: Vec<Recorded>,
    /// How long it ran.
    lasted: Duration,
    said: String,
}

async fn run(exposition: &'static str, rule: Rule, scrapes: usize) -> Ran {
    let target = Server::start(Talk::Plain(Arc::new(move |_| Reply::ok(exposition))));
    let receiver = Receiver::start(rule).await;
    let dir = TempDir::new().expect("a directory");
    let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/compliance.sh"));
    let endpoint = format!("http://{}", receiver.address());
    command.args([target.socket().to_string(), endpoint]).current_dir(dir.path());
    command.env("MESHSCRAPE", env!("CARGO_BIN_EXE_meshscrape"));
    let started = Instant::now();
    let program = Program::spawn(command);
    agent::eventually("so many scrapes", async || (target.requests().len() >= scrapes).then_some(())).await;
    program.signal("INT");
    let output = program.end().await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    Ran { recorded: receiver.recorded(), lasted: started.elapsed(), said }
}

/// `TestSymbolTableEfficiency` beside that: four series and what scrapes say of themselves need no more than thirty symbols.
#[tokio::test]
async fn the_launcher_for_the_suite_makes_a_sender() {
    let Ran { recorded, .. } = run(FOUR_SERIES, confirming(), 3).await;
    assert!(recorded.iter().all(|one| one.header("content-type") == Some(OF_2)));
    let last = message(recorded.last().expect("what waited was flushed"));
    let (whole, of_one) = (last.timeseries.len(), 4 + ABOUT_A_SCRAPE);
    // Symbols are to be used again from one scrape to the next.
    assert!(whole.is_multiple_of(of_one) && whole >= 2 * of_one, "{whole} entries");
    assert!(last.symbols.len() <= 30, "{:?}", last.symbols);
}

/// `TestRetryBehavior/no_retry_on_…` with the list's bound, two requests in eight seconds: one every five, for which a request waits,
/// and the last one at the end; and `TestResponseProcessing/log_error_messages_verbatim`.
#[tokio::test]
async fn what_is_refused_for_good_costs_one_request_and_its_words_are_logged() {
    let runs = [400, 401, 404, 413, 422].map(async |status| {
        let words = format!("series {status}: 'ümlaut' is 100 % too long");
        let refusing = always(Answer::status(status).saying(words.clone()));
        let Ran { recorded, lasted, said } = run("x 1\n", refusing, 8).await;
        let (came, most) = (recorded.len() as u64, 1 + lasted.as_secs() / 5);
        assert!((1..=most).contains(&came), "{status}: {came} requests in {lasted:?}\n{said}");
        assert!(said.contains(&words), "{status}: {words} is not in\n{said}");
    });
    join_all(runs).await;
}
