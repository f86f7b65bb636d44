//! The API server fails in every way that it can, under a running agent: what is known is kept, each state can be seen,
//! and everything heals without a restart.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::agent::{self, Running, eventually, instance};
use crate::support::http;
use crate::support::kubernetes::{Cluster, Namespace, Proxy, READ, pod};

/// An agent that follows the pods of one namespace, with a token that a test may change.
struct Following {
    agent: Running,
    dir: TempDir,
}

impl Following {
    async fn start(cluster: &Cluster, url: &str, namespace: &Namespace, token: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("token"), token).expect("a token");
        let text = format!(
            "scrape_configs:
  - job_name: pods
    scrape_interval: 1h
    kubernetes_sd_configs:
      - role: pod
        api_server: {url}
        authorization: {{ credentials_file: token }}
        tls_config: {{ ca_file: {} }}
        namespaces: {{ names: [{}] }}
",
            cluster.ca_file().display(),
            namespace.name(),
        );
        let agent = agent::start(dir.path(), &text).await;
        Self { agent, dir }
    }

    /// Waits until exactly these are targets.
    async fn knows(&self, what: &str, instances: &[&str]) {
        let wanted: BTreeSet<String> = instances.iter().map(|&instance| instance.to_owned()).collect();
        let same = |targets: &[Value]| targets.iter().map(instance).collect::<BTreeSet<_>>() == wanted;
        self.agent.until(what, same).await;
    }

    /// What the readiness probe says.
    async fn readiness(&self) -> (u16, String) {
        let answer = http::get(self.agent.listen(), "/-/ready").await.expect("an answer");
        (answer.status, answer.text().to_owned())
    }

    /// Waits until the readiness probe says this.
    async fn says(&self, status: u16, words: &str) {
        let ready = async || {
            let (code, text) = self.readiness().await;
            (code == status && text.contains(words)).then_some(())
        };
        eventually(&format!("/-/ready says {status} and {words:?}"), ready).await;
    }

    /// Requests to the API server so far that were answered like this.
    async fn requests(&self, verb: &str, code: &str) -> f64 {
        let series =
            format!("meshscrape_kubernetes_requests_total{{resource=\"pods\",verb=\"{verb}\",code=\"{code}\"}}");
        self.agent.metric(&series).await
    }

    fn rotate(&self, token: &str) {
        // As the kubelet does: another file takes the name.
        let new = self.dir.path().join("token.new");
        std::fs::write(&new, token).expect("a token");
        std::fs::rename(new, self.dir.path().join("token")).expect("it takes the name");
    }
}

/// A namespace with one pod, an account that may read the pods of it, and a proxy to cut.
async fn scene(cluster: &Cluster) -> (Namespace, String, Proxy) {
    let shop = cluster.own_namespace("shop").await;
    let account = shop.account("meshscrape").await;
    shop.allow(cluster, &account, json!([{"apiGroups": [""], "resources": ["pods"], "verbs": READ}])).await;
    shop.create_pod(pod("first").running("10.9.0.1").port("m", 80)).await;
    let token = shop.token(&account).await;
    (shop, token, cluster.proxy().await)
}

#[tokio::test]
async fn a_watch_cut_anywhere_goes_on_where_it_was() {
    let cluster = Cluster::shared().await;
    let (shop, token, proxy) = scene(cluster).await;
    let following = Following::start(cluster, &proxy.url(), &shop, &token).await;
    following.knows("the first", &["10.9.0.1:80"]).await;
    let lists = following.requests("watch", "200").await;

    // In the middle of the event that says so.
    proxy.cut_after(200);
    shop.create_pod(pod("second").running("10.9.0.2").port("m", 80)).await;
    eventually("it is cut", async || (proxy.open() == 0).then_some(())).await;
    proxy.pass();
    following.knows("both", &["10.9.0.1:80", "10.9.0.2:80"]).await;
    assert!(following.requests("watch", "200").await > lists);

    // While nobody listens.
    proxy.refuse();
    shop.delete_pod("first").await;
    following.says(200, "the API server cannot be reached").await;
    following.knows("what was known", &["10.9.0.1:80", "10.9.0.2:80"]).await;
    proxy.pass();
    following.knows("the second alone", &["10.9.0.2:80"]).await;
    following.says(200, "meshscrape is ready.\n").await;
    assert!(following.agent.metric("prometheus_sd_kubernetes_failures_total").await > 0.0);
}

#[tokio::test]
async fn an_agent_without_an_api_server_is_not_ready_and_says_why() {
    let cluster = Cluster::shared().await;
    let (shop, token, proxy) = scene(cluster).await;
    proxy.refuse();
    let following = Following::start(cluster, &proxy.url(), &shop, &token).await;
    following.says(503, "role pod: pods: the API server cannot be reached").await;
    proxy.pass();
    following.knows("the first", &["10.9.0.1:80"]).await;
    following.says(200, "meshscrape is ready.\n").await;
}

#[tokio::test]
async fn rights_that_are_withdrawn_and_given_back() {
    let cluster = Cluster::shared().await;
    let shop = cluster.own_namespace("shop").await;
    let account = shop.account("meshscrape").await;
    let rules = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": READ}]);
    let right = shop.allow(cluster, &account, rules).await;
    shop.create_pod(pod("first").running("10.9.0.1").port("m", 80)).await;
    let proxy = cluster.proxy().await;
    let following = Following::start(cluster, &proxy.url(), &shop, &shop.token(&account).await).await;
    following.knows("the first", &["10.9.0.1:80"]).await;

    right.withdraw().await;
    proxy.cut();
    following.says(200, "the API server refuses (403): pods is forbidden").await;
    following.says(200, "grant get, list and watch").await;
    shop.create_pod(pod("second").running("10.9.0.2").port("m", 80)).await;
    following.knows("what was known", &["10.9.0.1:80"]).await;
    assert!(following.requests("watch", "403").await > 0.0);

    right.restore().await;
    following.knows("both", &["10.9.0.1:80", "10.9.0.2:80"]).await;
    following.says(200, "meshscrape is ready.\n").await;
}

#[tokio::test]
async fn a_token_that_is_rotated() {
    let cluster = Cluster::shared().await;
    let shop = cluster.own_namespace("shop").await;
    let account = shop.account("meshscrape").await;
    let rules = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": READ}]);
    shop.allow(cluster, &account, rules).await;
    shop.create_pod(pod("first").running("10.9.0.1").port("m", 80)).await;
    let proxy = cluster.proxy().await;
    let old = shop.token(&account).await;
    let following = Following::start(cluster, &proxy.url(), &shop, &old).await;
    following.knows("the first", &["10.9.0.1:80"]).await;

    shop.invalidate_tokens(&account).await;
    let client = cluster.client(&cluster.url(), &old);
    let path = format!("/api/v1/namespaces/{}/pods", shop.name());
    let refused = async || crate::support::kubernetes::get(&client, &path).await.is_err().then_some(());
    eventually("the old token is refused", refused).await;
    proxy.cut();
    following.says(200, "the API server refuses (401)").await;
    following.knows("what was known", &["10.9.0.1:80"]).await;

    following.rotate(&shop.token(&account).await);
    shop.create_pod(pod("second").running("10.9.0.2").port("m", 80)).await;
    following.knows("both", &["10.9.0.1:80", "10.9.0.2:80"]).await;
    following.says(200, "meshscrape is ready.\n").await;
}

#[tokio::test]
async fn a_server_that_was_killed_and_one_that_has_forgotten() {
    let mut cluster = Cluster::start().await;
    let (shop, token, proxy) = scene(&cluster).await;
    let following = Following::start(&cluster, &proxy.url(), &shop, &token).await;
    following.knows("the first", &["10.9.0.1:80"]).await;

    cluster.kill();
    following.says(200, "trouble").await;
    following.knows("what was known", &["10.9.0.1:80"]).await;
    cluster.restart().await;
    shop.create_pod(pod("second").running("10.9.0.2").port("m", 80)).await;
    following.knows("both", &["10.9.0.1:80", "10.9.0.2:80"]).await;

    // The version that the agent has seen is compacted away while it cannot listen, a deletion among what it missed.
    proxy.refuse();
    shop.delete_pod("first").await;
    shop.create_pods((3..9).map(|n| pod(&format!("p{n}")).running(&format!("10.9.0.{n}")).port("m", 80))).await;
    cluster.forget_history().await;
    proxy.pass();
    let rest: Vec<String> = (2..9).map(|n| format!("10.9.0.{n}:80")).collect();
    following.knows("what is there now", &rest.iter().map(String::as_str).collect::<Vec<_>>()).await;
    following.says(200, "meshscrape is ready.\n").await;
}
