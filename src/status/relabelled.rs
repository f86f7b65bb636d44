//! What each rule of a job makes of a label set: why a target has its labels, and why a pod is none.

use crate::model::Labels;
use crate::relabel::Rule;

/// What one rule did.
pub(super) struct Step<'a> {
    /// The rule.
    pub(super) rule: &'a Rule,
    /// The labels after it; none once they are dropped.
    pub(super) labels: Labels,
    /// Whether there is a target still.
    pub(super) keep: bool,
}

/// Every rule in its order; those behind the one that drops the labels are listed, too.
pub(super) fn steps(rules: &[Rule], mut labels: Labels) -> Vec<Step<'_>> {
    let mut keep = true;
    let step = |rule| {
        keep = keep && Rule::apply(rule, &mut labels);
        Step { rule, labels: if keep { labels.clone() } else { Labels::new() }, keep }
    };
    rules.iter().map(step).collect()
}
