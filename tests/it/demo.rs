//! The demo as a newcomer runs it: the program itself, for a few seconds.

use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// The demo with `arguments` and a temporary directory of its own.
fn demo(arguments: &[&str], temporary: &TempDir) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_meshscrape"));
    command.arg("demo").args(arguments).env("TMPDIR", temporary.path()).env_remove("NO_COLOR");
    command
}

fn left_behind(temporary: &TempDir) -> usize {
    std::fs::read_dir(temporary.path()).expect("there").count()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn told(output: &Output) -> String {
    format!("{}\n{}", text(&output.stdout), text(&output.stderr))
}

#[test]
fn every_promise_is_kept_and_nothing_is_left_behind() {
    let temporary = TempDir::new().expect("a directory");
    // Long enough for each target to be scraped between any two rotations.
    let output = demo(&["--for", "14s", "--output", "json"], &temporary).output().expect("runs");
    assert!(output.status.success(), "{}", told(&output));
    let outcome: Value = serde_json::from_slice(&output.stdout).expect("one JSON document");
    assert_eq!(outcome["passed"], true);
    assert_eq!(outcome["rotations"]["roots"], "new");
    assert_eq!(outcome["rotations"]["failed_scrapes"], 0);
    assert!(outcome["rotations"]["count"].as_u64() >= Some(4), "{outcome:#}");
    assert_eq!(outcome["delivered"]["marked_series"], 0);
    let targets = outcome["targets"].as_array().expect("a list");
    let named = |name: &str| targets.iter().find(|target| target["name"] == name).expect("listed");
    for good in ["cart", "checkout", "search", "gateway"] {
        assert!(named(good)["samples"].as_u64() > Some(100), "{outcome:#}");
    }
    let payments = named("payments");
    assert_eq!(payments["reason"], "identity_mismatch");
    assert_eq!(payments["expected_identity"], "spiffe://cluster.local/ns/shop/sa/payments");
    assert_eq!(payments["presented_identity"], "spiffe://cluster.local/ns/sandbox/sa/default");
    assert_eq!(payments["samples"], 0);
    assert_eq!(named("legacy")["reason"], "plaintext_server");
    assert_eq!(named("legacy")["samples"], 0);
    assert_eq!(left_behind(&temporary), 0);
}

#[test]
fn a_log_gets_a_line_for_each_change_and_no_escape() {
    let temporary = TempDir::new().expect("a directory");
    let output = demo(&["--for", "6s"], &temporary).output().expect("runs");
    assert!(output.status.success(), "{}", told(&output));
    let lines = text(&output.stdout);
    assert!(!lines.contains('\x1b'), "{lines}");
    for wanted in
        ["scrape_configs:", "__spiffe_id__", "rotation 1:", "identity_mismatch", "plaintext_server", "Verdict"]
    {
        assert!(lines.contains(wanted), "{wanted}: {lines}");
    }
    let of_cart = lines.lines().filter(|line| line.contains("s  cart ")).count();
    assert_eq!(of_cart, 1, "it came up and stayed up: {lines}");
}

#[test]
fn a_run_too_short_to_show_anything_is_a_usage_error() {
    let temporary = TempDir::new().expect("a directory");
    for bad in ["1s", "soon"] {
        let output = demo(&["--for", bad], &temporary).output().expect("runs");
        assert_eq!(output.status.code(), Some(2), "{}", told(&output));
    }
}

#[test]
fn a_receiver_that_is_not_there_breaks_the_promise_to_deliver() {
    let temporary = TempDir::new().expect("a directory");
    let (_bound, nobody) = crate::support::tls_server::closed_port();
    let url = format!("http://{nobody}/api/v1/write");
    let output = demo(&["--for", "6s", "--remote-write", &url], &temporary).output().expect("runs");
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    assert!(text(&output.stdout).contains("broken  what was scraped is delivered"), "{}", told(&output));
}

#[test]
#[cfg(unix)]
fn interrupted_it_still_tells_what_it_saw_and_cleans_up() {
    let temporary = TempDir::new().expect("a directory");
    let mut child = demo(&["--for", "5m"], &temporary).stdout(Stdio::piped()).spawn().expect("runs");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines().map(|line| line.expect("text"));
    // The first rotation is far from the start-up and from the end.
    lines.find(|line| line.contains("rotation 1:")).expect("it rotates");
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("runs");
    assert!(killed.success());
    assert!(lines.any(|line| line.starts_with("Verdict")), "it tells what it saw");
    assert!(child.wait().expect("ends").code().is_some(), "it ends by itself");
    assert_eq!(left_behind(&temporary), 0);
}
