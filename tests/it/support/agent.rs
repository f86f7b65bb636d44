//! The real agent, started in this process from a configuration file exactly as `meshscrape run` starts it, and read
//! through its own HTTP listeners.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(crate) use meshscrape::agent::Options;
use meshscrape::agent::{self, Agent, ReloadError, Stopped};
use meshscrape::clock::Clock;
use meshscrape::config;
use serde_json::Value;
use tokio::time::Instant;

use super::http;

/// How long anything that must come may take on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running agent.
pub(crate) struct Running {
    agent: Agent,
    file: PathBuf,
    pub(crate) clock: Clock,
}

/// Starts an agent from the text of a configuration, which is written to `dir`.
pub(crate) async fn start(dir: &Path, text: &str) -> Running {
    start_with(dir, text, &|_| None).await
}

/// The same in an environment.
pub(crate) async fn start_with(dir: &Path, text: &str, env: config::Env<'_>) -> Running {
    start_as(dir, text, env, |options| options).await
}

/// The same with other arguments of the command line.
pub(crate) async fn start_so(dir: &Path, text: &str, change: impl FnOnce(Options) -> Options) -> Running {
    start_as(dir, text, &|_| None, change).await
}

async fn start_as(dir: &Path, text: &str, env: config::Env<'_>, change: impl FnOnce(Options) -> Options) -> Running {
    let file = dir.join("meshscrape.yaml");
    std::fs::write(&file, text).expect("a configuration file");
    let loaded = config::load(&file, env);
    let config = loaded.config.unwrap_or_else(|problems| panic!("{problems:#?} in\n{text}"));
    let clock = Clock::system();
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let flush_deadline = Duration::from_secs(10);
    let options = Options {
        listen: any,
        api_listen: Some(any),
        mesh: None,
        clock: clock.clone(),
        flush_deadline,
        data_dir: None,
        control: None,
        flags: Vec::new(),
    };
    Running { agent: agent::start(config, change(options)).await.expect("an agent"), file, clock }
}

impl Running {
    /// Has it take another configuration, as SIGHUP does once the file holds `text`.
    pub(crate) async fn reload(&mut self, text: &str) -> Result<(), ReloadError> {
        std::fs::write(&self.file, text).expect("a configuration file");
        self.agent.reload(config::load(&self.file, &|_| None)).await
    }

    /// Stops it as SIGTERM does.
    pub(crate) async fn stop(self) -> Stopped {
        self.agent.stop().await
    }

    /// Where probes and `/metrics` are.
    pub(crate) fn listen(&self) -> SocketAddr {
        self.agent.listen_addr()
    }

    /// Where the API is.
    pub(crate) fn api(&self) -> SocketAddr {
        self.agent.api_addr().expect("the API is on")
    }

    /// Where workloads of the mesh are served.
    pub(crate) fn mesh(&self) -> SocketAddr {
        self.agent.mesh_addr().expect("the mesh listener is on")
    }

    /// The active targets as the API shows them, by their `instance`.
    pub(crate) async fn targets(&self) -> Vec<Value> {
        let answer = http::get(self.api(), "/api/v1/targets?state=active").await.expect("the API answers");
        assert_eq!(answer.status, 200, "{:?}", answer.body);
        let mut document = answer.json();
        let mut targets = document["data"]["activeTargets"].as_array_mut().map(std::mem::take).expect("a list");
        targets.sort_by_key(instance);
        targets
    }

    /// The own metrics as text.
    pub(crate) async fn metrics(&self) -> String {
        let answer = http::get(self.listen(), "/metrics").await.expect("/metrics answers");
        assert_eq!(answer.status, 200);
        answer.text().to_owned()
    }

    /// The value of one of the own metrics, 0 while it is not there.
    pub(crate) async fn metric(&self, series: &str) -> f64 {
        let text = self.metrics().await;
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().expect("a number"))
    }

    /// Waits until the active targets satisfy `done`, and returns them.
    pub(crate) async fn until(&self, what: &str, done: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let targets = self.targets().await;
            if done(&targets) {
                return targets;
            }
            assert!(Instant::now() < deadline, "waited in vain: {what}; {targets:#?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The same for each target, of which there must be some.
    pub(crate) async fn until_all(&self, what: &str, done: impl Fn(&Value) -> bool) -> Vec<Value> {
        self.until(what, |targets| !targets.is_empty() && targets.iter().all(&done)).await
    }
}

/// The `instance` label of a target.
pub(crate) fn instance(target: &Value) -> String {
    target["labels"]["instance"].as_str().unwrap_or_default().to_owned()
}

/// Waits until `ask` yields something.
pub(crate) async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = ask().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
