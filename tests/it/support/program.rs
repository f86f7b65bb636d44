//! The program under test as a process of its own: it is gone when its value is dropped, and nobody waits for it for ever.

use std::fs::File;
use std::io::{Read, Seek};
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::agent::eventually;
use super::http;
use super::usage::Usage;

/// How long it may take to end. Generous: only a failure waits this long.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running program. What it prints goes to files without a name, which never fill up as pipes do.
pub(crate) struct Program {
    child: Child,
    stdout: File,
    stderr: File,
}

impl Program {
    /// Starts `meshscrape` with these arguments.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_meshscrape"));
        // The name of the node as the DaemonSet's manifest gives it.
        command.args(arguments).env_remove("MESHSCRAPE_CERTS_DIR").env("NODE_NAME", "node-1");
        Self::spawn(command)
    }

    /// Starts any command that becomes the program.
    pub(crate) fn spawn(mut command: Command) -> Self {
        let file = || tempfile::tempfile().expect("a temporary file");
        let (stdout, stderr) = (file(), file());
        let handle = |file: &File| Stdio::from(file.try_clone().expect("a second handle"));
        let child = command
            .stdin(Stdio::null())
            .stdout(handle(&stdout))
            .stderr(handle(&stderr))
            .spawn()
            .expect("the program starts");
        Self { child, stdout, stderr }
    }

    /// Sends it a signal, such as `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().expect("kill runs");
        assert!(sent.success());
    }

    /// What it has used so far.
    pub(crate) fn usage(&self) -> Usage {
        Usage::of(self.child.id())
    }

    /// What it has said so far on standard error.
    pub(crate) fn said(&self) -> String {
        let mut bytes = vec![0; self.stderr.metadata().expect("an open file").len() as usize];
        // Not by the handle's position, which is where the program writes.
        self.stderr.read_exact_at(&mut bytes, 0).expect("a readable file");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Where its probes and `/metrics` are; waits for it to say so.
    pub(crate) async fn listen(&self) -> SocketAddr {
        let address = async || {
            let said = self.said();
            said.split_once("listen=").and_then(|(_, rest)| rest.split_whitespace().next()?.parse().ok())
        };
        eventually("it says where it listens", address).await
    }

    /// Where its API is, once it has said where it listens.
    pub(crate) fn api(&self) -> SocketAddr {
        let said = self.said();
        let address = said.split_once(" api=").and_then(|(_, rest)| rest.split_whitespace().next()?.parse().ok());
        address.unwrap_or_else(|| panic!("no API: {said}"))
    }

    /// The sum of one of its own metrics over all its series.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let address = self.listen().await;
        // It hangs up on who takes too long to ask, as a test may that has much to do.
        let answer = eventually("/metrics answers", async || http::get(address, "/metrics").await.ok()).await;
        let lines = answer.text().lines().filter(|line| line.split(['{', ' ']).next() == Some(name));
        let values: Vec<f64> =
            lines.map(|line| line.rsplit(' ').next().expect("a value").parse().expect("a number")).collect();
        assert!(!values.is_empty(), "{name} is not in\n{}", answer.text());
        values.iter().sum()
    }

    /// Waits for its end and gives what it printed.
    pub(crate) async fn end(self) -> Output {
        self.end_within(PATIENCE).await
    }

    /// The same for what takes its time.
    pub(crate) async fn end_within(mut self, patience: Duration) -> Output {
        let deadline = Instant::now() + patience;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("a child of ours") {
                break status;
            }
            if Instant::now() >= deadline {
                panic!("it still runs after {patience:?}:\n{}", String::from_utf8_lossy(&read(&mut self.stderr)));
            }
            sleep(Duration::from_millis(5)).await;
        };
        Output { status, stdout: read(&mut self.stdout), stderr: read(&mut self.stderr) }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Errors would mean that it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(file: &mut File) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.rewind().expect("a file can be rewound");
    file.read_to_end(&mut bytes).expect("a readable file");
    bytes
}
