//! From an exposed series to the series that is stored: target labels merged in, metric relabelling, names and limits
//! checked.
//!
//! The order is Prometheus': target labels first (a scraped label of the same name steps aside as `exported_…`), then
//! `metric_relabel_configs`, then the checks. It runs once for each new series text, not for each sample. What never
//! happens: a scraped label replaces a target label, unless the job says `honor_labels: true`.

use std::borrow::Cow;
use std::sync::Arc;

use crate::config::Limits;
use crate::model::{Failure, Labels, Reason, clean_to, is_legacy_label_name, is_legacy_metric_name};
use crate::relabel::{self, NameScheme, Rule};

/// How many bytes of names and values are shown in messages, as in Prometheus.
const SHOWN_BYTES: usize = 50;
/// The most labels one series may have when `label_limit` is off.
const LABELS_CEILING: usize = 4096;

/// The rules by which a target's exposed series become stored series.
#[derive(Clone, Debug)]
pub struct SampleRules<'a> {
    /// The target's public labels, and in jobs that protect them the external labels too.
    pub target_labels: &'a Labels,
    /// Whether scraped labels win over target labels.
    pub honor_labels: bool,
    /// `metric_relabel_configs`.
    pub relabel: &'a [Rule],
    /// Which names are legal.
    pub names: NameScheme,
    /// Limits on the labels of one series.
    pub limits: &'a Limits,
}

impl SampleRules<'_> {
    /// The labels under which a series is stored; `None` if relabelling drops it. `empty` names the labels that were
    /// exposed with an empty value: where scraped labels win, they too keep a target label away.
    ///
    /// # Errors
    /// [`Reason::InvalidSample`] where no name is left or a name is not legal, [`Reason::LabelLimit`] where a limit is
    /// exceeded; both fail the whole scrape.
    pub fn stored<'n>(
        &self,
        scraped: Labels,
        empty: impl Iterator<Item = Cow<'n, str>>,
    ) -> Result<Option<Labels>, Failure> {
        let mut labels = self.merged(scraped, empty);
        if !relabel::apply(self.relabel, &mut labels) || labels.is_empty() {
            return Ok(None);
        }
        self.check(&labels)?;
        Ok(Some(labels))
    }

    /// With the target's labels, before relabelling.
    pub(super) fn merged<'n>(&self, scraped: Labels, empty: impl Iterator<Item = Cow<'n, str>>) -> Labels {
        if self.honor_labels { self.completed(scraped, empty) } else { self.overruled(scraped) }
    }

    /// Whether a series may be stored under these labels.
    pub(super) fn check(&self, labels: &Labels) -> Result<(), Failure> {
        self.check_names(labels)?;
        self.check_limits(labels)
    }

    /// Target labels fill in what is not there.
    fn completed<'n>(&self, mut labels: Labels, empty: impl Iterator<Item = Cow<'n, str>>) -> Labels {
        let empty: Vec<_> = empty.collect();
        for (name, value) in self.target_labels.iter_shared() {
            if !labels.contains(name) && !empty.iter().any(|there| **there == **name) {
                labels.set_shared(Arc::clone(name), Arc::clone(value));
            }
        }
        labels
    }

    /// Target labels win; scraped ones of the same name step aside.
    fn overruled(&self, mut labels: Labels) -> Labels {
        let mut conflicting = Vec::new();
        for (name, value) in self.target_labels.iter_shared() {
            if let Some(scraped) = labels.remove(name) {
                conflicting.push((name, scraped));
            }
            labels.set_shared(Arc::clone(name), Arc::clone(value));
        }
        // Shortest name first, so that the outcome does not depend on how often a label has been exported before.
        conflicting.sort_by_key(|(name, _)| name.len());
        for (name, scraped) in conflicting {
            let mut exported = format!("exported_{name}");
            while labels.contains(&exported) {
                exported.insert_str(0, "exported_");
            }
            labels.set_shared(exported.into(), scraped);
        }
        labels
    }

    fn check_names(&self, labels: &Labels) -> Result<(), Failure> {
        let Some(metric) = labels.get("__name__") else {
            return Err(Failure::new(
                Reason::InvalidSample,
                format!("missing metric name (__name__ label) in {labels}"),
            ));
        };
        if self.names == NameScheme::Legacy {
            let bad_label = labels.iter().find(|(name, _)| !is_legacy_label_name(name));
            if !is_legacy_metric_name(metric) || bad_label.is_some() {
                let detail = format!("invalid metric name or label names under the legacy scheme: {labels}");
                return Err(Failure::new(Reason::InvalidSample, detail));
            }
        }
        Ok(())
    }

    fn check_limits(&self, labels: &Labels) -> Result<(), Failure> {
        let metric = clean_to(labels.value("__name__"), SHOWN_BYTES);
        let count_limit = within(self.limits.label_limit).unwrap_or(LABELS_CEILING);
        if labels.len() > count_limit {
            let detail = format!(
                "label_limit exceeded (metric: {metric}, number of labels: {}, limit: {count_limit})",
                labels.len()
            );
            return Err(Failure::new(Reason::LabelLimit, detail));
        }
        let name_limit = within(self.limits.label_name_length_limit);
        let value_limit = within(self.limits.label_value_length_limit);
        for (name, value) in labels.iter() {
            if name_limit.is_some_and(|limit| name.len() > limit) {
                return Err(too_long("label_name_length_limit", &metric, name, name.len(), name_limit));
            }
            if value_limit.is_some_and(|limit| value.len() > limit) {
                return Err(too_long("label_value_length_limit", &metric, name, value.len(), value_limit));
            }
        }
        Ok(())
    }
}

/// A configured limit; 0 means none.
fn within(limit: u64) -> Option<usize> {
    (limit > 0).then(|| usize::try_from(limit).unwrap_or(usize::MAX))
}

fn too_long(key: &str, metric: &str, name: &str, length: usize, limit: Option<usize>) -> Failure {
    let name = clean_to(name, SHOWN_BYTES);
    let limit = limit.unwrap_or_default();
    let detail = format!("{key} exceeded (metric: {metric}, label name: {name}, length: {length}, limit: {limit})");
    Failure::new(Reason::LabelLimit, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().copied().collect()
    }

    fn merge(honor_labels: bool, target: &[(&str, &str)], scraped: &[(&str, &str)]) -> String {
        merge_with_empty(honor_labels, target, scraped, &[])
    }

    fn merge_with_empty(
        honor_labels: bool,
        target: &[(&str, &str)],
        scraped: &[(&str, &str)],
        empty: &[&str],
    ) -> String {
        let target_labels = labels(target);
        let limits = Limits::default();
        let rules = SampleRules {
            target_labels: &target_labels,
            honor_labels,
            relabel: &[],
            names: NameScheme::Utf8,
            limits: &limits,
        };
        let mut scraped = labels(scraped);
        scraped.set("__name__", "m");
        let mut stored =
            rules.stored(scraped, empty.iter().map(|name| Cow::Borrowed(*name))).expect("legal").expect("kept");
        stored.remove("__name__");
        stored.to_string()
    }

    #[test]
    fn scraped_labels_step_aside_until_a_name_is_free() {
        let target = [("instance", "T"), ("job", "J")];
        assert_eq!(
            merge(false, &target, &[("instance", "i"), ("job", "j"), ("exported_instance", "e")]),
            r#"{exported_exported_instance="i", exported_instance="e", exported_job="j", instance="T", job="J"}"#
        );
        assert_eq!(
            merge(false, &[("job", "J")], &[("job", "k"), ("exported_job", "z"), ("exported_exported_job", "q")]),
            r#"{exported_exported_exported_job="k", exported_exported_job="q", exported_job="z", job="J"}"#
        );
    }

    #[test]
    fn honoured_labels_win() {
        assert_eq!(merge(true, &[("job", "J"), ("x", "1")], &[("job", "j")]), r#"{job="j", x="1"}"#);
        let kept_away = merge_with_empty(true, &[("job", "J"), ("x", "1")], &[], &["job"]);
        assert_eq!(kept_away, r#"{x="1"}"#);
    }

    fn refused(limits: Limits, names: NameScheme, scraped: &[(&str, &str)]) -> Failure {
        let target_labels = labels(&[("job", "J")]);
        let rules =
            SampleRules { target_labels: &target_labels, honor_labels: false, relabel: &[], names, limits: &limits };
        rules.stored(labels(scraped), std::iter::empty()).expect_err("refused")
    }

    #[test]
    fn limits_count_the_target_labels_too() {
        let limits = Limits { label_limit: 2, ..Limits::default() };
        let failure = refused(limits, NameScheme::Utf8, &[("__name__", "m"), ("a", "1")]);
        assert_eq!(failure.reason, Reason::LabelLimit);
        assert_eq!(failure.detail, "label_limit exceeded (metric: m, number of labels: 3, limit: 2)");
    }

    #[test]
    fn lengths_of_names_and_values_are_limited() {
        let limits = Limits { label_value_length_limit: 3, ..Limits::default() };
        let failure = refused(limits, NameScheme::Utf8, &[("__name__", "m"), ("a", "four")]);
        assert_eq!(failure.detail, "label_value_length_limit exceeded (metric: m, label name: a, length: 4, limit: 3)");
        let limits = Limits { label_name_length_limit: 8, ..Limits::default() };
        let failure = refused(limits, NameScheme::Utf8, &[("__name__", "m"), ("nine_char", "1")]);
        assert!(failure.detail.starts_with("label_name_length_limit exceeded"), "{failure}");
    }

    #[test]
    fn names_are_checked() {
        let failure = refused(Limits::default(), NameScheme::Legacy, &[("__name__", "a.b")]);
        assert_eq!(failure.reason, Reason::InvalidSample);
        let failure = refused(Limits::default(), NameScheme::Utf8, &[("a", "b")]);
        assert_eq!(failure.detail, r#"missing metric name (__name__ label) in {a="b", job="J"}"#);
    }
}
