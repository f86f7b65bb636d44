//! A rule in one line, for people: as it would be written in the file, with the keys that were given.

use std::fmt;

use super::{Action, RuleSpec};

/// `{action: keep, source_labels: [a, b], regex: 'x'}`, a flow mapping of YAML. It is as foreign as the file is: whoever
/// shows it cleans it.
impl fmt::Display for RuleSpec {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { source_labels, separator, regex, modulus, target_label, replacement, action } = self;
        let mut keys = Vec::new();
        if *action != Action::Replace {
            keys.push(format!("action: {action}"));
        }
        if !source_labels.is_empty() {
            keys.push(format!("source_labels: [{}]", source_labels.join(", ")));
        }
        for (key, text) in
            [("separator", separator), ("regex", regex), ("target_label", target_label), ("replacement", replacement)]
        {
            if let Some(text) = text {
                keys.push(format!("{key}: '{}'", text.replace('\'', "''")));
            }
        }
        if let Some(modulus) = modulus {
            keys.push(format!("modulus: {modulus}"));
        }
        write!(out, "{{{}}}", keys.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_reads_as_it_is_written() {
        let text = |text: &str| Some(text.to_owned());
        let keep = RuleSpec {
            action: Action::Keep,
            source_labels: vec!["__meta_x".to_owned(), "y".to_owned()],
            regex: text(r"(\d+);it's"),
            ..RuleSpec::default()
        };
        assert_eq!(keep.to_string(), r"{action: keep, source_labels: [__meta_x, y], regex: '(\d+);it''s'}");
        let replace = RuleSpec {
            separator: text(""),
            target_label: text("z"),
            replacement: text("$1"),
            modulus: Some(4),
            ..RuleSpec::default()
        };
        assert_eq!(replace.to_string(), "{separator: '', target_label: 'z', replacement: '$1', modulus: 4}");
    }
}
