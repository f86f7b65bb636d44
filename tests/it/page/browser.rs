//! The page in a real browser, as somebody would use it: with a mouse and without, with scripts and without, by day and by
//! night, and on a telephone.
//!
//! What is done there stands in `tests/page/drive.mjs`; it leaves its pictures in `target/page`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use super::stage::{Stage, envoy, renew};
use crate::support::agent::{self, Running};
use crate::support::envoy::Envoy;
use crate::support::mesh::{CART, Mesh, ONLY_13};
use crate::support::process::find;
use crate::support::program::Program;
use crate::support::receiver::{Receiver, confirming};

/// How long all of it may take on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(300);

#[tokio::test(flavor = "multi_thread")]
async fn every_view_can_be_read_searched_and_followed_by_everybody() {
    let (stage, well, bare) = tokio::join!(Stage::with(5_000), Well::new(), Bare::new());
    renew(&stage.mesh);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let pictures = root.join("target/page");
    std::fs::create_dir_all(&pictures).expect("a directory for pictures");
    let mut command = Command::new("node");
    command
        .arg(root.join("tests/page/drive.mjs"))
        .env("CHROMIUM", find("chromium"))
        .env("MODULES", modules())
        .env("PICTURES", &pictures)
        .env("AGENT", format!("http://{}", stage.agent.api()))
        .env("WELL", format!("http://{}", well.agent.api()))
        .env("BARE", format!("http://{}", bare.agent.api()));
    let output = Program::spawn(command).end_within(PATIENCE).await;
    let said = [output.stdout, output.stderr].concat();
    std::fs::write(pictures.join("log"), &said).expect("a log beside the pictures");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
    bare.agent.stop().await;
    well.agent.stop().await;
    stage.agent.stop().await;
}

/// The folder in which playwright lies, and axe beside it.
fn modules() -> PathBuf {
    let program = find("playwright").canonicalize().expect("a path that is there");
    let folder = program.ancestors().nth(2).expect("node_modules");
    folder.to_owned()
}

/// An agent of which nothing is to be said.
struct Well {
    agent: Running,
    _mesh: Mesh,
    _envoy: Envoy,
    _receiver: Receiver,
    _dir: TempDir,
}

impl Well {
    async fn new() -> Self {
        let (mesh, dir) = (Mesh::new(ONLY_13).await, TempDir::new().expect("a directory"));
        let (envoy, receiver) = (envoy(&mesh).await, Receiver::start(confirming()).await);
        let config = format!(
            "
global: {{scrape_interval: 1s, scrape_timeout: 1s}}
scrape_configs:
- job_name: shop
  metrics_path: /stats/prometheus
  tls_config: {{certs_dir: {}, spiffe: {{}}}}
  scheme: https
  static_configs: [{{targets: ['{}', '{}'], labels: {{__spiffe_id__: '{CART}'}}}}]
remote_write: [{{url: '{}'}}]
",
            mesh.certs.path().display(),
            envoy.address("cart"),
            envoy.address("web"),
            receiver.url(),
        );
        let agent = agent::start(dir.path(), &config).await;
        agent.until_all("both are up", |target| target["health"] == "up").await;
        receiver.requests(1).await;
        Self { agent, _mesh: mesh, _envoy: envoy, _receiver: receiver, _dir: dir }
    }
}

/// An agent that has nothing yet: no certificates, no receivers, no targets, and sources of targets that it cannot read.
struct Bare {
    agent: Running,
    _dir: TempDir,
}

impl Bare {
    async fn new() -> Self {
        let dir = TempDir::new().expect("a directory");
        let path = dir.path().display();
        std::fs::write(dir.path().join("broken.json"), "[{").expect("a file");
        let config = format!(
            "
scrape_configs:
- job_name: shop
  scheme: https
  tls_config: {{certs_dir: {path}/certs, spiffe: {{}}}}
  file_sd_configs: [{{files: ['{path}/broken.json', '{path}/missing.json']}}]
"
        );
        let agent = agent::start(dir.path(), &config).await;
        Self { agent, _dir: dir }
    }
}
