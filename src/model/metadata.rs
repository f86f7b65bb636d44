//! What a metric family is, as its targets describe it.

use std::sync::Arc;

use super::MetricType;

/// One description of one metric family: what TYPE, HELP and UNIT say of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Metadata {
    /// The family's name, as it stands in the exposition.
    pub family: Arc<str>,
    /// Its type; [`MetricType::Unknown`] where none is announced.
    pub kind: MetricType,
    /// What it is, in words; empty where nothing is said.
    pub help: Arc<str>,
    /// Its unit; empty where none is told.
    pub unit: Arc<str>,
}

impl Metadata {
    /// Whether a series of this name is one of the family's. As in Prometheus, the family of a counter may be named with or
    /// without `_total`, and `_created` makes a series of its own.
    pub fn describes(&self, metric: &str) -> bool {
        let suffixes: &[&str] = match self.kind {
            MetricType::Counter => &["_total"],
            MetricType::Histogram => &["_bucket", "_sum", "_count"],
            MetricType::GaugeHistogram => &["_bucket", "_gsum", "_gcount"],
            MetricType::Summary => &["_sum", "_count"],
            MetricType::Info => &["_info"],
            MetricType::Gauge | MetricType::StateSet | MetricType::Unknown => &[],
        };
        metric.strip_prefix(&*self.family).is_some_and(|rest| rest.is_empty() || suffixes.contains(&rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_has_the_series_of_its_type() {
        let describes = |family: &str, kind, metric: &str| {
            let nothing: Arc<str> = Arc::default();
            Metadata { family: family.into(), kind, help: Arc::clone(&nothing), unit: nothing }.describes(metric)
        };
        for (kind, suffixes) in [
            (MetricType::Counter, &["", "_total"][..]),
            (MetricType::Gauge, &[""]),
            (MetricType::Histogram, &["", "_bucket", "_sum", "_count"]),
            (MetricType::GaugeHistogram, &["", "_bucket", "_gsum", "_gcount"]),
            (MetricType::Summary, &["", "_sum", "_count"]),
            (MetricType::Info, &["", "_info"]),
            (MetricType::StateSet, &[""]),
            (MetricType::Unknown, &[""]),
        ] {
            let all = ["", "_total", "_bucket", "_sum", "_count", "_gsum", "_gcount", "_info", "_created", "_other"];
            for suffix in all {
                let described = describes("fill", kind, &format!("fill{suffix}"));
                assert_eq!(described, suffixes.contains(&suffix), "{kind:?} {suffix}");
            }
            assert!(!describes("fill", kind, "full") && !describes("fill", kind, "fil"));
        }
        assert!(describes("a_total", MetricType::Counter, "a_total"));
        assert!(!describes("a_total", MetricType::Counter, "a"));
    }
}
