//! The threat model names the tests that hold its rules: each of them is there.

use std::path::Path;

use super::pages::root;

/// Every word in backquotes in the last column of the tables is a test function of this crate, or a bad configuration.
#[test]
fn every_rule_of_the_threat_model_is_held_by_tests_that_are_there() {
    let mut source = String::new();
    for dir in ["src", "tests/it"] {
        gather(&root().join(dir), &mut source);
    }
    let page = std::fs::read_to_string(root().join("docs/threat-model.md")).expect("the page");
    let rows = page
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| it tries") && !line.starts_with("| -"));
    let mut missing = Vec::new();
    let mut count = 0;
    for row in rows {
        let held = row.trim_end_matches([' ', '|']).rsplit(" | ").next().expect("a last column");
        let names: Vec<&str> = held.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "nothing holds {row}");
        for name in names {
            count += 1;
            let there = if name.ends_with(".bad.yaml") {
                root().join("tests/fixtures/config").join(name).exists()
            } else {
                source.contains(&format!("fn {name}("))
            };
            if !there {
                missing.push(name);
            }
        }
    }
    let last = "with_a_verifier_that_says_yes_every_refusal_fails";
    assert!(page.contains(last) && source.contains(&format!("fn {last}(")));
    assert!(missing.is_empty(), "no such tests: {missing:#?}");
    assert!(count > 50, "{count} tests are all that were found");
}

fn gather(dir: &Path, source: &mut String) {
    for entry in std::fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            gather(&path, source);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            source.push_str(&std::fs::read_to_string(&path).expect("a source file"));
        }
    }
}
