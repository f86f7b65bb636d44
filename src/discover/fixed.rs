//! Targets that stand in the configuration itself: `static_configs`.

use std::sync::Arc;

use crate::config::ScrapeConfig;
use crate::model::{Candidate, Labels};

/// The label that every target has before relabelling.
pub(super) const ADDRESS: &str = "__address__";

/// The candidates of a job's `static_configs`; they never change.
pub(super) fn candidates_of(job: &ScrapeConfig) -> Vec<Candidate> {
    let mut candidates = Vec::new();
    for (index, group) in job.static_configs.iter().enumerate() {
        let source: Arc<str> = format!("static_configs[{index}]").into();
        candidates.extend(group.targets.iter().map(|target| candidate(target, &group.labels, &source)));
    }
    candidates
}

/// One target of a group: its own address, and the labels of the group.
pub(super) fn candidate(target: &str, group: &Labels, source: &Arc<str>) -> Candidate {
    let mut labels = group.clone();
    labels.set(ADDRESS, target);
    Candidate { labels, source: Arc::clone(source), pod: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::StaticConfig;
    use crate::label::tests::ordinary_job;

    #[test]
    fn each_target_gets_the_labels_of_its_group_and_its_own_address() {
        let mut job = ordinary_job();
        let group = |targets: &[&str], labels: &[(&str, &str)]| StaticConfig {
            targets: targets.iter().map(|&target| target.to_owned()).collect(),
            labels: labels.iter().copied().collect(),
        };
        job.static_configs = vec![
            group(&["a:1", "b:1"], &[("env", "x"), ("__address__", "ignored:1")]),
            group(&[], &[]),
            group(&["c"], &[]),
        ];
        let found: Vec<String> =
            candidates_of(&job).iter().map(|found| format!("{} {}", found.source, found.labels)).collect();
        assert_eq!(
            found,
            [
                r#"static_configs[0] {__address__="a:1", env="x"}"#,
                r#"static_configs[0] {__address__="b:1", env="x"}"#,
                r#"static_configs[2] {__address__="c"}"#,
            ]
        );
    }
}
