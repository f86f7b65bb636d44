//! Labels that a stranger wrote: whatever they say, one request goes to the address that was meant, and it is the one
//! that we write.

use std::path::Path;
use std::sync::Arc;

use meshscrape::config::{self, ScrapeConfig};
use meshscrape::connect::Client;
use meshscrape::label::targets_of;
use meshscrape::model::{Candidate, JobTargets, Reason, TrustDomain, Verification};

use crate::support::mesh::{CART, Mesh, ONLY_13, get, scrape};
use crate::support::tls_server::{Reply, Server, Talk, always};

fn job(mesh: &Mesh, more: &str) -> Arc<ScrapeConfig> {
    let certs = mesh.certs.path().display();
    let text = format!(
        "scrape_configs:\n- job_name: j\n  scheme: https\n  tls_config: {{certs_dir: '{certs}', spiffe: {{}}}}\n  file_sd_configs: [{{files: [t.yml]}}]\n{more}"
    );
    let loaded = config::parse(Path::new("hostile.yaml"), &text, &|_| None);
    let config = loaded.config.unwrap_or_else(|problems| panic!("{problems:#?}"));
    Arc::clone(&config.scrape_configs[0])
}

fn targets(job: &ScrapeConfig, labels: &[(&str, &str)]) -> JobTargets {
    let candidate = Candidate { labels: labels.iter().copied().collect(), source: "test".into(), pod: None };
    targets_of(job, &[candidate], Some(&TrustDomain::parse("cluster.local").expect("well-formed")))
}

#[tokio::test]
async fn no_label_writes_into_the_request() {
    const SMUGGLED: &str = "x HTTP/1.1\r\nX-Evil: 1\r\n\r\nGET /evil";
    let mesh = Mesh::new(ONLY_13).await;
    let server = Server::start(Talk::Tls(mesh.cart(), always(Reply::ok("fine 1\n"))));
    let address = server.address().to_string();
    let (job, long) = (job(&mesh, "  params: {a: ['1', '2']}\n"), "a".repeat(60_000));
    let mut asked = 0;
    for (name, value) in [
        ("__metrics_path__", SMUGGLED),
        ("__metrics_path__", "//evil.example/metrics"),
        ("__metrics_path__", "https://evil.example/metrics"),
        ("__metrics_path__", "@evil.example"),
        ("__metrics_path__", "/metrics?evil#evil"),
        ("__metrics_path__", "*"),
        ("__metrics_path__", "/\u{0}\u{7f}\u{85}\u{2028}ü"),
        ("__metrics_path__", &long),
        ("__param_a", SMUGGLED),
        ("__param_a", "&evil=1#evil"),
        ("__param_x HTTP/1.1\r\nX-Evil: 1\r\n\r\n", "1"),
        ("__param_", SMUGGLED),
        ("job", SMUGGLED),
        ("instance", SMUGGLED),
        ("Authorization", "Basic evil"),
        ("__header_host", "evil.example"),
        ("__host__", "evil.example"),
    ] {
        let made = targets(&job, &[("__address__", &address), ("__spiffe_id__", CART), (name, value)]);
        let target = &made.active[0];
        let mut client =
            Client::for_target(target, &job, Some(mesh.identity.credentials()), None, &mesh.clock).expect("a client");
        let request = get(&target.address, &target.path_and_query, std::time::Duration::from_secs(60));
        scrape(&mut client, &request).await.unwrap_or_else(|(failure, _)| panic!("{name:?}: {failure}"));
        asked += 1;
        let requests = server.requests();
        assert_eq!(requests.len(), asked, "{name:?} made another request");
        let head = &requests[asked - 1].head;
        let lines: Vec<&str> = head.trim_end_matches("\r\n").split("\r\n").collect();
        assert_eq!(lines[1..], [format!("host: {address}")], "{name:?}");
        let words: Vec<&str> = lines[0].split(' ').collect();
        assert_eq!((words.len(), words[0], words[2]), (3, "GET", "HTTP/1.1"), "{name:?}");
        assert!(words[1].starts_with('/') && words[1].bytes().all(|byte| byte.is_ascii_graphic()), "{name:?}");
        assert_eq!(words[1].matches('?').count(), 1, "{name:?}: {}", words[1]);
        assert!(!words[1].contains('#'), "{name:?}: {}", words[1]);
    }
}

#[tokio::test]
async fn an_address_of_a_pod_is_its_own() {
    let mesh = Mesh::new(ONLY_13).await;
    // The rule of the stock jobs: the port comes from an annotation.
    let job = job(
        &mesh,
        "  relabel_configs:\n  - {source_labels: [__meta_kubernetes_pod_ip, __meta_kubernetes_pod_annotation_port], regex: '(.+);(.+)', target_label: __address__, replacement: '$1:$2'}\n",
    );
    let pod = |port: &str| {
        targets(
            &job,
            &[
                ("__address__", "10.0.0.7:80"),
                ("__meta_kubernetes_pod_ip", "10.0.0.7"),
                ("__meta_kubernetes_pod_annotation_port", port),
                ("__meta_kubernetes_namespace", "shop"),
                ("__meta_kubernetes_pod_service_account_name", "cart"),
            ],
        )
    };
    assert_eq!(pod("15092").active[0].address.to_string(), "10.0.0.7:15092");
    for port in [
        "x@evil.example:443",
        "80@evil.example",
        "80/../..",
        "80#",
        "80?",
        "80\\@evil.example",
        "80 ",
        " 80",
        "80\n",
        "80:81",
        "+80",
        "0x50",
        "８０",
        "0",
        "65536",
        "99999999999999999999",
        "1.evil.example:80",
        "]:80",
        "-1",
        "80%00",
        "80;evil",
        "80,10.0.0.8:80",
    ] {
        let made = pod(port);
        assert!(made.active.is_empty(), "{port:?} is dialled as {}", made.active[0].address);
        let error = made.dropped[0].error.as_deref().expect("it is malformed");
        assert!(!error.contains(|c: char| c.is_control()), "{error:?}");
    }
    assert_eq!(pod("015092").active[0].address.to_string(), "10.0.0.7:15092", "written otherwise, it is the same port");
}

#[tokio::test]
async fn who_looks_like_another_is_asked_no_more_than_he() {
    let mesh = Mesh::new(ONLY_13).await;
    let job = job(&mesh, "");
    let refused = |labels: &[(&str, &str)]| match &targets(&job, labels).active[0].verification {
        Verification::Refused(failure) => failure.reason,
        other => panic!("{labels:?} may be connected: {other:?}"),
    };
    let near = [
        "spiffe://cluster.local/ns/shop/sa/cart ",
        "spiffe://cluster.local/ns/shop/sa/cart\u{200b}",
        "spiffe://cluster.local/ns/shop/sa/c\u{430}rt",
        "spiffe://cluster.local/ns/shop/sa/cart,spiffe://cluster.local/ns/evil/sa/evil",
        "spiffe://cluster.local/ns/shop/sa/cart?",
        "spiffe://cluster.local/ns/shop/sa/../../evil/sa/evil",
        "spiffe://cluster.local:443/ns/shop/sa/cart",
        "spiffe://cluster.local@evil.example/ns/shop/sa/cart",
        "spiffe:cluster.local/ns/shop/sa/cart",
        "*",
        "spiffe://cluster.local/*",
    ];
    for id in near {
        assert_eq!(refused(&[("__address__", "h:1"), ("__spiffe_id__", id)]), Reason::NoExpectedIdentity, "{id:?}");
    }
    for (namespace, account) in [
        ("shop/sa/cart", "x"),
        ("..", "cart"),
        ("shop", "cart/x"),
        ("shop", "cart?x"),
        ("shop", "cart\n"),
        ("", "cart"),
    ] {
        let labels = [
            ("__address__", "h:1"),
            ("__meta_kubernetes_namespace", namespace),
            ("__meta_kubernetes_pod_service_account_name", account),
        ];
        assert_eq!(refused(&labels), Reason::NoExpectedIdentity, "{namespace:?} {account:?}");
    }
}
