//! Relabel rules on label sets: a rule that is taken can be applied to anything, and what comes out is a label set.
//!
//! The input is texts with a zero byte between them: action, source labels with commas, separator, regex, target,
//! replacement, modulus, then `name=value` pairs. `-` stands for a key that is not given.
#![no_main]

use libfuzzer_sys::{Corpus, fuzz_target};
use meshscrape::model::Labels;
use meshscrape::relabel::{Action, NameScheme, Rule, RuleSpec};

fuzz_target!(|data: &[u8]| -> Corpus {
    let Ok(text) = std::str::from_utf8(data) else { return Corpus::Reject };
    let mut texts = text.split('\0');
    let mut next = || texts.next().unwrap_or_default();
    let Some(action) = Action::parse(next()) else { return Corpus::Reject };
    let given = |text: &str| (text != "-").then(|| text.to_owned());
    let spec = RuleSpec {
        action,
        source_labels: next().split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect(),
        separator: given(next()),
        regex: given(next()),
        target_label: given(next()),
        replacement: given(next()),
        modulus: next().parse().ok(),
    };
    let labels: Labels = texts.filter_map(|line| line.split_once('=')).filter(|(name, _)| !name.is_empty()).collect();
    for names in [NameScheme::Legacy, NameScheme::Utf8] {
        match Rule::new(spec.clone(), names) {
            Ok(rule) => apply(&rule, names, &labels),
            Err(refused) => assert!(!refused.message.is_empty() && !refused.key.is_empty()),
        }
    }
    Corpus::Keep
});

fn apply(rule: &Rule, names: NameScheme, labels: &Labels) {
    let (mut once, mut other) = (labels.clone(), labels.clone());
    let kept = rule.apply(&mut once);
    assert_eq!((kept, &once), (rule.apply(&mut other), &other), "a rule does the same each time");
    assert!(once.iter().all(|(name, value)| !name.is_empty() && !value.is_empty()), "{once}");
    assert!(once.iter().map(|(name, _)| name).is_sorted_by(|one, next| one < next), "{once}");
    let changes = !matches!(
        rule.spec().action,
        Action::Keep | Action::Drop | Action::KeepEqual | Action::DropEqual | Action::LabelDrop | Action::LabelKeep
    );
    assert!(changes || once.len() <= labels.len(), "{once}");
    let new = once.iter().filter(|(name, _)| !labels.contains(name));
    // `labelmap` makes names out of names, and Prometheus takes them as they come.
    assert!(rule.spec().action == Action::LabelMap || new.clone().all(|(name, _)| names.allows_label(name)), "{once}");
}
