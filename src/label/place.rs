//! Where the target of a pod may lead: to the pod's own address, if it is one that a pod can have, and to the ports that
//! the job allows.
//!
//! The identity of a pod was computed for the pod, so nobody else may be asked. Annotations that rules copy into
//! `__address__` may choose the port, not another host; and what the API server says of an address is not believed
//! either where it would lead to this node or to nobody in particular.

use std::net::IpAddr;

use crate::config::ScrapeConfig;
use crate::model::{Address, Cidr, Labels, Pod, Scheme, clean};

const ADDRESS: &str = "__address__";
const POD_IP: &str = "__meta_kubernetes_pod_ip";

/// Whether a target of a SPIFFE job may be dialled at `address`; the error says why not. Candidates behind which there is
/// no pod may lead anywhere.
pub(super) fn check(
    job: &ScrapeConfig,
    discovered: &Labels,
    pod: Option<&Pod>,
    address: &Address,
) -> Result<(), String> {
    let own = match (pod, discovered.get(POD_IP)) {
        (Some(pod), _) => pod.ip.ok_or_else(|| format!("{ADDRESS} {address}: the pod has no IP of its own"))?,
        (None, Some(text)) => {
            text.parse().map_err(|_| format!("{ADDRESS} {address}: the pod's IP {:?} is none", clean(text)))?
        }
        (None, None) => return Ok(()),
    };
    if address.ip() != Some(own) {
        return Err(format!("{ADDRESS} {address} is not on the pod's own IP {own}"));
    }
    check_ip(&job.pod_cidrs, own)?;
    let port = address.port().unwrap_or(Scheme::Https.default_port());
    if job.pod_ports.is_empty() || job.pod_ports.contains(&port) {
        return Ok(());
    }
    Err(format!("port {port} is not one of pod_ports: {}", listed(&job.pod_ports)))
}

/// Whether a pod can have this address; the error says why not. Where somebody says where pods are (`pod_cidrs`), they are
/// nowhere else; an IPv4 address that is written as IPv6 counts as what it stands for.
pub fn check_ip(pod_cidrs: &[Cidr], own: IpAddr) -> Result<(), String> {
    let meant = own.to_canonical();
    if !pod_cidrs.is_empty() {
        if pod_cidrs.iter().any(|range| range.contains(meant)) {
            return Ok(());
        }
        return Err(format!("the pod's IP {own} is in none of pod_cidrs: {}", listed(pod_cidrs)));
    }
    match unfit(meant) {
        None => Ok(()),
        Some(kind) => Err(format!(
            "the pod's IP {own} is {kind}, which no pod has; if pods are really there, list their ranges in pod_cidrs"
        )),
    }
}

/// What an address is that leads to this node, to its link, or to nobody in particular.
fn unfit(ip: IpAddr) -> Option<&'static str> {
    let (link_local, broadcast) = match ip {
        IpAddr::V4(ip) => (ip.is_link_local(), ip.is_broadcast()),
        IpAddr::V6(ip) => (ip.is_unicast_link_local(), false),
    };
    [
        (ip.is_loopback(), "a loopback address"),
        (link_local, "a link-local address"),
        (ip.is_multicast(), "a multicast address"),
        (ip.is_unspecified(), "the unspecified address"),
        (broadcast, "the broadcast address"),
    ]
    .into_iter()
    .find_map(|(is, kind)| is.then_some(kind))
}

fn listed(values: &[impl ToString]) -> String {
    values.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::label::tests::{POD, candidate, ordinary_job, spiffe_job, targets};
    use crate::label::{Judged, judge};
    use crate::model::{Candidate, TrustDomain};

    fn pod(ip: &str) -> Pod {
        Pod {
            name: "shop/cart-1".into(),
            uid: "u".into(),
            ip: ip.parse().ok(),
            created: 0,
            host_network: false,
            finished: false,
            terminating: false,
        }
    }

    fn judged(job: &ScrapeConfig, pod: Pod, address: &str) -> Judged {
        let labels = [("__address__", address), ("__spiffe_id__", "spiffe://cluster.local/ns/shop/sa/cart")];
        let domain = TrustDomain::parse("cluster.local").expect("valid");
        judge(job, &Candidate { pod: Some(Arc::new(pod)), ..candidate(&labels) }, Some(&domain))
    }

    fn error(judged: Judged) -> String {
        judged.expect_err("no target").error.clone().expect("malformed, not dropped by a rule")
    }

    #[test]
    fn no_pod_lives_on_the_node_its_link_or_nowhere() {
        for (ip, kind) in [
            ("127.0.0.1", "loopback"),
            ("127.255.0.9", "loopback"),
            ("::1", "loopback"),
            ("::ffff:127.0.0.1", "loopback"),
            ("169.254.169.254", "link-local"),
            ("169.254.0.1", "link-local"),
            ("::ffff:169.254.169.254", "link-local"),
            ("fe80::1", "link-local"),
            ("febf::1", "link-local"),
            ("224.0.0.1", "multicast"),
            ("239.255.255.255", "multicast"),
            ("ff02::1", "multicast"),
            ("::ffff:224.0.0.1", "multicast"),
            ("0.0.0.0", "unspecified"),
            ("::", "unspecified"),
            ("::ffff:0.0.0.0", "unspecified"),
            ("255.255.255.255", "broadcast"),
            ("::ffff:255.255.255.255", "broadcast"),
        ] {
            let address = if ip.contains(':') { format!("[{ip}]:15092") } else { format!("{ip}:15092") };
            let error = error(judged(&spiffe_job(), pod(ip), &address));
            assert!(error.starts_with("pod shop/cart-1: ") && error.contains(kind), "{ip}: {error}");
            assert!(judged(&ordinary_job(), pod(ip), &address).is_ok(), "{ip}: an ordinary job is Prometheus's");
        }
        for ip in ["10.0.0.7", "169.253.255.255", "128.0.0.1", "fd00::7", "fec0::1", "::ffff:10.0.0.7"] {
            let address = if ip.contains(':') { format!("[{ip}]:15092") } else { format!("{ip}:15092") };
            assert!(judged(&spiffe_job(), pod(ip), &address).is_ok(), "{ip}");
        }
    }

    #[test]
    fn a_pod_is_asked_on_its_own_address_only() {
        let at = |address: &'static str| {
            let mut labels = POD;
            labels[0].1 = address;
            targets(&spiffe_job(), &[&labels])
        };
        assert_eq!(at("10.0.0.7:9999").active.len(), 1, "the port may differ");
        for elsewhere in ["10.0.0.8:15092", "metadata.internal:80", "127.0.0.1:15092", "[::1]:15092"] {
            let made = at(elsewhere);
            assert!(made.active.is_empty(), "{elsewhere}");
            assert!(made.dropped[0].error.as_ref().is_some_and(|error| error.contains("10.0.0.7")), "{elsewhere}");
        }
        let mut labels = POD;
        labels[3].1 = "no address";
        labels[0].1 = "evil.example:15092";
        assert!(targets(&spiffe_job(), &[&labels]).active.is_empty());
    }

    #[test]
    fn the_label_of_a_pod_counts_where_no_more_is_known_of_it() {
        let judged = |ip: &str, address: &str| {
            let labels = [
                ("__address__", address),
                ("__meta_kubernetes_pod_ip", ip),
                ("__meta_kubernetes_namespace", "shop"),
                ("__meta_kubernetes_pod_name", "cart\u{1b}-1"),
                ("__spiffe_id__", "spiffe://cluster.local/ns/shop/sa/cart"),
            ];
            judge(&spiffe_job(), &candidate(&labels), None)
        };
        assert!(judged("10.0.0.7", "10.0.0.7:1").is_ok());
        let loopback = error(judged("127.0.0.1", "127.0.0.1:1"));
        assert!(loopback.starts_with("pod shop/cart\\u{1b}-1: ") && loopback.contains("loopback"), "{loopback}");
        assert!(error(judged("x", "10.0.0.7:1")).contains("\"x\" is none"));
        let malformed = error(judged("10.0.0.7", "10.0.0.7:x@evil.example:443"));
        assert!(malformed.starts_with("pod shop/cart"), "every fault of a pod names it: {malformed}");
    }

    #[test]
    fn where_ranges_are_given_pods_are_there_and_nowhere_else() {
        let mut job = spiffe_job();
        job.pod_cidrs = ["127.64.0.0/16", "fd00::/8", "::/0"].map(|range| range.parse().expect(range)).to_vec();
        for (ip, good) in [
            ("127.64.3.9", true),
            ("::ffff:127.64.3.9", true),
            ("fd12::1", true),
            ("127.65.0.1", false),
            ("10.0.0.7", false),
            ("169.254.169.254", false),
            ("::ffff:169.254.169.254", false),
        ] {
            let address = if ip.contains(':') { format!("[{ip}]:15092") } else { format!("{ip}:15092") };
            let judged = judged(&job, pod(ip), &address);
            assert_eq!(judged.is_ok(), good, "{ip}");
            if !good {
                let error = error(judged);
                assert!(error.contains("in none of pod_cidrs: 127.64.0.0/16, fd00::/8, ::/0"), "{error}");
            }
        }
    }

    #[test]
    fn only_the_listed_ports_are_dialled() {
        let mut job = spiffe_job();
        job.pod_ports = vec![15091, 15092];
        // Numbers are compared, and Go takes zeros in front of one, too.
        for address in ["10.0.0.7:15091", "10.0.0.7:15092", "10.0.0.7:015092"] {
            assert!(judged(&job, pod("10.0.0.7"), address).is_ok(), "{address}");
        }
        let refused = error(judged(&job, pod("10.0.0.7"), "10.0.0.7:8080"));
        assert_eq!(refused, "pod shop/cart-1: port 8080 is not one of pod_ports: 15091, 15092");
        assert!(error(judged(&job, pod("10.0.0.7"), "10.0.0.7")).contains("port 443"), "no port is one, too");
        assert!(error(judged(&job, pod("10.0.0.7"), "10.0.0.7:08080")).contains("port 8080 is not one"));
        let elsewhere =
            judge(&job, &candidate(&[("__address__", "10.0.0.7:8080"), ("__spiffe_id__", "spiffe://td/a")]), None);
        assert!(elsewhere.is_ok(), "what is no pod has any port");
    }

    #[test]
    fn what_the_api_server_says_of_the_pod_counts_and_not_its_label() {
        let labels = [
            ("__address__", "10.0.0.8:15092"),
            ("__meta_kubernetes_pod_ip", "10.0.0.8"),
            ("__spiffe_id__", "spiffe://td/a"),
        ];
        let of = |pod: Pod| judge(&spiffe_job(), &Candidate { pod: Some(Arc::new(pod)), ..candidate(&labels) }, None);
        assert!(error(of(pod("10.0.0.7"))).contains("not on the pod's own IP 10.0.0.7"));
        assert!(error(of(pod("none"))).contains("no IP"));
        assert!(of(pod("10.0.0.8")).is_ok());
    }
}
