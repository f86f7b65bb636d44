//! The part of "getting started" that needs no cluster is followed to the letter, by a shell: nothing but the ports is changed,
//! because they may be taken here.

use std::fmt::Write as _;
use std::process::{Command, Stdio};

use super::pages::{self, root};

/// All of what is typed there, in its order, with what is printed compared where the page shows it.
#[test]
fn what_can_be_done_by_hand_is_done_by_hand() {
    let pages = pages::all();
    let page = pages.iter().find(|page| page.name == "docs/getting-started.md").expect("the page");
    let (before, _) = page.text.split_once("### By hand\n").expect("the section");
    let first = before.lines().count();
    let blocks: Vec<_> = page.blocks().into_iter().filter(|block| block.line > first).collect();
    assert!(blocks.len() >= 5, "{} blocks", blocks.len());

    let mut script = "set -eu\ntrap 'kill $(jobs -p) 2>/dev/null || :' EXIT\n".to_owned();
    let mut shown = Vec::new();
    for block in &blocks {
        if block.language == "sh" {
            // Standard output is for what is compared.
            let _ = write!(script, "{{\n{}}} >&2\n", block.text);
            continue;
        }
        for line in block.text.lines() {
            match line.strip_prefix("$ ") {
                Some(typed) => {
                    let _ = writeln!(script, "{typed} || :");
                }
                None => shown.push(line.to_owned()),
            }
        }
    }
    for port in ["15092", "19464", "19465"] {
        assert!(script.contains(port), "{port}");
        script = script.replace(port, &free_port());
    }
    // The page ends what it has started, and nothing else.
    script.push_str("wait\n");

    let dir = tempfile::tempdir().expect("a directory");
    let ours = root().join(env!("CARGO_BIN_EXE_meshscrape"));
    let path = format!("{}:{}", ours.parent().expect("a directory").display(), std::env::var("PATH").expect("PATH"));
    let shell = Command::new("timeout")
        .args(["120", "bash", "-c", &script])
        .current_dir(dir.path())
        .env("PATH", path)
        .stdin(Stdio::null())
        .output()
        .expect("bash runs");
    let told = String::from_utf8_lossy(&shell.stderr);
    assert!(shell.status.success(), "{script}\n{told}");
    let printed: Vec<_> = std::str::from_utf8(&shell.stdout).expect("UTF-8").lines().collect();
    assert_eq!(printed, shown, "{script}\n{told}");
}

/// A port that nobody has right now.
fn free_port() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port().to_string()
}
