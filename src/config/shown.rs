//! The effective configuration as YAML.
//!
//! While the file is walked, every key that is read leaves here what stands for it: the text as it was written, so
//! that `${NAME}` stays `${NAME}`, or its default. Secrets never arrive here.

use std::fmt::Write;

/// A part of the effective configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    Text(String),
    Seq(Vec<Shown>),
    Map(Vec<(String, Shown)>),
}

impl Shown {
    /// The YAML text, ending in a line feed.
    pub(super) fn to_yaml(&self) -> String {
        let mut out = String::new();
        match self {
            Shown::Map(pairs) if !pairs.is_empty() => write_pairs(&mut out, pairs, 0),
            other => {
                write_value(&mut out, other, 0);
                out.remove(0);
            }
        }
        out
    }
}

/// Writes a value behind `key:` or `-`, with the blank or line feed before it.
fn write_value(out: &mut String, shown: &Shown, indent: usize) {
    match shown {
        Shown::Text(text) => {
            out.push(' ');
            write_scalar(out, text);
            out.push('\n');
        }
        Shown::Seq(items) if items.is_empty() => out.push_str(" []\n"),
        Shown::Map(pairs) if pairs.is_empty() => out.push_str(" {}\n"),
        Shown::Seq(items) => {
            out.push('\n');
            for item in items {
                pad(out, indent);
                out.push('-');
                match item {
                    // The first key stands on the line of the dash.
                    Shown::Map(pairs) if !pairs.is_empty() => {
                        let mut block = String::new();
                        write_pairs(&mut block, pairs, indent + 2);
                        out.push(' ');
                        out.push_str(&block[indent + 2..]);
                    }
                    other => write_value(out, other, indent + 2),
                }
            }
        }
        Shown::Map(pairs) => {
            out.push('\n');
            write_pairs(out, pairs, indent);
        }
    }
}

fn write_pairs(out: &mut String, pairs: &[(String, Shown)], indent: usize) {
    for (key, value) in pairs {
        pad(out, indent);
        write_scalar(out, key);
        out.push(':');
        write_value(out, value, indent + 2);
    }
}

fn pad(out: &mut String, indent: usize) {
    out.extend(std::iter::repeat_n(' ', indent));
}

/// Plain where nothing in the text could be taken for anything else, else in double quotes.
fn write_scalar(out: &mut String, text: &str) {
    let plain = text.starts_with(|c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '_'))
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '/' | '-' | ':' | '@' | '+'))
        && !text.ends_with(':')
        && !text.eq_ignore_ascii_case("null");
    if plain {
        out.push_str(text);
        return;
    }
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            // Besides the controls: line ends of other alphabets, and what a parser may drop as a byte order mark.
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}') => {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::yaml::{self, Node, Value};

    fn text(text: &str) -> Shown {
        Shown::Text(text.to_owned())
    }

    #[test]
    fn the_usual_layout() {
        let map = |pairs: &[(&str, Shown)]| {
            Shown::Map(pairs.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect())
        };
        let shown = map(&[
            ("global", map(&[("scrape_interval", text("1m")), ("external_labels", map(&[]))])),
            ("jobs", Shown::Seq(vec![map(&[("a", text("${X}")), ("b", Shown::Seq(vec![text("x"), text("")]))])])),
            ("none", Shown::Seq(vec![])),
        ]);
        assert_eq!(
            shown.to_yaml(),
            "global:\n  scrape_interval: 1m\n  external_labels: {}\njobs:\n  - a: \"${X}\"\n    b:\n      - x\n      - \"\"\nnone: []\n"
        );
        assert_eq!(map(&[]).to_yaml(), "{}\n");
    }

    fn read_back(node: &Node) -> Shown {
        match &node.value {
            Value::Null => panic!("nothing printed is null"),
            Value::Scalar { text, .. } => Shown::Text(text.clone()),
            Value::Sequence(items) => Shown::Seq(items.iter().map(read_back).collect()),
            Value::Mapping(pairs) => Shown::Map(
                pairs
                    .iter()
                    .map(|(key, value)| {
                        let Shown::Text(key) = read_back(key) else { panic!("keys are texts") };
                        (key, read_back(value))
                    })
                    .collect(),
            ),
        }
    }

    fn any_shown() -> impl Strategy<Value = Shown> {
        let word = prop_oneof![any::<String>(), "[ -~\\n\\t]{0,12}", "[nulNUL~y:<&*!%@`'\"#?|>{}\\[\\],.=-]{0,6}"];
        word.prop_map(Shown::Text).prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Shown::Seq),
                prop::collection::vec(("[a-z<&*\" :]{0,6}", inner), 0..4).prop_map(Shown::Map),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back(shown in any_shown()) {
            let yaml = shown.to_yaml();
            let node = yaml::parse(&yaml).expect(&yaml).expect("not empty");
            prop_assert_eq!(read_back(&node), shown);
        }
    }
}
