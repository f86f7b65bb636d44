//! What the tests of views look at.

use std::time::Duration;

use crate::model::{Address, Alpn, HistogramReading, Labels, Scheme, Target, TargetId, Tenants, Verification};

/// A target at this address, whose host name is verified.
pub(super) fn target(address: &str) -> Target {
    Target {
        id: TargetId(7),
        pool: "shop".into(),
        address: Address::parse(address).expect("an address"),
        scheme: Scheme::Https,
        path_and_query: "/metrics".into(),
        labels: [("instance", address)].into_iter().collect(),
        tenants: Tenants::default(),
        discovered: Labels::new(),
        interval: Duration::from_secs(60),
        timeout: Duration::from_secs(10),
        histograms: HistogramReading::default(),
        verification: Verification::HostName,
        alpn: Alpn::default(),
        pod: None,
    }
}
