//! A real Prometheus that scrapes agents and evaluates the rules of `deploy/monitoring`, as the person on call has it.
//!
//! An alert counts as raised while it is pending: how long each must last is what `rules_test.yaml` plays.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use meshscrape::clock::Clock;
use serde_json::Value;
use tokio::time::Instant;

use super::shipped::root;
use crate::support::prometheus::Prometheus;

/// How long an alert may take to be raised, or to be over.
const PATIENCE: Duration = Duration::from_secs(120);

/// The alert whose cause needs an API server, and so stands with what needs one.
pub(crate) const DISCOVERY_STALE: &str = "MeshscrapeDiscoveryStale";

pub(crate) struct Watcher {
    pub(super) prometheus: Prometheus,
}

impl Watcher {
    /// Of the agents whose `/metrics` are there.
    pub(crate) async fn of(agents: &[SocketAddr]) -> Self {
        let agents: Vec<String> = agents.iter().map(|agent| format!("'{agent}'")).collect();
        let config = format!(
            "
global: {{scrape_interval: 3s, scrape_timeout: 3s, evaluation_interval: 1s}}
rule_files: ['{}']
scrape_configs: [{{job_name: meshscrape, static_configs: [{{targets: [{}]}}]}}]
",
            root().join("deploy/monitoring/rules.yaml").display(),
            agents.join(", "),
        );
        Self { prometheus: Prometheus::with_config(&config).await }
    }

    /// Instances and the alerts that are raised for them.
    pub(crate) async fn raised(&self) -> BTreeSet<(String, String)> {
        let data = self.prometheus.read("/api/v1/alerts").await;
        let alerts = data["alerts"].as_array().expect("a list").iter();
        let text = |alert: &Value, label: &str| alert["labels"][label].as_str().unwrap_or_default().to_owned();
        alerts.map(|alert| (text(alert, "instance"), text(alert, "alertname"))).collect()
    }

    /// Whether an expression has a value now.
    pub(super) async fn holds(&self, expression: &str) -> bool {
        !self.prometheus.instant(expression, Clock::system().now_ms()).await.is_empty()
    }

    /// Waits until all of these alerts are raised for one agent, or none of them.
    pub(crate) async fn until(&self, agent: SocketAddr, alerts: &[&str], raised: bool) {
        let deadline = Instant::now() + PATIENCE;
        let agent = agent.to_string();
        loop {
            let now = self.raised().await;
            let is_raised = |alert: &&str| now.contains(&(agent.clone(), (*alert).to_owned()));
            if alerts.iter().all(|alert| is_raised(alert) == raised) {
                return;
            }
            assert!(Instant::now() < deadline, "{alerts:?} raised: {raised}? {now:?}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}
