//! What the sidecars of the demo expose: texts in the shapes that Istio serves, with counters that move.
//!
//! The merged port concatenates the agent's, Envoy's and the application's part without looking inside; if the
//! application speaks OpenMetrics the whole is declared so, although Envoy's part stays classic. Envoy writes `# TYPE`
//! without `# HELP` and empty braces where there are no labels. All of it is a pure function of the time since the start,
//! so that two scrapes never agree and none can be mistaken for another's.

use std::fmt::Write;
use std::time::Duration;

/// The series that only the bytes of those who must be refused carry: whoever receives it was deceived.
pub(super) const MARKER: &str = "demo_impostor_marker";

/// Which parts an exposition has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Agent, Envoy and application, classic text: a sidecar's merged port.
    Merged,
    /// The same with an application that speaks OpenMetrics.
    MergedOpenMetrics,
    /// Envoy alone: the Envoy-only port.
    Envoy,
    /// Agent and Envoy: the merged port of a gateway, which has no application.
    Gateway,
}

impl Shape {
    /// The content type that Istio answers with.
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Shape::Merged | Shape::Gateway => "text/plain; version=0.0.4; charset=utf-8",
            Shape::MergedOpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            // Envoy names no version.
            Shape::Envoy => "text/plain; charset=UTF-8",
        }
    }

    /// Whether the answer is compressed when the client allows it: the agent does, Envoy on its own does not.
    pub(super) fn compresses(self) -> bool {
        self != Shape::Envoy
    }
}

/// What the workload `app` exposes `uptime` after its start.
pub(super) fn exposition(shape: Shape, app: &str, uptime: Duration) -> String {
    let mut text = Text { out: String::with_capacity(32 * 1024), seconds: uptime.as_secs_f64() };
    if shape != Shape::Envoy {
        text.agent();
    }
    text.envoy(app, shape == Shape::Gateway);
    match shape {
        Shape::Merged => text.application(),
        Shape::MergedOpenMetrics => text.open_metrics_application(),
        Shape::Envoy | Shape::Gateway => {}
    }
    text.out
}

/// What somebody exposes who must be refused: plausible, plus the marker.
pub(super) fn tainted(app: &str, uptime: Duration) -> String {
    let mut text = exposition(Shape::Merged, app, uptime);
    let _ = writeln!(text, "# TYPE {MARKER} gauge\n{MARKER}{{pretends_to_be=\"{app}\"}} 1");
    text
}

/// Upper bounds in milliseconds, as Envoy has them by default.
const BUCKETS: [&str; 19] = [
    "0.5", "1", "5", "10", "25", "50", "100", "250", "500", "1000", "2500", "5000", "10000", "30000", "60000",
    "300000", "600000", "1800000", "3600000",
];

const DURATION: &str = "istio_request_duration_milliseconds";

struct Text {
    out: String,
    seconds: f64,
}

/// Writing into a `String` cannot fail, so the results of `write!` are dropped.
impl Text {
    /// A counter that stood at `start` and grows by `rate` a second.
    fn counted(&self, start: u64, rate: f64) -> u64 {
        start + (self.seconds * rate) as u64
    }

    fn agent(&mut self) {
        let scrapes = self.counted(1, 1.0);
        let memory = 41_943_040 + 4096 * self.counted(0, 7.0) % 1_048_576;
        let _ = write!(
            self.out,
            "# HELP istio_agent_scrapes_total Scrapes of this agent's merged metrics.\n\
             # TYPE istio_agent_scrapes_total counter\n\
             istio_agent_scrapes_total {scrapes}\n\
             # HELP istio_agent_scrape_failures_total Parts that were left out of an answer.\n\
             # TYPE istio_agent_scrape_failures_total counter\n\
             istio_agent_scrape_failures_total{{type=\"application\"}} 0\n\
             istio_agent_scrape_failures_total{{type=\"envoy\"}} 0\n\
             # HELP istio_agent_process_resident_memory_bytes Resident memory of the agent.\n\
             # TYPE istio_agent_process_resident_memory_bytes gauge\n\
             istio_agent_process_resident_memory_bytes {memory}\n"
        );
    }

    fn envoy(&mut self, app: &str, gateway: bool) {
        let reporter = if gateway { "source" } else { "destination" };
        let clients: &[&str] =
            if gateway { &["unknown"] } else { &["frontend", "istio-ingressgateway", "recommender", "mobile-api"] };
        let _ = writeln!(self.out, "# TYPE istio_requests_total counter");
        for client in clients {
            for (code, start, rate) in [("200", 48_210, 41.0), ("404", 240, 1.5), ("503", 17, 0.4)] {
                let labels = request_labels(reporter, client, app, code);
                let _ = writeln!(self.out, "istio_requests_total{{{labels}}} {}", self.counted(start, rate));
            }
        }
        let _ = writeln!(self.out, "# TYPE {DURATION} histogram");
        for client in clients {
            self.histogram(&request_labels(reporter, client, app, "200"));
        }
        for (name, start, rate) in [
            ("envoy_server_total_connections", 0, 0.0),
            ("envoy_cluster_manager_cds_update_success", 12, 0.1),
            ("envoy_listener_manager_lds_update_success", 12, 0.1),
            ("envoy_server_days_until_first_cert_expiring", 0, 0.0),
        ] {
            let kind = if rate > 0.0 { "counter" } else { "gauge" };
            let _ = writeln!(self.out, "# TYPE {name} {kind}\n{name}{{}} {}", self.counted(start, rate));
        }
        let _ = writeln!(self.out, "# TYPE envoy_cluster_upstream_cx_total counter");
        for cluster in ["xds-grpc", "prometheus_stats", "agent"] {
            let count = self.counted(3, 0.2);
            let _ = writeln!(self.out, "envoy_cluster_upstream_cx_total{{cluster_name=\"{cluster}\"}} {count}");
        }
    }

    fn histogram(&mut self, labels: &str) {
        let name = DURATION;
        let total = self.counted(48_210, 41.0);
        for (position, le) in BUCKETS.iter().enumerate() {
            // Cumulative: the first bucket holds a twentieth, from the eleventh on everything is inside.
            let inside = total.min(total * (2 * position as u64 + 1) / 20);
            let _ = writeln!(self.out, "{name}_bucket{{{labels},le=\"{le}\"}} {inside}");
        }
        let _ = writeln!(self.out, "{name}_bucket{{{labels},le=\"+Inf\"}} {total}");
        let _ = writeln!(self.out, "{name}_sum{{{labels}}} {}\n{name}_count{{{labels}}} {total}", 7 * total);
    }

    fn application(&mut self) {
        let orders = self.counted(9_000, 3.3);
        let lag = 0.25 + (self.seconds / 3.0).sin() / 8.0;
        let _ = write!(
            self.out,
            "# HELP shop_orders_total Orders by how they ended.\n\
             # TYPE shop_orders_total counter\n\
             shop_orders_total{{outcome=\"paid\"}} {orders}\n\
             shop_orders_total{{outcome=\"abandoned\"}} {}\n\
             # HELP shop_queue_lag_seconds Age of the oldest order that waits.\n\
             # TYPE shop_queue_lag_seconds gauge\n\
             shop_queue_lag_seconds {lag}\n",
            orders / 4
        );
    }

    fn open_metrics_application(&mut self) {
        let paid = self.counted(2_100, 2.1);
        let _ = write!(
            self.out,
            "# HELP shop_checkouts Checkouts by how they ended.\n\
             # TYPE shop_checkouts counter\n\
             shop_checkouts_total{{outcome=\"paid\"}} {paid} # {{trace_id=\"4bf92f3577b34da6\"}} 1\n\
             shop_checkouts_total{{outcome=\"declined\"}} {}\n\
             # TYPE shop_basket_bytes gauge\n\
             # UNIT shop_basket_bytes bytes\n\
             shop_basket_bytes {}\n\
             # EOF\n",
            paid / 30,
            512 + self.counted(0, 11.0) % 2048
        );
    }
}

fn request_labels(reporter: &str, client: &str, app: &str, code: &str) -> String {
    let flags = if code == "503" { "UF,URX" } else { "-" };
    format!(
        "reporter=\"{reporter}\",source_workload=\"{client}\",source_workload_namespace=\"shop\",\
         source_principal=\"spiffe://cluster.local/ns/shop/sa/{client}\",source_app=\"{client}\",source_version=\"v1\",\
         source_cluster=\"Kubernetes\",destination_workload=\"{app}\",destination_workload_namespace=\"shop\",\
         destination_principal=\"spiffe://cluster.local/ns/shop/sa/{app}\",destination_app=\"{app}\",\
         destination_version=\"v1\",destination_service=\"{app}.shop.svc.cluster.local\",\
         destination_service_name=\"{app}\",destination_service_namespace=\"shop\",destination_cluster=\"Kubernetes\",\
         request_protocol=\"http\",response_code=\"{code}\",response_flags=\"{flags}\",\
         connection_security_policy=\"mutual_tls\""
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The classic text is held against a parser that is not ours; it reads no OpenMetrics.
    fn read(text: &str) -> Vec<prometheus_parse::Sample> {
        prometheus_parse::Scrape::parse(text.lines().map(|line| Ok(line.to_owned()))).expect("readable").samples
    }

    fn samples(text: &str) -> usize {
        text.lines().filter(|line| !line.starts_with('#')).count()
    }

    #[test]
    fn every_shape_ends_as_its_format_demands() {
        for shape in [Shape::Merged, Shape::MergedOpenMetrics, Shape::Envoy, Shape::Gateway] {
            let text = exposition(shape, "cart", Duration::from_secs(3));
            let is_open = shape == Shape::MergedOpenMetrics;
            assert_eq!(is_open, text.ends_with("\n# EOF\n"), "{shape:?}");
            assert!(text.ends_with('\n') && !text.contains("\n\n"), "{shape:?}");
            assert_eq!(text.contains("istio_agent_"), shape != Shape::Envoy, "{shape:?}");
            assert!(samples(&text) > 30, "{shape:?}: {}", samples(&text));
        }
    }

    #[test]
    fn an_independent_parser_reads_the_classic_shapes() {
        for shape in [Shape::Merged, Shape::Envoy, Shape::Gateway] {
            let read = read(&exposition(shape, "cart", Duration::from_secs(3)));
            let paid = read.iter().find(|sample| sample.metric == "istio_requests_total").expect("there");
            assert_eq!(paid.labels.get("destination_app"), Some("cart"), "{shape:?}");
            assert_eq!(paid.value, prometheus_parse::Value::Counter(48_333.0), "{shape:?}");
        }
    }

    #[test]
    fn counters_move() {
        let [before, after] = [1, 2].map(|s| exposition(Shape::Envoy, "cart", Duration::from_secs(s)));
        assert_ne!(before, after);
    }

    #[test]
    fn only_tainted_text_carries_the_marker() {
        let uptime = Duration::from_secs(1);
        for shape in [Shape::Merged, Shape::MergedOpenMetrics, Shape::Envoy, Shape::Gateway] {
            assert!(!exposition(shape, "cart", uptime).contains(MARKER));
        }
        assert!(read(&tainted("cart", uptime)).iter().any(|sample| sample.metric == MARKER));
    }
}
