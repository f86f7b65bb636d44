//! An example of what was counted.

use super::Labels;

/// An example of what a series has counted, such as a trace.
#[derive(Clone, Debug, PartialEq)]
pub struct Exemplar {
    /// What identifies it; not the labels of the series.
    pub labels: Labels,
    /// Its value; a NaN is the ordinary one.
    pub value: f64,
    /// Its own time, in milliseconds since the Unix epoch; without one it has its sample's.
    pub timestamp_ms: Option<i64>,
}
