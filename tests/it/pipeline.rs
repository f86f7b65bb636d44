//! The whole way on real parts: real Envoy, the real agent, real Prometheus and VictoriaMetrics.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::agent::{self, Running, eventually};
use crate::support::ca::{Ca, CertsDir};
use crate::support::envoy::{Envoy, ListenerSpec};
use crate::support::prometheus::Prometheus;
use crate::support::stored::{LabelMap, Stored};
use crate::support::tap::{NUMBER, Tap};
use crate::support::victoria::Victoria;

const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";
const AGENT: &str = "spiffe://cluster.local/ns/monitoring/sa/meshscrape";

/// A SPIFFE job with one target.
fn job(name: &str, certs: &Path, target: impl std::fmt::Display, id: &str) -> String {
    format!(
        "
- job_name: {name}
  scrape_interval: 1s
  scrape_timeout: 1s
  metrics_path: /stats/prometheus
  scheme: https
  require_complete: true
  tls_config: {{certs_dir: {}, spiffe: {{}}}}
  static_configs:
  - targets: ['{target}']
    labels: {{__spiffe_id__: '{id}'}}
",
        certs.display()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn what_envoy_served_is_what_prometheus_and_victoriametrics_stored() {
    let ca = Ca::new("cluster.local");
    let dir = TempDir::new().expect("a directory");
    let certs = CertsDir::at(dir.path());
    certs.write(&ca.leaf(AGENT), &[&ca]);
    let tap = Tap::start().await;
    let envoy = Envoy::start(&[ListenerSpec::merged("cart", &ca.leaf(CART), &[&ca], tap.address())]).await;
    tap.pass_on(envoy.admin_socket());
    let (prometheus, victoria) = tokio::join!(Prometheus::start(), Victoria::start());

    let target = envoy.address("cart");
    let config = format!(
        "scrape_configs:{}remote_write:\n- url: {}\n  queue_config: {{batch_send_deadline: 200ms}}\n- url: {}\n  queue_config: {{batch_send_deadline: 200ms}}\n",
        job("mesh", certs.path(), target, CART),
        prometheus.write_url(),
        victoria.write_url(),
    );
    let agent = agent::start(dir.path(), &config).await;
    let started = agent.clock.now_ms();
    agent.until_all("three scrapes", |target| target["scrapesSucceeded"].as_u64() >= Some(3)).await;
    let ended = agent.clock.now_ms();
    let stopped = agent.stop().await;
    assert_eq!(stopped.undelivered, 0);

    let bodies = tap.bodies();
    let from_prometheus = prometheus.raw(&[("job", "mesh")], started - 1000, ended + 60_000).await;
    let compared = compare(&bodies, &from_prometheus, &target.to_string(), |a, b| a.to_bits() == b.to_bits());
    assert!(compared >= 3, "only {compared} scrapes in Prometheus");

    let from_victoria = eventually("VictoriaMetrics shows the last scrape", async || {
        let stored = victoria.raw("{job=\"mesh\"}").await;
        let numbers = stored.iter().find(|series| series.labels["__name__"] == NUMBER)?;
        let there = numbers.samples.iter().filter(|point| !point.value.is_nan()).count();
        (there >= compared).then_some(stored)
    })
    .await;
    // VictoriaMetrics keeps decimal digits, not the bits of a float.
    let close = |a: f64, b: f64| a == b || (a - b).abs() <= a.abs() * 1e-14;
    let compared = compare(&bodies, &from_victoria, &target.to_string(), close);
    assert!(compared >= 3, "only {compared} scrapes in VictoriaMetrics");
}

/// Holds every stored scrape against the body it came from; returns how many scrapes were compared.
fn compare(bodies: &[String], stored: &[Stored], instance: &str, same: impl Fn(f64, f64) -> bool) -> usize {
    let mut scrapes: BTreeMap<i64, BTreeMap<LabelMap, f64>> = BTreeMap::new();
    for series in stored {
        for point in &series.samples {
            scrapes.entry(point.at_ms).or_default().insert(series.labels.clone(), point.value);
        }
    }
    let mut compared = 0;
    for (at, mut scrape) in scrapes {
        // A scrape that ran out of time has a marker there, or nothing.
        let number = scrape.iter().find(|(labels, _)| labels["__name__"] == NUMBER).map(|(_, value)| *value);
        let Some(number) = number.filter(|number| !number.is_nan()) else { continue };
        let expected = read_body(&bodies[number as usize - 1], instance);
        let mut own = BTreeMap::new();
        scrape.retain(|labels, value| {
            let name = &labels["__name__"];
            let synthetic = name == "up" || name.starts_with("scrape_");
            if synthetic {
                own.insert(name.clone(), *value);
            }
            !synthetic
        });
        assert_eq!(own["up"], 1.0);
        assert_eq!(own["scrape_samples_scraped"], expected.len() as f64);
        assert_eq!(own["scrape_samples_post_metric_relabeling"], expected.len() as f64);
        let missing: Vec<_> = expected.keys().filter(|labels| !scrape.contains_key(*labels)).collect();
        let extra: Vec<_> = scrape.keys().filter(|labels| !expected.contains_key(*labels)).collect();
        assert!(missing.is_empty() && extra.is_empty(), "at {at}: missing {missing:?}, extra {extra:?}");
        for (labels, value) in &expected {
            assert!(same(*value, scrape[labels]), "{labels:?}: served {value}, stored {}", scrape[labels]);
        }
        assert!(expected.len() > 100, "Envoy exposes more than {} series", expected.len());
        compared += 1;
    }
    compared
}

/// Reads what Envoy writes (no escapes, no timestamps), with nothing of the product's parser: what is compared must not
/// judge itself. `le` is rewritten as Prometheus does under TYPE histogram.
fn read_body(body: &str, instance: &str) -> BTreeMap<LabelMap, f64> {
    let mut series = BTreeMap::new();
    let mut histogram = false;
    for line in body.lines() {
        if let Some(announced) = line.strip_prefix("# TYPE ") {
            histogram = announced.ends_with(" histogram");
            continue;
        }
        let (text, value) = line.rsplit_once(' ').expect("a value");
        let (name, braces) = text.split_once('{').unwrap_or((text, "}"));
        let mut labels: LabelMap = [("__name__", name), ("instance", instance), ("job", "mesh")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        let inside = braces.strip_suffix('}').expect("closing brace");
        for pair in inside.split("\",").filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once("=\"").expect("a label");
            let value = value.trim_end_matches('"');
            let value = if name == "le" && histogram { float_form(value) } else { value.to_owned() };
            if !value.is_empty() {
                labels.insert(name.to_owned(), value);
            }
        }
        let repeated = series.insert(labels, value.parse().expect("a number"));
        assert!(repeated.is_none(), "{line} stands there twice");
    }
    series
}

/// `1` as `1.0`, `1800000` as `1.8e+06`: the shortest digits, exponents from a million on.
fn float_form(text: &str) -> String {
    let Ok(value) = text.parse::<f64>() else { return text.to_owned() };
    if value.is_infinite() {
        return text.to_owned();
    }
    if value >= 1e6 {
        let scientific = format!("{value:e}");
        let (digits, exponent) = scientific.split_once('e').expect("an exponent");
        return format!("{digits}e+{exponent:0>2}");
    }
    format!("{value:?}")
}

#[tokio::test(flavor = "multi_thread")]
async fn envoy_ports_of_every_kind_are_scraped_or_refused_with_their_reason() {
    let ca = Ca::new("cluster.local");
    let stranger = Ca::new("cluster.local");
    let dir = TempDir::new().expect("a directory");
    let certs = CertsDir::at(dir.path());
    certs.write(&ca.leaf(AGENT), &[&ca]);
    let leaf = ca.leaf(CART);
    let envoy = Envoy::start(&[
        ListenerSpec::stats("envoy-only", &leaf, &[&ca]),
        ListenerSpec::stats("other-account", &ca.leaf("spiffe://cluster.local/ns/shop/sa/wolf"), &[&ca]),
        ListenerSpec::stats("other-mesh", &stranger.leaf(CART), &[&ca]),
        ListenerSpec::stats("refuses-us", &leaf, &[&stranger]),
    ])
    .await;
    // Under STRICT the hop in front of a secure port ends our TLS and passes plain bytes on to it.
    let captured = ListenerSpec::capture("strict", &leaf, &[&ca], envoy.address("envoy-only"));
    let hop = Envoy::start(&[captured]).await;
    let names = ["envoy-only", "other-account", "other-mesh", "refuses-us"];
    let mut config = "scrape_configs:".to_owned();
    for name in names {
        config.push_str(&job(name, certs.path(), envoy.address(name), CART));
    }
    config.push_str(&job("strict", certs.path(), hop.address("strict"), CART));
    let wrong_path = job("wrong-path", certs.path(), envoy.address("envoy-only"), CART);
    config.push_str(&wrong_path.replace("/stats/prometheus", "/metrics"));
    let agent: Running = agent::start(dir.path(), &config).await;
    let expected = BTreeMap::from([
        ("envoy-only", ""),
        ("other-account", "identity_mismatch"),
        ("other-mesh", "unknown_authority"),
        ("refuses-us", "client_certificate_rejected"),
        ("strict", "closed_after_handshake"),
        ("wrong-path", "http_status"),
    ]);
    // A scrape may run out of time on a loaded machine; the next one tells.
    let as_expected = |target: &Value| {
        let job = target["scrapePool"].as_str().expect("a job");
        target["health"] != "unknown" && target["reason"] == expected[job]
    };
    let targets = agent.until_all("every target is what it is", as_expected).await;
    assert_eq!(targets.len(), expected.len());
    for (job, reason) in expected {
        if !reason.is_empty() {
            let series = format!("meshscrape_scrape_failures_total{{job=\"{job}\",reason=\"{reason}\"}}");
            assert!(agent.metric(&series).await >= 1.0, "{series}");
        }
    }
    let mismatch = targets.iter().find(|target| target["scrapePool"] == "other-account").expect("listed");
    assert_eq!(mismatch["expectedIdentity"], CART);
    let rule = (&mismatch["identityMatch"], &mismatch["acceptedIdentities"]);
    assert_eq!(rule, (&serde_json::json!("exact"), &serde_json::json!([CART])));
    assert_eq!(mismatch["presentedIdentity"], "spiffe://cluster.local/ns/shop/sa/wolf");
    agent.stop().await;
}
