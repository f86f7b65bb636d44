//! Application protocols in the TLS greeting: none by default, those of `__alpn__` where a target has the label, and what is
//! said where it is the wrong one of the two.

use std::path::Path;
use std::time::Duration;

use meshscrape::connect::Client;
use meshscrape::model::{Alpn, Reason};
use tempfile::TempDir;

use crate::support::agent;
use crate::support::ca::{Ca, CertsDir};
use crate::support::envoy::{Envoy, ListenerSpec};
use crate::support::mesh::{CART, Mesh, ONLY_12, ONLY_13, SCRAPER, get, scrape};
use crate::support::tls_server::{Reply, Server, Talk, Then, always};

const LEGACY: &str = "__alpn__: 'istio-http/1.1, istio'";

/// A SPIFFE job whose targets stand in the file `targets.yaml`.
fn config(dir: &Path, certs: &Path) -> String {
    format!(
        "scrape_configs:\n- job_name: j\n  scrape_interval: 2s\n  scrape_timeout: 2s\n  scheme: https\n  metrics_path: \
         /stats/prometheus\n  file_sd_configs: [{{files: ['{}']}}]\n  tls_config: {{certs_dir: '{}', spiffe: {{}}}}\n",
        dir.join("targets.yaml").display(),
        certs.display()
    )
}

/// Replaces the file of targets; each has an address and labels of its own.
fn list(dir: &Path, targets: &[(&str, &str)]) {
    let entry = |(address, labels): &(&str, &str)| {
        format!("- {{targets: ['{address}'], labels: {{__spiffe_id__: '{CART}', {labels}}}}}\n")
    };
    let new = dir.join("targets.new");
    std::fs::write(&new, targets.iter().map(entry).collect::<String>()).expect("a file");
    std::fs::rename(new, dir.join("targets.yaml")).expect("renamed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_is_offered_what_its_label_says_and_nothing_without_it() {
    let each = async |versions| {
        let mesh = Mesh::new(versions).await;
        let server = Server::start(Talk::Tls(mesh.cart(), always(Reply::ok("fine 1\n"))));
        let address = server.address().to_string();
        let dir = TempDir::new().expect("a directory");
        list(dir.path(), &[(&address, "")]);
        let agent = agent::start(dir.path(), &config(dir.path(), mesh.certs.path())).await;
        let istio = vec!["istio-http/1.1".to_owned(), "istio".to_owned()];
        let mut greetings = Vec::new();
        for (labels, offered) in [("", vec![]), (LEGACY, istio), ("", vec![])] {
            list(dir.path(), &[(&address, labels)]);
            greetings.push(offered);
            // A changed label is a changed target: its connection is a new one, and is kept from then on.
            agent
                .until("two scrapes with this greeting", |targets| {
                    let scraped = targets.iter().all(|target| target["scrapesSucceeded"].as_u64() >= Some(2));
                    server.offered().len() >= greetings.len() && !targets.is_empty() && scraped
                })
                .await;
            assert_eq!(server.offered(), greetings);
        }
        agent.stop().await;
        assert_eq!(server.handshakes(), 3);
    };
    tokio::join!(each(ONLY_13), each(ONLY_12));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_legacy_listener_takes_the_label_and_the_failure_without_it_names_it() {
    let ca = Ca::new("cluster.local");
    let dir = TempDir::new().expect("a directory");
    let certs = CertsDir::at(dir.path());
    certs.write(&ca.leaf(SCRAPER), &[&ca]);
    let listeners = [
        ListenerSpec::legacy("legacy", &ca.leaf(CART), &[&ca]).on_port(15091),
        ListenerSpec::stats("native", &ca.leaf(CART), &[&ca]).on_port(15091),
    ];
    let envoy = Envoy::start(&listeners).await;
    let (legacy, native) = (envoy.address("legacy").to_string(), envoy.address("native").to_string());
    let with_label = format!("name: with, {LEGACY}");
    list(dir.path(), &[(&legacy, "name: without"), (&legacy, &with_label), (&native, "name: native")]);
    let agent = agent::start(dir.path(), &config(dir.path(), dir.path())).await;
    let as_expected = |target: &serde_json::Value| match target["labels"]["name"].as_str() {
        Some("without") => target["reason"] == "closed_in_handshake",
        _ => target["health"] == "up",
    };
    let targets = agent.until_all("all are up but the one without its label", as_expected).await;
    agent.stop().await;
    assert_eq!(targets.len(), 3);
    let refused = targets.iter().find(|target| target["labels"]["name"] == "without").expect("listed");
    let hint = refused["hint"].as_str().expect("a text");
    assert!(hint.contains("__alpn__: istio-http/1.1") && hint.contains("before 1.31"), "{hint}");
}

#[tokio::test]
async fn a_native_port_that_was_offered_a_protocol_says_that_it_must_not() {
    let mesh = Mesh::new(ONLY_13).await;
    // As under PERMISSIVE, where inbound capture ends the TLS of who offers a protocol of Istio's.
    let server = Server::start(Talk::Tls(mesh.cart(), always(Reply::raw("", Then::Close))));
    let request = get(&server.address(), "/stats/prometheus", Duration::from_secs(60));
    let offering = mesh.spiffe_client(true).offering(Alpn::parse("istio-http/1.1").expect("a protocol"));
    let (failure, _) = scrape(&mut Client::Spiffe(offering), &request).await.expect_err("no answer");
    assert_eq!(failure.reason, Reason::ClosedAfterHandshake);
    assert!(failure.hint().contains("a native secure port must not get one"), "{}", failure.hint());
    let (failure, _) = scrape(&mut mesh.client(), &request).await.expect_err("no answer");
    assert_eq!(failure.hint(), Reason::ClosedAfterHandshake.hint(), "nothing was offered");
}
