//! The real program, and the places where it says why a scrape fails: in each of them the same word and the same hint.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use meshscrape::model::Reason;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::job::pod;
use crate::support::agent::eventually;
use crate::support::http;
use crate::support::program::Program;

/// How long anything that must come may take on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running agent.
pub(crate) struct Agent {
    program: Program,
    file: PathBuf,
    /// Where probes and `/metrics` are.
    pub(crate) listen: SocketAddr,
    /// Where page and API are.
    pub(crate) api: SocketAddr,
}

impl Agent {
    /// Starts it with this configuration.
    pub(crate) async fn start(dir: &Path, text: &str) -> Self {
        let file = dir.join("meshscrape.yaml");
        write(&file, text);
        let path = file.to_str().expect("UTF-8");
        let program =
            Program::start(&["run", "--config", path, "--listen", "127.0.0.1:0", "--api-listen", "127.0.0.1:0"]);
        let (listen, api) = (program.listen().await, program.api());
        Self { program, file, listen, api }
    }

    /// Has it read another configuration, as an operator does.
    pub(crate) fn reload(&self, text: &str) {
        write(&self.file, text);
        self.program.signal("HUP");
    }

    /// The targets of the job with this name.
    pub(crate) async fn targets(&self, job: Reason) -> Vec<Value> {
        let path = format!("/api/v1/targets?state=active&scrapePool={job}");
        // It hangs up on who takes too long to ask, as a test may that has much to do.
        let answer = eventually("the API answers", async || http::get(self.api, &path).await.ok()).await;
        answer.json()["data"]["activeTargets"].as_array_mut().map(std::mem::take).expect("a list")
    }

    /// Waits until a target fails for the reason that its job is named after, or lacks something for it; gives the target.
    pub(crate) async fn shows(&self, reason: Reason) -> Value {
        let shown = |target: &Value| target["reason"] == reason.name();
        self.until(reason, "it is provoked", |targets| targets.iter().find(|target| shown(target)).cloned()).await
    }

    /// Waits until all targets of a job are up, and lack nothing.
    pub(crate) async fn is_well(&self, job: Reason) {
        let well = |target: &Value| target["health"] == "up" && target["reason"] == "";
        self.until(job, "it is mended", |targets| (!targets.is_empty() && targets.iter().all(well)).then_some(()))
            .await;
    }

    /// Waits until the target that failed, and no other one, is up.
    pub(crate) async fn scraped_again(&self, job: Reason) {
        let well = |target: &Value| target["labels"]["instance"] == job.name() && target["health"] == "up";
        self.until(job, "it is up by itself", |targets| targets.iter().any(well).then_some(())).await;
    }

    /// Waits until other certificates or roots of ours, which `change` writes, are in use.
    pub(crate) async fn sees_other_certificates(&self, change: impl FnOnce()) {
        let reloads = async || {
            let metrics = http::get(self.listen, "/metrics").await.ok()?;
            let of_own = |line: &&str| line.starts_with("meshscrape_identity_reloads_total{");
            let lines = metrics.text().lines().filter(of_own);
            Some(lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>())
        };
        let before = eventually("the metrics", reloads).await;
        change();
        eventually("other certificates", async || reloads().await.filter(|now| *now > before)).await;
    }

    /// Asks for the targets of a job again and again.
    pub(crate) async fn until<T>(&self, job: Reason, what: &str, found: impl Fn(&[Value]) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let targets = self.targets(job).await;
            if let Some(found) = found(&targets) {
                return found;
            }
            assert!(Instant::now() < deadline, "{job}: {what} in vain: {targets:#?}\n{}", self.program.said());
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Page, metric, log and command say what the API says of a target, and the command exits as the documents say.
    pub(crate) async fn says_alike(&self, reason: Reason, target: &Value) {
        let hint = target["hint"].as_str().expect("a text");
        self.says(reason, hint).await;
        let deadline = Instant::now() + PATIENCE;
        let mut asked = self.asks(reason, target).end().await;
        // On a machine that has too much to do its scrape may have run out of time.
        while asked.ran_out(reason) && Instant::now() < deadline {
            asked = self.asks(reason, target).end().await;
        }
        let code = asked.says(reason, hint);
        let row = format!("| `{reason}` | {code} | ");
        let told = include_str!("../../../docs/reasons.md").lines().find(|line| line.starts_with(&row));
        assert!(told.is_some(), "the documents do not say that the command exits with {code} for {reason}");
    }

    /// The same without the command.
    pub(crate) async fn says(&self, reason: Reason, hint: &str) {
        self.page(reason, hint).await;
        self.metric(reason).await;
        self.log(reason, hint);
    }

    async fn page(&self, reason: Reason, hint: &str) {
        let path = format!("/targets?job={reason}&reason={reason}");
        let word = format!("<code class=\"reason\">{reason}</code>");
        let hint = hint.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;");
        // It may have run out of time once between then and now.
        eventually(&format!("the page says {word} and {hint}"), async || {
            let page = http::get(self.api, &path).await.ok()?;
            (page.text().contains(&word) && page.text().contains(&hint)).then_some(())
        })
        .await;
    }

    async fn metric(&self, reason: Reason) {
        let series = match reason {
            Reason::PartialMerge => {
                format!("meshscrape_partial_merges_total{{job=\"{reason}\",part=\"application\"}} ")
            }
            _ => format!("meshscrape_scrape_failures_total{{job=\"{reason}\",reason=\"{reason}\"}} "),
        };
        let metrics = eventually("the metrics", async || http::get(self.listen, "/metrics").await.ok()).await;
        let count = metrics.text().lines().find_map(|line| line.strip_prefix(&series)?.parse::<f64>().ok());
        assert!(count >= Some(1.0), "{series}\n{}", metrics.text());
    }

    fn log(&self, reason: Reason, hint: &str) {
        let said = self.program.said();
        let words = [format!(" job=\"{reason}\" "), format!(" reason={reason} "), format!(" hint={hint:?} ")];
        let told = said.lines().any(|line| words.iter().all(|word| line.contains(word)));
        assert!(told, "{words:?} are not in\n{said}");
    }

    /// Has the command scrape the target.
    pub(crate) fn asks(&self, reason: Reason, target: &Value) -> Command {
        let url = url::Url::parse(target["scrapeUrl"].as_str().expect("a text")).expect("a URL");
        let port = url.port().expect("it is written").to_string();
        let (agent, name) = (format!("http://{}", self.api), format!("pod/{}", pod(reason)));
        let namespace = target["discoveredLabels"]["__meta_kubernetes_namespace"].as_str().expect("a text");
        let arguments = ["scrape", &name, "-n", namespace, "--agent", &agent, "--port", &port];
        Command(Program::start(&arguments))
    }
}

/// `meshscrape scrape`, under way.
pub(crate) struct Command(Program);

impl Command {
    /// Waits for its end.
    pub(crate) async fn end(self) -> Asked {
        let output = self.0.end().await;
        let report = String::from_utf8_lossy(&output.stderr).into_owned();
        Asked { report, code: output.status.code().expect("an exit code") }
    }
}

/// What `meshscrape scrape` said, and how it ended.
pub(crate) struct Asked {
    report: String,
    code: i32,
}

impl Asked {
    /// Whether it says that there was no time, where something else is to be said.
    fn ran_out(&self, reason: Reason) -> bool {
        let says = |reason: Reason| self.report.contains(&format!("\n{reason}: "));
        !says(reason) && (says(Reason::Timeout) || says(Reason::ConnectTimeout))
    }

    /// Holds what it says against what others say; gives its exit code.
    pub(crate) fn says(&self, reason: Reason, hint: &str) -> i32 {
        let report = &self.report;
        assert!(report.contains(&format!("\n{reason}: ")), "{reason}: {report}");
        assert!(report.contains(&format!("\nhint: {hint}\n")), "{reason}: {hint}\n{report}");
        self.code
    }
}

/// Writes a configuration, which must be a good one.
fn write(file: &Path, text: &str) {
    std::fs::write(file, text).expect("a configuration file");
    let loaded = meshscrape::config::load(file, &|_| None);
    assert!(loaded.config.is_ok(), "{:#?} in\n{text}", loaded.config.err());
}
