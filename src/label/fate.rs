//! What becomes of one exposed series, and which rule decides it, for a person who asks why a line is not forwarded.
//!
//! [`SampleRules::stored`] is the way of every series and says only whether; this goes the same way a rule at a time. A test
//! holds the two together.

use std::borrow::Cow;

use super::SampleRules;
use crate::config::ScrapeConfig;
use crate::model::{Failure, Labels};

/// What becomes of a series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is stored under these labels.
    Stored(Labels),
    /// It is not, for this reason. A rule in it is as foreign as the file is: whoever shows it cleans it.
    Dropped(String),
}

impl<'a> SampleRules<'a> {
    /// The rules of a job for a target with these labels.
    pub fn of(job: &'a ScrapeConfig, target_labels: &'a Labels) -> Self {
        Self {
            target_labels,
            honor_labels: job.honor_labels,
            relabel: &job.metric_relabel,
            names: job.names,
            limits: &job.limits,
        }
    }

    /// What becomes of a series; the arguments and errors are those of [`SampleRules::stored`].
    ///
    /// # Errors
    /// What would fail the whole scrape.
    pub fn fate<'n>(&self, scraped: Labels, empty: impl Iterator<Item = Cow<'n, str>>) -> Result<Fate, Failure> {
        let mut labels = self.merged(scraped, empty);
        for (at, rule) in self.relabel.iter().enumerate() {
            if !rule.apply(&mut labels) {
                return Ok(Fate::Dropped(format!("metric relabel rule {}: {}", at + 1, rule.spec())));
            }
        }
        if labels.is_empty() {
            return Ok(Fate::Dropped("metric_relabel_configs leave it no label".to_owned()));
        }
        self.check(&labels)?;
        Ok(Fate::Stored(labels))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Limits;
    use crate::relabel::{Action, NameScheme, Rule, RuleSpec};

    fn rule(action: Action, source: &str, regex: &str) -> Rule {
        let source_labels = if source.is_empty() { Vec::new() } else { vec![source.to_owned()] };
        let spec = RuleSpec { action, source_labels, regex: Some(regex.to_owned()), ..RuleSpec::default() };
        Rule::new(spec, NameScheme::Utf8).expect("a rule")
    }

    #[test]
    fn the_rule_that_drops_a_series_is_named_and_agrees_with_what_is_stored() {
        let rules = [
            rule(Action::LabelDrop, "", "pod"),
            rule(Action::Drop, "__name__", "envoy_.*"),
            rule(Action::Keep, "job", "mesh"),
        ];
        let (target, limits) = ([("job", "mesh"), ("pod", "cart-1")].into_iter().collect(), Limits::default());
        let all = |relabel| SampleRules {
            target_labels: &target,
            honor_labels: true,
            relabel,
            names: NameScheme::Utf8,
            limits: &limits,
        };
        let bare = [rule(Action::LabelDrop, "", ".*")];
        for (relabel, scraped, expected) in [
            (&rules[..], [("__name__", "a"), ("x", "1")], Ok(r#"{__name__="a", job="mesh", x="1"}"#)),
            (
                &rules[..],
                [("__name__", "envoy_x"), ("x", "1")],
                Err("metric relabel rule 2: {action: drop, source_labels: [__name__], regex: 'envoy_.*'}"),
            ),
            (
                &rules[..],
                [("__name__", "a"), ("job", "other")],
                Err("metric relabel rule 3: {action: keep, source_labels: [job], regex: 'mesh'}"),
            ),
            (&bare[..], [("__name__", "a"), ("x", "1")], Err("metric_relabel_configs leave it no label")),
        ] {
            let (rules, scraped): (_, Labels) = (all(relabel), scraped.into_iter().collect());
            let fate = rules.fate(scraped.clone(), std::iter::empty()).expect("no failure");
            let stored = rules.stored(scraped, std::iter::empty()).expect("no failure");
            match (fate, expected) {
                (Fate::Stored(labels), Ok(text)) => {
                    assert_eq!(labels.to_string(), text);
                    assert_eq!(stored, Some(labels));
                }
                (Fate::Dropped(why), Err(text)) => {
                    assert_eq!(why, text);
                    assert_eq!(stored, None);
                }
                (fate, expected) => panic!("{fate:?} is not {expected:?}"),
            }
        }
    }
}
