//! What a receiver stored and gave back, equal only if every bit is.

use std::collections::BTreeMap;

/// The labels of one series, `__name__` among them.
pub(crate) type LabelMap = BTreeMap<String, String>;

/// One series with its samples in order of time.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Stored {
    pub(crate) labels: LabelMap,
    pub(crate) samples: Vec<Point>,
}

/// One sample. Two are equal if time and all 64 bits of the value are: a staleness marker is no other NaN.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Point {
    /// Milliseconds since the Unix epoch.
    pub(crate) at_ms: i64,
    pub(crate) value: f64,
}

impl PartialEq for Point {
    fn eq(&self, other: &Self) -> bool {
        (self.at_ms, self.value.to_bits()) == (other.at_ms, other.value.to_bits())
    }
}

/// Labels from pairs.
pub(crate) fn labels(pairs: &[(&str, &str)]) -> LabelMap {
    pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Sorted by labels: receivers promise no order of series.
pub(crate) fn sorted(mut series: Vec<Stored>) -> Vec<Stored> {
    series.sort_by(|a, b| a.labels.cmp(&b.labels));
    series
}

/// Labels from a JSON object of strings.
pub(crate) fn labels_from_json(object: &serde_json::Value) -> LabelMap {
    let object = object.as_object().expect("an object of labels");
    object.iter().map(|(name, value)| (name.clone(), value.as_str().expect("a label value").to_owned())).collect()
}
