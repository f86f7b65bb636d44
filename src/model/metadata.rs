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
