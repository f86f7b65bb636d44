//! A job of the configuration as lines of it: what a hint asks to be written differently is one call.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};
use std::path::Path;

use meshscrape::model::Reason;

use crate::support::mesh::CART;

/// The namespace of all pods here: by it and their names the command finds them.
const NAMESPACE: &str = "shop";

type Labels = BTreeMap<&'static str, String>;

/// A job with its targets.
#[derive(Clone)]
pub(super) struct Job {
    keys: BTreeMap<&'static str, String>,
    targets: Vec<(String, Labels)>,
}

impl Job {
    /// One that verifies with these certificates, and expects [`CART`] at this address.
    pub(super) fn of_mesh(certs: &Path, address: impl Display) -> Self {
        Self::new("https", "/stats/prometheus", address)
            .with("tls_config", format!("{{certs_dir: '{}', spiffe: {{}}}}", certs.display()))
            .labelled("__spiffe_id__", CART)
    }

    /// One over plain HTTP.
    pub(super) fn plain(address: impl Display) -> Self {
        Self::new("http", "/metrics", address)
    }

    fn new(scheme: &str, path: &str, address: impl Display) -> Self {
        // Long enough for a machine that has much else to do.
        Self { keys: BTreeMap::new(), targets: vec![(address.to_string(), Labels::new())] }
            .with("scrape_interval", "3s")
            .with("scrape_timeout", "3s")
            .with("scheme", scheme)
            .with("metrics_path", path)
    }

    /// With this key, in place of what it says now.
    pub(super) fn with(mut self, key: &'static str, value: impl Into<String>) -> Self {
        self.keys.insert(key, value.into());
        self
    }

    /// With the first target at another address.
    pub(super) fn at(mut self, address: impl Display) -> Self {
        self.targets[0].0 = address.to_string();
        self
    }

    /// With another target of the same labels.
    pub(super) fn and(mut self, address: impl Display) -> Self {
        let labels = self.targets[0].1.clone();
        self.targets.push((address.to_string(), labels));
        self
    }

    /// With a label on the last target.
    pub(super) fn labelled(mut self, name: &'static str, value: &str) -> Self {
        self.targets.last_mut().expect("it has one").1.insert(name, value.to_owned());
        self
    }

    /// Without a label of the first target.
    pub(super) fn unlabelled(mut self, name: &str) -> Self {
        self.targets[0].1.remove(name);
        self
    }

    /// The lines. Each target is what discovery would find of a pod with the name of the reason.
    pub(super) fn write(&self, reason: Reason) -> String {
        let mut text = format!("- job_name: {reason}\n");
        for (key, value) in &self.keys {
            let _ = writeln!(text, "  {key}: {value}");
        }
        text.push_str("  static_configs:\n");
        for (address, labels) in &self.targets {
            let _ = write!(text, "  - {{targets: ['{address}'], labels: {{");
            let pod = pod(reason);
            let own = [
                ("instance", reason.name()),
                ("__meta_kubernetes_namespace", NAMESPACE),
                ("__meta_kubernetes_pod_name", &pod),
            ];
            let own = own.into_iter().filter(|(name, _)| !labels.contains_key(name));
            for (name, value) in own.chain(labels.iter().map(|(name, value)| (*name, value.as_str()))) {
                let _ = write!(text, "{name}: '{value}', ");
            }
            text.push_str("}}\n");
        }
        text
    }
}

/// The name of the pod that the command is asked for.
pub(crate) fn pod(reason: Reason) -> String {
    reason.name().replace('_', "-")
}
