//! A real program beside the tests: found, started, awaited, and gone when its value is dropped.
//!
//! It also goes when the test run ends or dies, however that happens, and its directory with it: it is killed once the
//! pipe from us closes. What it prints goes to a file, and the end of that file into the message of a test that waited for
//! it in vain.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use super::usage::Usage;

/// How long a peer may take for anything it is asked to do. Generous: only a failure waits this long.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs the program given as arguments, notes its process id, kills it when standard input ends, and ends only after it.
/// The directory goes only with a program that was killed: one that ended by itself has a log to be read.
const KEEPER: &str = r#"
exec 3<&0 </dev/null
"$@" 3<&- &
peer=$!
echo $peer >pid
{ read -r _ <&3; : >over; kill -KILL $peer; } &
wait $peer
status=$?
kill -KILL $!
[ -e over ] && rm -rf "$(pwd -P)"
exit $status
"#;

/// A running program with a directory of its own.
pub(crate) struct Process {
    name: &'static str,
    keeper: Child,
    dir: TempDir,
}

impl Process {
    /// Starts the peer `name` as `tests/peers.sh` finds it, with what `arguments` makes of its directory.
    pub(crate) fn start<A: AsRef<OsStr>>(name: &'static str, dir: TempDir, arguments: &[A]) -> Self {
        let log = File::create(dir.path().join("log")).expect("a log file");
        let keeper = Command::new("sh")
            .args(["-c", KEEPER, "keeper"])
            .arg(find(name))
            .args(arguments)
            .current_dir(dir.path())
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("sh starts");
        Self { name, keeper, dir }
    }

    /// Its directory, for its files.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Sends the program a signal, such as `STOP`.
    pub(crate) async fn signal(&mut self, name: &str) {
        let pid = self.pid().await;
        let sent = Command::new("kill").args(["-s", name, &pid.to_string()]).status().expect("kill runs");
        assert!(sent.success());
    }

    /// What the program has used so far.
    pub(crate) async fn usage(&mut self) -> Usage {
        Usage::of(self.pid().await)
    }

    async fn pid(&mut self) -> u32 {
        let file = self.dir.path().join("pid");
        let noted = async || std::fs::read_to_string(&file).ok()?.strip_suffix('\n')?.parse().ok();
        self.until("its process id is noted", noted).await
    }

    /// The rest of the first line of its log that contains `words`, behind them; waits for it.
    pub(crate) async fn says(&mut self, words: &str) -> String {
        let log = self.dir.path().join("log");
        self.until(words, async || {
            let text = std::fs::read_to_string(&log).expect("the log");
            let whole_lines = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
            whole_lines.lines().find_map(|line| line.split_once(words)).map(|(_, rest)| rest.to_owned())
        })
        .await
    }

    /// Asks again and again until there is an answer. Fails the test with the end of the log when the program ends or
    /// [`PATIENCE`] does; `what` says what was waited for.
    pub(crate) async fn until<T>(&mut self, what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            if let Some(status) = self.keeper.try_wait().expect("a child of ours") {
                panic!("{} ended ({status}) before: {what}\n{}", self.name, self.log_tail());
            }
            assert!(Instant::now() < deadline, "{} never: {what}\n{}", self.name, self.log_tail());
            sleep(Duration::from_millis(5)).await;
        }
    }

    fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The keeper reads the end of its input, kills the program, and ends after it.
        drop(self.keeper.stdin.take());
        // An error would mean that it is gone already.
        let _ = self.keeper.wait();
    }
}

/// The path of a peer; fails the test with the script's own sentence when there is none.
pub(crate) fn find(name: &'static str) -> PathBuf {
    static FOUND: LazyLock<Mutex<HashMap<&'static str, PathBuf>>> = LazyLock::new(Mutex::default);
    if let Some(path) = FOUND.lock().expect("no panic while it is held").get(name) {
        return path.clone();
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers.sh");
    let output = Command::new(script).args(["find", name]).output().expect("tests/peers.sh runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim_end());
    let path = PathBuf::from(OsString::from(String::from_utf8(output.stdout).expect("a path").trim_end()));
    FOUND.lock().expect("no panic while it is held").insert(name, path.clone());
    path
}
