//! Discovery over real files: every way in which people replace a file of targets; and over real servers.

mod http;
mod kubeconfig;

use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use meshscrape::clock::Clock;
use meshscrape::config;
use meshscrape::discover::{self, Certificates, Discovery, Metrics};
use meshscrape::model::{Reason, TargetSet, TrustDomain, Verification};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How long a change may take to be seen before a test fails; it takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(20);

/// Running discovery of one configuration, in a directory of its own.
struct Discovering {
    discovery: Discovery,
    targets: watch::Receiver<Arc<TargetSet>>,
    registry: Registry,
    cancel: CancellationToken,
}

impl Discovering {
    /// Starts discovery with `text` as the configuration file in `directory`.
    fn start(directory: &Path, text: &str) -> Self {
        Self::start_in(directory, text, watch::channel(Certificates::read(None)).1)
    }

    fn start_in(directory: &Path, text: &str, certificates: watch::Receiver<Certificates>) -> Self {
        let loaded = config::parse(&directory.join("meshscrape.yaml"), text, &|_| None);
        let config = loaded.config.unwrap_or_else(|problems| panic!("{problems:#?}"));
        let jobs = config.scrape_configs.iter().map(|job| (Arc::clone(job), certificates.clone())).collect();
        let mut registry = Registry::default();
        let cancel = CancellationToken::new();
        let discovery = discover::spawn(jobs, cancel.clone(), Clock::system(), Metrics::new(&mut registry));
        Self { targets: discovery.targets(), discovery, registry, cancel }
    }

    /// Waits until exactly these addresses are targets, in any order.
    async fn until(&mut self, expected: &[&str]) {
        let mut expected: Vec<String> = expected.iter().map(|&address| address.to_owned()).collect();
        expected.sort();
        let waited = tokio::time::timeout(PATIENCE, self.targets.wait_for(|set| addresses(set) == expected)).await;
        let in_time = matches!(waited, Ok(Ok(_)));
        drop(waited);
        assert!(in_time, "{expected:?} expected, {:?} found", addresses(&self.targets.borrow()));
    }

    async fn first_pass(&self) {
        poll("the first pass", || self.discovery.first_pass_done()).await;
    }

    fn metrics(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("encoding into a string");
        text
    }
}

impl Drop for Discovering {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

fn addresses(set: &TargetSet) -> Vec<String> {
    let mut addresses: Vec<String> = set.active().map(|target| target.address.to_string()).collect();
    addresses.sort();
    addresses
}

/// For what is asked for and not announced.
async fn poll(what: &str, done: impl Fn() -> bool) {
    let polled = tokio::time::timeout(PATIENCE, async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    polled.await.unwrap_or_else(|_| panic!("{what} is still missing"));
}

fn directory() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

/// Writes a file in place, as an editor or `>` does.
fn write(path: &Path, text: &str) {
    std::fs::write(path, text).expect("writing a file");
}

/// Replaces a file by renaming another one over it.
fn replace(path: &Path, text: &str) {
    let beside = path.with_extension("tmp");
    write(&beside, text);
    std::fs::rename(beside, path).expect("renaming a file");
}

const ONE_FILE: &str = "scrape_configs: [{job_name: j, file_sd_configs: [{files: [t.yml]}]}]\n";

#[tokio::test]
async fn a_file_written_in_place_renamed_over_removed_and_made_again() {
    let dir = directory();
    let file = dir.path().join("t.yml");
    write(&file, "- targets: [a:1]\n");
    let mut running = Discovering::start(dir.path(), ONE_FILE);
    running.until(&["a:1"]).await;
    write(&file, "- targets: [a:1, b:1]\n");
    running.until(&["a:1", "b:1"]).await;
    replace(&file, "- targets: [c:1]\n");
    running.until(&["c:1"]).await;
    replace(&file, "- targets: [d:1]\n- targets: [e:1]\n");
    running.until(&["d:1", "e:1"]).await;
    std::fs::remove_file(&file).expect("removing a file");
    running.until(&[]).await;
    write(&file, "- targets: [f:1]\n");
    running.until(&["f:1"]).await;
}

#[tokio::test]
async fn a_mounted_config_map_is_swapped() {
    let dir = directory();
    let version = |name: &str, text: &str| {
        std::fs::create_dir(dir.path().join(name)).expect("a directory");
        write(&dir.path().join(name).join("t.yml"), text);
    };
    // As the kubelet mounts a ConfigMap: the file is a link through `..data`, which is renamed from one directory to the next.
    version("..2024_1", "- targets: [a:1]\n");
    symlink("..2024_1", dir.path().join("..data")).expect("a link");
    symlink("..data/t.yml", dir.path().join("t.yml")).expect("a link");
    let mut running = Discovering::start(dir.path(), ONE_FILE);
    running.until(&["a:1"]).await;
    for (number, old) in [(2, "..2024_1"), (3, "..2024_2")] {
        let new = format!("..2024_{number}");
        version(&new, &format!("- targets: [a:{number}]\n"));
        symlink(&new, dir.path().join("..data_tmp")).expect("a link");
        std::fs::rename(dir.path().join("..data_tmp"), dir.path().join("..data")).expect("swapping the link");
        std::fs::remove_dir_all(dir.path().join(old)).expect("removing the old version");
        running.until(&[&format!("a:{number}")]).await;
    }
}

#[tokio::test]
async fn links_that_lead_elsewhere_are_followed() {
    let (dir, other) = (directory(), directory());
    for version in ["v1", "v2"] {
        std::fs::create_dir(other.path().join(version)).expect("a directory");
        write(&other.path().join(version).join("t.yml"), &format!("- targets: ['{version}']\n"));
    }
    symlink(other.path().join("v1"), dir.path().join("sd")).expect("a link");
    let mut running =
        Discovering::start(dir.path(), "scrape_configs: [{job_name: j, file_sd_configs: [{files: [sd/*.yml]}]}]\n");
    running.until(&["v1"]).await;
    // What the link leads to changes in place, then the link itself.
    write(&other.path().join("v1/t.yml"), "- targets: [v1-changed]\n");
    running.until(&["v1-changed"]).await;
    symlink(other.path().join("v2"), dir.path().join("sd.tmp")).expect("a link");
    std::fs::rename(dir.path().join("sd.tmp"), dir.path().join("sd")).expect("swapping the link");
    running.until(&["v2"]).await;
    write(&other.path().join("v2/u.yml"), "- targets: [v2-more]\n");
    running.until(&["v2", "v2-more"]).await;
}

#[tokio::test]
async fn what_no_watch_sees_is_read_at_the_interval() {
    let (dir, far, farther) = (directory(), directory(), directory());
    for name in ["one", "two"] {
        write(&farther.path().join(name), &format!("- targets: ['{name}']\n"));
    }
    // The second link of a chain lies in a directory that nothing names.
    symlink(farther.path().join("one"), far.path().join("link")).expect("a link");
    symlink(far.path().join("link"), dir.path().join("t.yml")).expect("a link");
    let mut running = Discovering::start(
        dir.path(),
        "scrape_configs: [{job_name: j, file_sd_configs: [{files: [t.yml], refresh_interval: 300ms}]}]\n",
    );
    running.until(&["one"]).await;
    symlink(farther.path().join("two"), far.path().join("tmp")).expect("a link");
    std::fs::rename(far.path().join("tmp"), far.path().join("link")).expect("swapping the link");
    running.until(&["two"]).await;
}

#[tokio::test]
async fn a_broken_file_keeps_its_targets_until_it_is_repaired() {
    let dir = directory();
    let (broken, good) = (dir.path().join("broken.yml"), dir.path().join("good.json"));
    write(&broken, "- targets: [a:1, b:1]\n");
    let mut running = Discovering::start(
        dir.path(),
        "scrape_configs: [{job_name: j, file_sd_configs: [{files: ['*.yml', '*.json']}]}]\n",
    );
    running.until(&["a:1", "b:1"]).await;
    replace(&broken, "- target: [c:1]\n");
    poll("the problem", || !running.discovery.snapshot().problems.is_empty()).await;
    let snapshot = running.discovery.snapshot();
    assert_eq!(snapshot.problems[0].source, broken.display().to_string());
    assert!(snapshot.problems[0].message.contains("line 1, column 3: \"target\" is not known"), "{snapshot:?}");
    // At least once; an event that comes late makes it read the file again.
    assert!(!running.metrics().contains("prometheus_sd_file_read_errors_total 0\n"), "{}", running.metrics());
    assert!(running.metrics().contains("prometheus_sd_file_read_errors_total "), "{}", running.metrics());
    // A change elsewhere does not lose what the broken file had.
    write(&good, r#"[{"targets": ["d:1"]}]"#);
    running.until(&["a:1", "b:1", "d:1"]).await;
    replace(&broken, "- targets: [c:1]\n");
    running.until(&["c:1", "d:1"]).await;
    poll("the end of the problem", || running.discovery.snapshot().problems.is_empty()).await;
    // A broken file that is removed has no targets either.
    replace(&broken, "nonsense");
    poll("the problem", || !running.discovery.snapshot().problems.is_empty()).await;
    std::fs::remove_file(&broken).expect("removing a file");
    running.until(&["d:1"]).await;
}

#[tokio::test]
async fn a_directory_that_does_not_exist_yet_is_waited_for() {
    let dir = directory();
    let mut running = Discovering::start(
        dir.path(),
        "scrape_configs: [{job_name: j, file_sd_configs: [{files: [not/yet/*.yml, not/yet/t.json]}]}]\n",
    );
    running.first_pass().await;
    running.until(&[]).await;
    std::fs::create_dir_all(dir.path().join("not/yet")).expect("directories");
    write(&dir.path().join("not/yet/a.yml"), "- targets: [a:1]\n");
    running.until(&["a:1"]).await;
    // Made anew under its old name, it is another directory.
    std::fs::remove_dir_all(dir.path().join("not")).expect("removing directories");
    running.until(&[]).await;
    std::fs::create_dir_all(dir.path().join("not/yet")).expect("directories");
    running.until(&[]).await;
    write(&dir.path().join("not/yet/t.json"), r#"[{"targets": ["b:1"]}]"#);
    running.until(&["b:1"]).await;
}

#[tokio::test]
async fn a_directory_made_anew_at_once_is_followed() {
    let dir = directory();
    let inside = dir.path().join("sd");
    let mut running =
        Discovering::start(dir.path(), "scrape_configs: [{job_name: j, file_sd_configs: [{files: [sd/*.yml]}]}]\n");
    running.first_pass().await;
    for round in 0..5 {
        // Many a file system gives the new directory the inode of the old one.
        let _ = std::fs::remove_dir_all(&inside);
        std::fs::create_dir(&inside).expect("a directory");
        running.until(&[]).await;
        let address = format!("a{round}:1");
        write(&inside.join("t.yml"), &format!("- targets: ['{address}']\n"));
        running.until(&[&address]).await;
    }
}

#[tokio::test]
async fn labels_of_a_file_reach_the_target_and_the_path_is_known_to_rules() {
    let dir = directory();
    write(
        &dir.path().join("shop.yml"),
        "- targets: [a:1]\n  labels: {env: prod, instance: me, __metrics_path__: /m}\n",
    );
    let text = "\
scrape_configs:
- job_name: j
  static_configs: [{targets: ['s:1'], labels: {env: static}}]
  file_sd_configs: [{files: ['*.yml']}]
  relabel_configs:
  - {source_labels: [__meta_filepath], regex: '.*/(.+)[.]yml', target_label: file}
- job_name: k
  file_sd_configs: [{files: ['*.yml']}]
";
    let mut running = Discovering::start(dir.path(), text);
    running.until(&["a:1", "a:1", "s:1"]).await;
    let set = running.targets.borrow().clone();
    let shown: Vec<String> = set.active().map(|target| format!("{} {}", target.url(), target.labels)).collect();
    assert_eq!(
        shown,
        [
            r#"http://s:1/metrics {env="static", instance="s:1", job="j"}"#,
            r#"http://a:1/m {env="prod", file="shop", instance="me", job="j"}"#,
            r#"http://a:1/m {env="prod", instance="me", job="k"}"#,
        ]
    );
    assert_eq!(running.discovery.snapshot().discovered, 3);
}

#[tokio::test]
async fn a_file_cannot_talk_a_spiffe_job_out_of_verification() {
    let dir = directory();
    let hostile = "\
- targets: ['10.0.0.1:1']
  labels: {__scheme__: http, __spiffe_id__: 'spiffe://td/a'}
- targets: ['10.0.0.2:1']
- targets: ['x@evil.example:443', '10.0.0.3:1/..', '${HOME}:1']
  labels: {__spiffe_id__: 'spiffe://td/a'}
- targets: ['10.0.0.4:1']
  labels: {__spiffe_id__: 'spiffe://td/a'}
";
    write(&dir.path().join("t.yml"), hostile);
    let text = "\
scrape_configs:
- job_name: j
  scheme: https
  tls_config: {certs_dir: certs, spiffe: {}}
  file_sd_configs: [{files: [t.yml]}]
";
    let mut running = Discovering::start(dir.path(), text);
    running.until(&["10.0.0.1:1", "10.0.0.2:1", "10.0.0.4:1"]).await;
    let set = running.targets.borrow().clone();
    let reasons: Vec<Option<Reason>> = set
        .active()
        .map(|target| match &target.verification {
            Verification::Refused(failure) => Some(failure.reason),
            Verification::Spiffe(_) => None,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(reasons, [Some(Reason::PlaintextRefused), Some(Reason::NoExpectedIdentity), None]);
    assert_eq!(set.jobs[0].1.dropped.iter().filter(|target| target.error.is_some()).count(), 3);
}

#[tokio::test]
async fn pods_in_a_file_wait_for_the_trust_domain() {
    let dir = directory();
    let pod = "- targets: ['10.0.0.1:15092']\n  labels: {__meta_kubernetes_namespace: shop, \
               __meta_kubernetes_pod_service_account_name: cart}\n";
    write(&dir.path().join("t.yml"), pod);
    let text = "scrape_configs: [{job_name: j, scheme: https, tls_config: {certs_dir: certs, spiffe: {}}, \
                file_sd_configs: [{files: [t.yml]}]}]\n";
    let (known, certificates) = watch::channel(Certificates::read(None));
    let mut running = Discovering::start_in(dir.path(), text, certificates);
    running.until(&["10.0.0.1:15092"]).await;
    let verified = |set: &Arc<TargetSet>| match &set.active().next().map(|target| &target.verification) {
        Some(Verification::Spiffe(peer)) => Some(peer.expected().to_string()),
        _ => None,
    };
    assert_eq!(verified(&running.targets.borrow()), None);
    let trust_domain = TrustDomain::parse("cluster.local").expect("valid");
    known.send_replace(Certificates::read(Some(trust_domain)));
    let waited = tokio::time::timeout(PATIENCE, running.targets.wait_for(|set| verified(set).is_some())).await;
    let set = waited.expect("in time").expect("running").clone();
    assert_eq!(verified(&set).as_deref(), Some("spiffe://cluster.local/ns/shop/sa/cart"));
}
