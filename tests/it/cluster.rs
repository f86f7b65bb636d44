//! Chapters on a real Kubernetes API server. `make test` leaves out this module, and says so, where no API server is to be had;
//! so whatever needs one stands in here. This page holds what the others rely on.

mod commands;
mod cost;
mod crowd;
mod exposure;
mod in_cluster;
mod outages;
mod prometheus;
mod reasons;
mod reload;
mod sample;

use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::ListParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::json;
use tokio::time::timeout;

use crate::support::agent::eventually;
use crate::support::kubernetes::{Cluster, READ, Watch, get, node, pod};

/// Long enough for anything that would come.
const A_WHILE: Duration = Duration::from_millis(300);

#[tokio::test]
async fn the_server_answers_whom_it_knows() {
    let cluster = Cluster::shared().await;
    let version = cluster.admin().apiserver_version().await.expect("a version");
    assert!(version.git_version.starts_with("v1."), "{version:?}");

    let stranger = cluster.client(&cluster.url(), "not-a-token");
    assert_eq!(code(get(&stranger, "/api/v1/nodes").await), 401);

    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("kubeconfig");
    cluster.kubeconfig(&file, &cluster.url(), cluster.admin_token());
    let kubeconfig = Kubeconfig::read_from(&file).expect("a kubeconfig");
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.expect("it is whole");
    let client = Client::try_from(config).expect("a client");
    assert_eq!(get(&client, "/readyz").await.expect("an answer"), "ok");
}

#[tokio::test]
async fn pods_and_nodes_have_the_status_that_a_test_writes() {
    let cluster = Cluster::shared().await;
    let shop = cluster.own_namespace("shop").await;
    let sidecar = json!({"name": "istio-proxy", "image": "proxy:1", "restartPolicy": "Always"});
    let cart = pod("cart")
        .account("cart")
        .on("n1")
        .port("http", 8080)
        .init_container(sidecar)
        .container(json!({"name": "log", "image": "log:1"}))
        .label("app", "cart")
        .annotation("prometheus.istio.io/secure-port", "15092")
        .owned_by("apps/v1", "ReplicaSet", "cart-5b7")
        .running("10.1.0.7")
        .with(json!({"spec": {"hostNetwork": true}}));
    let created = shop.create_pod(cart.clone()).await;
    assert_eq!(created.metadata.namespace.as_deref(), Some(shop.name()));
    let spec = created.spec.expect("a spec");
    assert_eq!((spec.service_account_name.as_deref(), spec.node_name.as_deref()), (Some("cart"), Some("n1")));
    let status = created.status.expect("a status");
    assert_eq!((status.phase.as_deref(), status.pod_ip.as_deref()), (Some("Running"), Some("10.1.0.7")));
    let ids = |statuses: &Option<Vec<k8s_openapi::api::core::v1::ContainerStatus>>| {
        statuses.iter().flatten().filter_map(|status| status.container_id.clone()).count()
    };
    assert_eq!((ids(&status.container_statuses), ids(&status.init_container_statuses)), (2, 1));

    let failed = shop.set_pod_status("cart", json!({"phase": "Failed", "podIP": "10.1.0.8"})).await;
    let status = failed.status.expect("a status");
    assert_eq!((status.phase.as_deref(), status.pod_ip.as_deref()), (Some("Failed"), Some("10.1.0.8")));
    assert_eq!(status.conditions, None, "the old status is gone as a whole");
    let relabelled = shop.change_pod("cart", json!({"metadata": {"labels": {"app": null, "x": "y"}}})).await;
    assert_eq!(relabelled.metadata.labels, Some([("x".to_owned(), "y".to_owned())].into()));

    let replaced = shop.replace_pod("cart", cart).await;
    assert_ne!(replaced.metadata.uid, failed.metadata.uid);

    let name = format!("{}-node", shop.name());
    let made: Node = cluster.node(node(&name, &[("InternalIP", "10.0.0.1"), ("Hostname", "n1")])).await;
    let status = made.status.expect("a status");
    assert_eq!(status.addresses.expect("addresses").len(), 2);
    assert_eq!(status.daemon_endpoints.and_then(|all| all.kubelet_endpoint).map(|endpoint| endpoint.port), Some(10250));
}

#[tokio::test]
async fn a_pod_terminates_until_it_is_deleted() {
    let cluster = Cluster::shared().await;
    let shop = cluster.own_namespace("shop").await;
    shop.create_pods(["cart", "web"].map(|name| pod(name).on("n1").running("10.1.0.7"))).await;

    shop.terminate_pod("cart").await;
    let api: Api<Pod> = shop.api();
    assert!(api.get("cart").await.expect("it is there").metadata.deletion_timestamp.is_some());
    shop.delete_pod("cart").await;
    assert_eq!(api.get_opt("cart").await.expect("an answer"), None);
    assert_eq!(api.list(&ListParams::default()).await.expect("a list").items.len(), 1);
}

#[tokio::test]
async fn an_account_may_do_what_it_is_allowed_while_it_is() {
    let cluster = Cluster::shared().await;
    let (shop, bank) = (cluster.own_namespace("shop").await, cluster.own_namespace("bank").await);
    let account = shop.account("meshscrape").await;
    let client = cluster.client(&cluster.url(), &shop.token(&account).await);
    let pods = async |namespace: &str| code(get(&client, &format!("/api/v1/namespaces/{namespace}/pods")).await);

    assert_eq!(pods(shop.name()).await, 403);
    let rules = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": READ}]);
    let of_shop = shop.allow(cluster, &account, rules.clone()).await;
    assert_eq!((pods(shop.name()).await, pods(bank.name()).await), (200, 403));
    of_shop.withdraw().await;
    assert_eq!(pods(shop.name()).await, 403);

    let of_all = cluster.allow(&account, rules).await;
    assert_eq!((pods(shop.name()).await, pods(bank.name()).await), (200, 200));
    of_all.withdraw().await;
    assert_eq!(pods(bank.name()).await, 403);
    of_all.restore().await;
    assert_eq!(pods(bank.name()).await, 200);

    let mine = || cluster.asked().into_iter().filter(|asked| asked.user == account.user());
    assert!(mine().all(|asked| asked.verb == "list" && asked.uri.ends_with("/pods")));
    let answered = || mine().map(|asked| asked.status).collect::<Option<Vec<u16>>>();
    let answers = eventually("all answers are written down", async || answered()).await;
    assert_eq!(answers, [403, 200, 403, 403, 200, 200, 403, 200]);
}

#[tokio::test]
async fn tokens_end_with_their_account() {
    let cluster = Cluster::shared().await;
    let shop = cluster.own_namespace("shop").await;
    let account = shop.account("meshscrape").await;
    let rules = json!([{"apiGroups": [""], "resources": ["nodes"], "verbs": READ}]);
    let _right = cluster.allow(&account, rules).await;
    let nodes = async |token: &str| code(get(&cluster.client(&cluster.url(), token), "/api/v1/nodes").await);

    let old = shop.token(&account).await;
    assert_eq!(nodes(&old).await, 200);
    shop.invalidate_tokens(&account).await;
    let new = shop.token(&account).await;
    assert_eq!(nodes(&new).await, 200);
    eventually("the old token is refused", async || (nodes(&old).await == 401).then_some(())).await;
}

#[tokio::test]
async fn what_passes_the_proxy_can_be_cut_and_counted() {
    let cluster = Cluster::shared().await;
    let shop = cluster.own_namespace("shop").await;
    let proxy = cluster.proxy().await;
    let client = || cluster.client(&proxy.url(), cluster.admin_token());
    let path = format!("/api/v1/namespaces/{}/pods?watch=1", shop.name());
    let create = async |name: &str| drop(shop.create_pod(pod(name)).await);

    let mut watch = Watch::open(&client(), &path).await.expect("a watch");
    create("first").await;
    assert_eq!(watch.next().await.expect("an event")["object"]["metadata"]["name"], "first");
    assert_eq!((proxy.passed().connections, proxy.open()), (1, 1));
    proxy.cut();
    assert_eq!(watch.next().await, None);
    eventually("it is gone", async || (proxy.open() == 0).then_some(())).await;

    let mut watch = Watch::open(&client(), &path).await.expect("a new connection passes");
    assert_eq!(watch.next().await.expect("what is there")["object"]["metadata"]["name"], "first");
    proxy.fall_silent();
    let before = proxy.passed();
    create("second").await;
    assert!(timeout(A_WHILE, watch.next()).await.is_err());
    assert!(timeout(A_WHILE, get(&client(), "/readyz")).await.is_err());
    assert_eq!((proxy.passed().from_server, proxy.open()), (before.from_server, 2));
    proxy.pass();
    assert_eq!(watch.next().await.expect("it was held back")["object"]["metadata"]["name"], "second");
    assert!(proxy.passed().from_server > before.from_server);
    // Whoever gave up while nothing passed may still be greeting the server, and must not use up the 50 bytes.
    eventually("the one who gave up is gone", async || (proxy.open() == 1).then_some(())).await;

    proxy.cut_after(50);
    let before = proxy.passed();
    create("third").await;
    assert_eq!(watch.next().await, None, "it ends within the event");
    assert_eq!(proxy.passed().from_server, before.from_server + 50);

    proxy.refuse();
    assert!(get(&client(), "/readyz").await.is_err());
    proxy.pass();
    assert!(get(&client(), "/readyz").await.is_ok());
    assert!(proxy.passed().to_server > 0);
}

#[tokio::test]
async fn a_server_that_was_killed_comes_back_with_what_it_knew() {
    let mut cluster = Cluster::start().await;
    let shop = cluster.namespace("shop").await;
    let version = shop.create_pod(pod("cart").running("10.1.0.7")).await.metadata.resource_version.expect("a version");
    let (url, admin) = (cluster.url(), cluster.admin());
    let watch = format!("/api/v1/namespaces/shop/pods?watch=1&resourceVersion={version}");
    assert!(Watch::open(&admin, &watch).await.is_ok());

    cluster.kill();
    assert!(get(&admin, "/readyz").await.is_err());
    cluster.restart().await;
    assert_eq!(cluster.url(), url);
    let api: Api<Pod> = shop.api();
    assert_eq!(api.list(&ListParams::default()).await.expect("a list").items.len(), 1);

    cluster.stop_responding().await;
    assert!(timeout(A_WHILE, get(&admin, "/readyz")).await.is_err());
    cluster.resume().await;
    assert!(get(&admin, "/readyz").await.is_ok());

    shop.create_pods(["web", "db"].map(pod)).await;
    let pages = ListParams::default().limit(1);
    let page = api.list(&pages).await.expect("a page").metadata.continue_.expect("another page");
    shop.create_pod(pod("last")).await;
    cluster.forget_history().await;
    let expired = match Watch::open(&admin, &watch).await {
        Err(status) => json!(status),
        Ok(mut stream) => stream.next().await.expect("an event")["object"]["code"].take(),
    };
    assert_eq!(expired, 410);
    let expired = api.list(&pages.continue_token(&page)).await;
    assert!(matches!(&expired, Err(kube::Error::Api(status)) if status.code == 410), "{expired:?}");
}

/// The status of an answer.
fn code(answer: kube::Result<String>) -> u16 {
    match answer {
        Ok(_) => 200,
        Err(kube::Error::Api(status)) => status.code,
        Err(error) => panic!("{error}"),
    }
}
