//! The configuration file of the demo's agent.

use std::fmt::Write;

use super::mesh::Mesh;

/// The configuration of the agent: what somebody would write for these six targets, and nothing that only a demo
/// could do.
pub(super) fn configuration(mesh: &Mesh, receiver: &str) -> String {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let certs = quoted(&mesh.agent_certs().to_string_lossy());
    let domain = mesh.domain();
    let mut text = format!(
        r"global:
  scrape_interval: 2s
  scrape_timeout: 2s
  require_identity: true
scrape_configs:
  - job_name: istio-proxies
    scheme: https
    metrics_path: /stats/prometheus
    require_complete: true
    tls_config:
      certs_dir: {certs}
      spiffe:
        trust_domain: {domain}
    static_configs:
"
    );
    for sidecar in mesh.sidecars() {
        let (address, role) = (sidecar.address(), sidecar.role());
        let (namespace, app, expected) = (role.namespace, role.name, role.expected(domain));
        let labels = format!("{{ namespace: {namespace}, app: {app}, __spiffe_id__: \"{expected}\" }}");
        // Writing into a `String` cannot fail.
        let _ = writeln!(text, "      - targets: [\"{address}\"]\n        labels: {labels}");
    }
    let url = quoted(receiver);
    let _ = writeln!(text, "remote_write:\n  - url: {url}\n    queue_config:\n      batch_send_deadline: 1s");
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::Clock;
    use crate::config;

    #[tokio::test]
    async fn the_configuration_is_one_that_the_agent_takes_without_a_word() {
        let mesh = Mesh::start(Duration::from_secs(30), Clock::system()).await.expect("a mesh");
        let path = mesh.file("meshscrape.yaml");
        std::fs::write(&path, configuration(&mesh, "http://127.0.0.1:9/api/v1/write")).expect("written");
        let loaded = config::load(&path, &|_| None);
        let warnings: Vec<_> = loaded.warnings.iter().map(ToString::to_string).collect();
        assert!(warnings.is_empty(), "{warnings:?}");
        let config = loaded.config.map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>());
        let config = config.expect("no problem");
        assert_eq!(config.scrape_configs[0].static_configs.len(), mesh.sidecars().len());
        assert!(config.global.require_identity);
    }
}
