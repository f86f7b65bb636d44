//! One value at one time, and the NaN that means "this series ended".

/// The bits of the staleness marker, a signalling NaN that no exposition can carry because every NaN read from
/// outside is normalised (see [`normalise_nan`]). Prometheus and remote write 1.0 and 2.0 agree on it.
pub const STALE_NAN_BITS: u64 = 0x7ff0_0000_0000_0002;

/// The bits of the ordinary NaN that stands for any NaN read from an exposition.
const NORMAL_NAN_BITS: u64 = 0x7ff8_0000_0000_0001;

/// A value at a time.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// The value; any bits, the NaN payload counts.
    pub value: f64,
    /// Milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
}

/// Two samples are equal if their bits are: a staleness marker equals itself and no other NaN, `0` is not `-0`.
impl PartialEq for Sample {
    fn eq(&self, other: &Self) -> bool {
        self.value.to_bits() == other.value.to_bits() && self.timestamp_ms == other.timestamp_ms
    }
}

/// The staleness marker.
pub fn stale_nan() -> f64 {
    f64::from_bits(STALE_NAN_BITS)
}

/// The ordinary NaN.
pub fn normal_nan() -> f64 {
    f64::from_bits(NORMAL_NAN_BITS)
}

/// Whether `value` is the staleness marker, to the bit.
pub fn is_stale(value: f64) -> bool {
    value.to_bits() == STALE_NAN_BITS
}

/// Replaces any NaN by the ordinary one, so that a target cannot forge a staleness marker.
pub fn normalise_nan(value: f64) -> f64 {
    if value.is_nan() { normal_nan() } else { value }
}

/// What a metric family was announced to be by `# TYPE`; the union of both text formats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum MetricType {
    /// No type known: `untyped` in the Prometheus format, `unknown` in OpenMetrics, or no TYPE line.
    #[default]
    Unknown,
    /// `counter`
    Counter,
    /// `gauge`
    Gauge,
    /// `histogram`
    Histogram,
    /// `gaugehistogram`
    GaugeHistogram,
    /// `summary`
    Summary,
    /// `info`
    Info,
    /// `stateset`
    StateSet,
}

impl MetricType {
    /// The word as the Prometheus API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            MetricType::Unknown => "unknown",
            MetricType::Counter => "counter",
            MetricType::Gauge => "gauge",
            MetricType::Histogram => "histogram",
            MetricType::GaugeHistogram => "gaugehistogram",
            MetricType::Summary => "summary",
            MetricType::Info => "info",
            MetricType::StateSet => "stateset",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_marker_is_only_itself() {
        assert!(is_stale(stale_nan()));
        assert!(!is_stale(normal_nan()));
        assert!(!is_stale(f64::NAN));
        assert_eq!(normalise_nan(stale_nan()).to_bits(), normal_nan().to_bits());
        assert_eq!(normalise_nan(-0.0).to_bits(), (-0.0f64).to_bits());
    }
}
