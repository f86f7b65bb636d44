//! The rules against the documented table, and the regular expressions against what Go itself makes of them
//! (`tests/fixtures/relabel/go_regexp.json`, written by the Go program beside it).

use std::collections::HashMap;

use proptest::prelude::*;
use serde::Deserialize;

use super::*;

#[derive(Deserialize)]
struct Go {
    inputs: Vec<String>,
    refused: Vec<String>,
    compiles: Vec<String>,
    matches: Vec<Match>,
    expansions: Vec<Expansion>,
    cases: Vec<Mapping>,
}

#[derive(Deserialize)]
struct Match {
    pattern: String,
    input: String,
    groups: Vec<Option<String>>,
}

#[derive(Deserialize)]
struct Expansion {
    pattern: String,
    input: String,
    template: String,
    result: String,
}

#[derive(Deserialize)]
struct Mapping {
    text: String,
    lower: String,
    upper: String,
}

fn go() -> Go {
    let text = include_str!("../../tests/fixtures/relabel/go_regexp.json");
    serde_json::from_str(text).expect("the fixture is what its generator writes")
}

#[test]
fn patterns_match_what_go_matches() {
    let go = go();
    let expected: HashMap<(&str, &str), &Vec<Option<String>>> =
        go.matches.iter().map(|m| ((m.pattern.as_str(), m.input.as_str()), &m.groups)).collect();
    for text in &go.compiles {
        let pattern = Pattern::new(text).unwrap_or_else(|why| panic!("{text:?}: {why}"));
        for input in go.inputs.iter().filter(|input| input.len() <= 100 || text == "a{1000}") {
            let ours: Option<Vec<Option<String>>> = pattern
                .captures(input)
                .map(|captures| captures.iter().map(|group| group.map(|group| group.as_str().to_owned())).collect());
            assert_eq!(ours.as_ref(), expected.get(&(text, input)).copied(), "{text:?} on {input:?}");
            assert_eq!(pattern.is_match(input), ours.is_some(), "{text:?} on {input:?}");
        }
    }
}

#[test]
fn patterns_that_go_refuses_are_refused() {
    for text in &go().refused {
        let error = Pattern::new(text).expect_err(text);
        assert!(!error.is_empty() && !error.contains('\n'), "{text:?}: {error:?}");
    }
}

#[test]
fn refusals_say_what_is_wrong() {
    for (text, part) in [
        ("(?=a)", "look-ahead is not supported"),
        ("(?<!a)", "look-behind is not supported"),
        ("(?x)a", "(?x is not known"),
        (r"\1", "back-reference"),
        ("a{1001}", "over the limit of 1000"),
        ("a**", "cannot be repeated"),
        ("[a", "lacks its ]"),
        ("(a", "unclosed group"),
        (r"\d{1000}\pL{1000}\pL{1000}\pL{1000}(\pL{900}){900}", "32 MiB"),
    ] {
        let error = Pattern::new(text).expect_err(text);
        assert!(error.contains(part), "{text}: {error}");
    }
}

#[test]
fn templates_expand_as_in_go() {
    for Expansion { pattern, input, template, result } in go().expansions {
        let pattern = Pattern::new(&pattern).expect("Go compiled it");
        let captures = pattern.captures(&input).expect("Go matched it");
        let mut ours = String::new();
        Template::new(&template, &pattern).expand(&captures, &mut ours);
        assert_eq!(ours, result, "{template:?}");
    }
}

#[test]
fn letter_case_is_mapped_as_in_go() {
    for Mapping { text, lower, upper } in go().cases {
        assert_eq!(case::lower(&text), lower, "{text:?} in lower case");
        assert_eq!(case::upper(&text), upper, "{text:?} in upper case");
    }
}

/// A rule whose keys are given as `key: value` lines, sources separated by commas.
fn rule(text: &str) -> Result<Rule, RuleError> {
    rule_under(text, NameScheme::Utf8)
}

fn rule_under(text: &str, names: NameScheme) -> Result<Rule, RuleError> {
    let mut spec = RuleSpec::default();
    for pair in text.split(" | ") {
        let (key, value) = pair.split_once(": ").expect("key: value");
        let text = Some(value.to_owned());
        match key {
            "source_labels" => spec.source_labels = value.split(',').map(str::to_owned).collect(),
            "separator" => spec.separator = text,
            "regex" => spec.regex = text,
            "modulus" => spec.modulus = Some(value.parse().expect("a number")),
            "target_label" => spec.target_label = text,
            "replacement" => spec.replacement = text,
            "action" => spec.action = Action::parse(value).expect("an action"),
            _ => panic!("no key {key}"),
        }
    }
    Rule::new(spec, names)
}

const KEPT: bool = true;
const DROPPED: bool = false;

/// Applies rules to `{a="foo", b="bar", c="baz", d="foo-bar"}` and returns what came of it.
fn relabelled(rules: &[&str]) -> (bool, String) {
    let rules: Vec<Rule> = rules.iter().map(|text| rule(text).expect(text)).collect();
    let mut labels: Labels = [("a", "foo"), ("b", "bar"), ("c", "baz"), ("d", "foo-bar")].into_iter().collect();
    let kept = apply(&rules, &mut labels);
    let changed: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    (kept, changed.join(" "))
}

#[test]
fn replace() {
    for (rule, expected) in [
        ("source_labels: a | target_label: x", "a=foo b=bar c=baz d=foo-bar x=foo"),
        ("source_labels: a,b | target_label: x", "a=foo b=bar c=baz d=foo-bar x=foo;bar"),
        ("source_labels: a,nope,b | separator: / | target_label: x", "a=foo b=bar c=baz d=foo-bar x=foo//bar"),
        ("source_labels: a,b | separator:  | target_label: x", "a=foo b=bar c=baz d=foo-bar x=foobar"),
        ("source_labels: a | regex: f | target_label: x", "a=foo b=bar c=baz d=foo-bar"),
        ("source_labels: a | regex: f(.).* | target_label: x", "a=foo b=bar c=baz d=foo-bar x=o"),
        // An empty result removes the label, a missing source counts as empty.
        ("source_labels: nope | target_label: a", "b=bar c=baz d=foo-bar"),
        ("source_labels: a | target_label: a | replacement: ", "b=bar c=baz d=foo-bar"),
        ("source_labels: a | target_label: b | replacement: ${3}", "a=foo c=baz d=foo-bar"),
        // Without sources the value is empty, which the default regex matches.
        ("target_label: x | replacement: const", "a=foo b=bar c=baz d=foo-bar x=const"),
        ("target_label: x | replacement: const | regex: .+", "a=foo b=bar c=baz d=foo-bar"),
        // An explicitly empty regex matches only the empty text.
        ("source_labels: a | regex:  | target_label: x | replacement: y", "a=foo b=bar c=baz d=foo-bar"),
        ("source_labels: nope | regex:  | target_label: x | replacement: y", "a=foo b=bar c=baz d=foo-bar x=y"),
        // The target is a template, too; an invalid name changes nothing.
        (
            "source_labels: d | regex: (.*)-(.*) | target_label: x_${1} | replacement: $2",
            "a=foo b=bar c=baz d=foo-bar x_foo=bar",
        ),
        ("source_labels: d | target_label: ${9} | replacement: v", "a=foo b=bar c=baz d=foo-bar"),
        (
            "source_labels: d | regex: a)|(o-bar | target_label: x | replacement: <$1>",
            "a=foo b=bar c=baz d=foo-bar x=<o-bar>",
        ),
    ] {
        assert_eq!(relabelled(&[rule]), (KEPT, expected.to_owned()), "{rule}");
    }
}

#[test]
fn invalid_names_are_not_set_under_the_legacy_scheme() {
    let rule =
        rule_under("source_labels: d | target_label: x_${1} | replacement: v", NameScheme::Legacy).expect("valid");
    let mut labels: Labels = [("d", "foo-bar")].into_iter().collect();
    assert!(rule.apply(&mut labels));
    assert_eq!(labels.to_string(), r#"{d="foo-bar"}"#);
    labels.set("d", "foo_bar");
    assert!(rule.apply(&mut labels));
    assert_eq!(labels.value("x_foo_bar"), "v");
}

#[test]
fn keep_and_drop() {
    for (rule, kept) in [
        ("action: keep | source_labels: a | regex: foo", KEPT),
        ("action: keep | source_labels: a | regex: fo", DROPPED),
        ("action: keep | source_labels: nope | regex: .+", DROPPED),
        ("action: keep", KEPT),
        ("action: drop | source_labels: a | regex: foo", DROPPED),
        ("action: drop | source_labels: a | regex: oo", KEPT),
        ("action: drop | source_labels: a,b | regex: foo;bar", DROPPED),
        ("action: drop", DROPPED),
        ("action: keepequal | source_labels: a | target_label: a", KEPT),
        ("action: keepequal | source_labels: a | target_label: b", DROPPED),
        ("action: keepequal | source_labels: nope | target_label: none", KEPT),
        ("action: keepequal | target_label: none", KEPT),
        ("action: dropequal | source_labels: a | target_label: a", DROPPED),
        ("action: dropequal | source_labels: a | target_label: b", KEPT),
        ("action: dropequal | source_labels: nope | target_label: none", DROPPED),
    ] {
        assert_eq!(relabelled(&[rule]).0, kept, "{rule}");
    }
}

#[test]
fn nothing_happens_after_the_rule_that_drops() {
    let (kept, labels) =
        relabelled(&["action: drop | source_labels: a | regex: foo", "target_label: x | replacement: y"]);
    assert_eq!((kept, labels.as_str()), (DROPPED, "a=foo b=bar c=baz d=foo-bar"));
}

#[test]
fn names_are_mapped_dropped_and_kept() {
    for (rule, expected) in [
        ("action: labelmap | regex: ([ab]) | replacement: x_$1", "a=foo b=bar c=baz d=foo-bar x_a=foo x_b=bar"),
        // `aa` is made, and not mapped to `aaaa`.
        ("action: labelmap | regex: (a+) | replacement: $1$1", "a=foo aa=foo b=bar c=baz d=foo-bar"),
        ("action: labelmap | regex: [ab] | replacement: both", "a=foo b=bar both=bar c=baz d=foo-bar"),
        ("action: labelmap | regex: a | replacement: b", "a=foo b=foo c=baz d=foo-bar"),
        ("action: labelmap", "a=foo b=bar c=baz d=foo-bar"),
        ("action: labeldrop | regex: [ab]", "c=baz d=foo-bar"),
        ("action: labeldrop", ""),
        ("action: labelkeep | regex: [ab]", "a=foo b=bar"),
    ] {
        assert_eq!(relabelled(&[rule]), (KEPT, expected.to_owned()), "{rule}");
    }
}

#[test]
fn letter_case() {
    assert_eq!(
        relabelled(&[
            "action: uppercase | source_labels: a,b | target_label: a",
            "action: Lowercase | source_labels: a | target_label: b"
        ])
        .1,
        "a=FOO;BAR b=foo;bar c=baz d=foo-bar"
    );
    assert_eq!(relabelled(&["action: uppercase | source_labels: nope | target_label: a"]).1, "b=bar c=baz d=foo-bar");
}

#[test]
fn hashes_are_those_of_prometheus() {
    for (text, whole, of_8, of_1000) in [
        ("a", 3585878926028121697_u64, 1, 697),
        ("", 16825458760271544958, 6, 958),
        ("10.1.2.3:9100", 9751257093823332912, 0, 912),
        ("zürich", 8903939657599886335, 7, 335),
        ("10.0.0.17:8443", 9966836710876992772, 4, 772),
        ("foo;bar", 15973639978189266750, 6, 750),
        (";a", 9992257837689453678, 6, 678),
    ] {
        assert_eq!(hash(text), whole, "{text:?}");
        for (modulus, expected) in [(8, of_8), (1000, of_1000), (u64::MAX, whole)] {
            // Two sources where the text has the default separator in it.
            let (sources, x, y) = match text.split_once(';') {
                Some((x, y)) => ("x,y", x, y),
                None => ("x", text, ""),
            };
            let text = format!("action: hashmod | source_labels: {sources} | modulus: {modulus} | target_label: h");
            let mut labels: Labels = [("x", x), ("y", y)].into_iter().collect();
            assert!(rule(&text).expect("valid").apply(&mut labels));
            assert_eq!(labels.value("h"), expected.to_string(), "{x:?}, {y:?} modulo {modulus}");
        }
    }
}

#[test]
fn rules_that_cannot_be_meant() {
    for (text, key, part) in [
        ("action: hashmod | target_label: x", "modulus", "hashmod needs modulus"),
        ("action: hashmod | target_label: x | modulus: 0", "modulus", "at least 1"),
        ("action: hashmod | modulus: 8", "target_label", "hashmod needs target_label"),
        ("action: replace", "target_label", "replace needs target_label"),
        ("target_label: ", "target_label", "replace needs target_label"),
        ("action: lowercase", "target_label", "lowercase needs target_label"),
        ("action: keepequal", "target_label", "keepequal needs target_label"),
        ("action: dropequal", "target_label", "dropequal needs target_label"),
        ("action: uppercase | target_label: x | replacement: y", "replacement", "uppercase does not use replacement"),
        ("action: keepequal | target_label: x | regex: y", "regex", "only source_labels and target_label"),
        ("action: dropequal | target_label: x | separator: y", "separator", "does not use separator"),
        ("action: dropequal | target_label: x | modulus: 3", "modulus", "does not use modulus"),
        ("action: keepequal | target_label: x | replacement: y", "replacement", "does not use replacement"),
        ("action: labeldrop | source_labels: a", "source_labels", "takes only regex"),
        ("action: labelkeep | target_label: a", "target_label", "takes only regex"),
        ("action: labeldrop | replacement: a", "replacement", "takes only regex"),
        ("action: labelmap | replacement: ", "replacement", "is not a label name"),
        ("action: keep | regex: (", "regex", "unclosed group"),
        ("source_labels: a,,b | target_label: x", "source_labels", "a label name is empty"),
    ] {
        let error = rule(text).expect_err(text);
        assert_eq!(error.key, key, "{text}: {error}");
        assert!(error.message.contains(part), "{text}: {error}");
    }
}

#[test]
fn the_legacy_scheme_checks_templates() {
    for good in ["x", "$1", "x_${1}", "${1}_x9", "$1$2", "_"] {
        rule_under(&format!("target_label: {good}"), NameScheme::Legacy).expect(good);
    }
    for bad in ["9x", "x-y", "ü", "${1", "$", "x:${1}", "${1-}"] {
        let error = rule_under(&format!("target_label: {bad}"), NameScheme::Legacy).expect_err(bad);
        assert_eq!(error.key, "target_label");
        rule(&format!("target_label: {bad}")).expect(bad);
    }
    rule_under("action: lowercase | target_label: $1", NameScheme::Legacy).expect_err("no template there");
}

#[test]
fn keys_that_repeat_the_default_are_allowed() {
    rule("action: keepequal | target_label: x | regex: (.*) | separator: ; | replacement: $1").expect("defaults");
    rule("action: labeldrop | separator: ; | replacement: $1").expect("defaults");
}

#[test]
fn actions_are_read_in_any_case() {
    for action in Action::ALL {
        assert_eq!(Action::parse(action.as_str()), Some(action));
        assert_eq!(Action::parse(&action.as_str().to_uppercase()), Some(action));
    }
    assert_eq!(Action::parse("rename"), None);
}

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-c_]{0,3}", r"[\\a-c(){}\[\]|*+?.^$:<>PQE0-9&~,-]{0,12}", any::<String>()]
}

prop_compose! {
    fn any_spec()(
        source_labels in prop::collection::vec("[a-c]{1,2}", 0..3),
        separator in prop::option::of(any_text()),
        regex in prop::option::of(any_text()),
        modulus in prop::option::of(any::<u64>()),
        target_label in prop::option::of(any_text()),
        replacement in prop::option::of(any_text()),
        action in prop::sample::select(Action::ALL.to_vec()),
    ) -> RuleSpec {
        RuleSpec { source_labels, separator, regex, modulus, target_label, replacement, action }
    }
}

proptest! {
    #[test]
    fn whatever_is_written_labels_stay_labels(
        specs in prop::collection::vec(any_spec(), 1..4),
        pairs in prop::collection::vec(("[a-c]{1,2}", any_text()), 0..6),
    ) {
        let rules: Vec<Rule> = specs.into_iter().filter_map(|spec| Rule::new(spec, NameScheme::Utf8).ok()).collect();
        let mut labels: Labels = pairs.into_iter().collect();
        apply(&rules, &mut labels);
        let names: Vec<&str> = labels.iter().map(|(name, _)| name).collect();
        prop_assert!(names.windows(2).all(|pair| pair[0] < pair[1]), "{labels}");
        prop_assert!(labels.iter().all(|(name, value)| !name.is_empty() && !value.is_empty()), "{labels}");
    }

    #[test]
    fn quoted_text_matches_itself_and_nothing_else(text in any_text(), other in any_text()) {
        prop_assume!(!text.contains(r"\E"));
        let pattern = Pattern::new(&format!(r"\Q{text}\E")).expect("quoted text");
        prop_assert!(pattern.is_match(&text));
        prop_assert_eq!(pattern.is_match(&other), text == other);
    }
}
