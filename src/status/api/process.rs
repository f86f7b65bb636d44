//! `GET /api/v1/status/…` and `/version`: the configuration that is in force, and the process.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use serde::Serialize;

use super::{found, rfc3339};
use crate::status::Sources;

pub(super) async fn config(State(sources): State<Sources>) -> Response {
    #[derive(Serialize)]
    struct Config {
        yaml: String,
    }
    let configuration = sources.configuration.borrow().clone();
    found(Config { yaml: configuration.yaml.to_string() })
}

pub(super) async fn flags(State(sources): State<Sources>) -> Response {
    found(sources.process.flags.iter().cloned().collect::<BTreeMap<_, _>>())
}

/// What Prometheus tells of its build; what we do not know of ours is empty.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct BuildInfo {
    /// Ours: which program it is.
    application: &'static str,
    version: &'static str,
    revision: &'static str,
    branch: &'static str,
    build_user: &'static str,
    build_date: &'static str,
    go_version: &'static str,
}

const BUILD: BuildInfo = BuildInfo {
    application: env!("CARGO_PKG_NAME"),
    version: env!("CARGO_PKG_VERSION"),
    revision: "",
    branch: "",
    build_user: "",
    build_date: "",
    go_version: "",
};

pub(super) async fn build_info() -> Response {
    found(BUILD)
}

pub(super) async fn version() -> Json<BuildInfo> {
    Json(BUILD)
}

/// What Prometheus tells of its process: tasks stand for goroutines, threads for `GOMAXPROCS`; of what only Go has, nothing;
/// damage of queues on disk is no corruption of a write-ahead log, and has metrics of its own.
#[derive(Serialize)]
struct RuntimeInfo {
    #[serde(rename = "startTime")]
    start_time: String,
    #[serde(rename = "CWD")]
    directory: String,
    hostname: String,
    #[serde(rename = "serverTime")]
    server_time: String,
    #[serde(rename = "reloadConfigSuccess")]
    reload_config_success: bool,
    #[serde(rename = "lastConfigTime")]
    last_config_time: String,
    #[serde(rename = "corruptionCount")]
    corruption_count: u64,
    #[serde(rename = "goroutineCount")]
    goroutine_count: usize,
    #[serde(rename = "GOMAXPROCS")]
    max_procs: usize,
    #[serde(rename = "GOMEMLIMIT")]
    memory_limit: u64,
    #[serde(rename = "GOGC")]
    gc: &'static str,
    #[serde(rename = "GODEBUG")]
    debug: &'static str,
    #[serde(rename = "storageRetention")]
    storage_retention: &'static str,
}

pub(super) async fn runtime_info(State(sources): State<Sources>) -> Response {
    let configuration = sources.configuration.borrow().clone();
    let runtime = tokio::runtime::Handle::current().metrics();
    let process = &sources.process;
    found(RuntimeInfo {
        start_time: rfc3339(Some(process.started)),
        directory: std::env::current_dir().map(|path| path.display().to_string()).unwrap_or_default(),
        hostname: process.host.clone(),
        server_time: rfc3339(Some(process.clock.now())),
        reload_config_success: configuration.refused.is_none(),
        last_config_time: rfc3339(Some(configuration.taken)),
        corruption_count: 0,
        goroutine_count: runtime.num_alive_tasks(),
        max_procs: runtime.num_workers(),
        memory_limit: 0,
        gc: "",
        debug: "",
        storage_retention: "",
    })
}

/// What Prometheus tells those who look at its pages: of a configuration that was refused.
pub(super) async fn notifications(State(sources): State<Sources>) -> Response {
    #[derive(Serialize)]
    struct Notification {
        text: &'static str,
        date: String,
        active: bool,
    }
    let refused = sources.configuration.borrow().refused.clone();
    let told = refused.map(|refused| Notification {
        text: "Configuration reload has failed.",
        date: rfc3339(Some(refused.since)),
        active: true,
    });
    found(Vec::from_iter(told))
}

/// How far a write-ahead log is replayed: there is none, so nothing is left to do.
pub(super) async fn wal_replay() -> Response {
    #[derive(Serialize)]
    struct Replay {
        min: u64,
        max: u64,
        current: u64,
    }
    found(Replay { min: 0, max: 0, current: 0 })
}
