//! Another configuration under a running agent: the API server hears nothing of it unless something new is asked.

use serde_json::json;

use crate::support::agent::{self, eventually};
use crate::support::kubernetes::{Cluster, READ, pod};

#[tokio::test]
async fn watches_that_are_still_wanted_run_on_and_others_end() {
    let cluster = Cluster::shared().await;
    let shop = cluster.own_namespace("shop").await;
    let account = shop.account("meshscrape").await;
    let rules = json!([{"apiGroups": [""], "resources": ["pods", "services"], "verbs": READ}]);
    shop.allow(cluster, &account, rules).await;
    shop.create_pod(pod("first").running("10.9.0.1").port("m", 80)).await;
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("token"), shop.token(&account).await).expect("a token");
    let proxy = cluster.proxy().await;
    let job = |name: &str, role: &str, lines: &str| {
        format!(
            "- job_name: {name}
  scrape_interval: 1h
  kubernetes_sd_configs:
  - role: {role}
    api_server: {}
    authorization: {{ credentials_file: token }}
    tls_config: {{ ca_file: {} }}
    namespaces: {{ names: [{}] }}
{lines}
",
            proxy.url(),
            cluster.ca_file().display(),
            shop.name(),
        )
    };
    let config = |jobs: &[String]| format!("scrape_configs:\n{}", jobs.concat());
    let mut agent = agent::start(dir.path(), &config(&[job("pods", "pod", "")])).await;
    let known = |count: usize| move |targets: &[serde_json::Value]| targets.len() == count;
    agent.until("the pod", known(1)).await;
    let asked = || {
        let asked = cluster.asked().into_iter().filter(|asked| asked.user == account.user());
        asked.map(|asked| (asked.verb, asked.uri)).collect::<Vec<_>>()
    };
    let before = asked();

    // The job has other rules, another name, company, and a source that asks the same for other labels.
    for jobs in [
        vec![job("pods", "pod", "  relabel_configs: [{target_label: zone, replacement: a}]")],
        vec![job("renamed", "pod", "")],
        vec![job("pods", "pod", ""), job("twin", "pod", "  metrics_path: /other")],
        vec![job("pods", "pod", "    selectors: []")],
    ] {
        agent.reload(&config(&jobs)).await.expect("a good one");
        assert_eq!(agent.targets().await.len(), jobs.len(), "{jobs:?}");
    }
    assert_eq!(asked(), before);
    shop.create_pod(pod("second").running("10.9.0.2").port("m", 80)).await;
    agent.until("the watch runs", known(2)).await;

    agent.reload(&config(&[job("services", "service", "")])).await.expect("a good one");
    assert_eq!(agent.targets().await.len(), 0);
    let of_pods = async || (proxy.open() == 1).then_some(());
    eventually("the watch of pods has ended, that of services runs", of_pods).await;
    let about_pods: Vec<_> = asked().into_iter().filter(|(_, uri)| uri.contains("/pods")).collect();
    assert_eq!(about_pods, before, "also when all that was asked has been written down");
    agent.stop().await;
}
