//! What things are called: from what discovery found to targets, and from exposition entries to series.
//!
//! Everything here is a pure function of labels and the job's configuration: no time, no I/O, no Kubernetes. What
//! always holds: whether and how the one who answers is verified follows from the job and from `__spiffe_id__` alone; a
//! label can make a target less reachable, never less verified.

mod expected;
mod fate;
mod place;
mod sample;
mod set;
mod target;
#[cfg(test)]
pub(crate) mod tests;

pub use expected::SPIFFE_ID_LABEL;
pub use fate::Fate;
pub use place::check_ip as check_pod_ip;
pub use sample::SampleRules;
pub use set::settle;
pub use target::{Judged, assemble, judge, targets_of};
