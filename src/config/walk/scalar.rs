//! One scalar: as it was written, and as it is meant once `${NAME}` is replaced.

use std::borrow::Cow;
use std::fmt;

use crate::config::problem::Wrong;
use crate::yaml::Pos;

/// A text of the file.
#[derive(Clone, Debug)]
pub(super) struct Scalar<'w> {
    pub(super) pos: Pos,
    /// From the top of the file.
    pub(super) key: String,
    /// As it was written, or would be written where variables are replaced: the only form that is ever shown.
    pub(super) raw: Cow<'w, str>,
    /// As it is meant.
    pub(super) value: Cow<'w, str>,
}

impl Scalar<'_> {
    /// Whether an environment variable is part of the value.
    pub(super) fn is_expanded(&self) -> bool {
        matches!(self.value, Cow::Owned(_))
    }

    /// `wrong`, unless it could quote the value of an environment variable.
    pub(super) fn without_value(&self, wrong: Wrong) -> Wrong {
        if self.is_expanded() {
            return Wrong::new(
                format!("the value of {:?} does not fit this key", self.raw),
                "check what the variable holds; its value is not shown",
            );
        }
        wrong
    }
}

/// The raw text in quotes, with everything escaped that could steer a terminal.
impl fmt::Display for Scalar<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:?}", crate::model::clean(&self.raw))
    }
}

/// Replaces `${NAME}` by what `env` says; `$${` stands for `${`, and any other `$` for itself. The result is `Owned`
/// exactly if something was replaced. The problem names the variable.
pub(super) fn expand<'t>(raw: &'t str, env: &dyn Fn(&str) -> Option<String>) -> Result<Cow<'t, str>, Wrong> {
    let mut out = String::new();
    let mut replaced = false;
    let mut rest = raw;
    while let Some(at) = rest.find("${") {
        let (before, from) = rest.split_at(at);
        if let Some(kept) = before.strip_suffix('$') {
            out.push_str(kept);
            out.push_str("${");
            rest = &from["${".len()..];
            replaced = true;
            continue;
        }
        out.push_str(before);
        let Some(end) = from.find('}') else {
            return Err(Wrong::new("\"${\" begins an environment variable, and no \"}\" ends it", INSTEAD));
        };
        let name = &from["${".len()..end];
        if !is_variable(name) {
            // Not quoted: it may be a part of a password.
            let message = "what stands between \"${\" and \"}\" is not the name of an environment variable";
            return Err(Wrong::new(message, INSTEAD));
        }
        match env(name) {
            Some(value) => out.push_str(&value),
            None => {
                return Err(Wrong::new(
                    format!("the environment variable {name} is not set"),
                    format!("set {name}, or write the value itself"),
                ));
            }
        }
        replaced = true;
        rest = &from[end + 1..];
    }
    if !replaced {
        return Ok(Cow::Borrowed(raw));
    }
    out.push_str(rest);
    Ok(Cow::Owned(out))
}

const INSTEAD: &str = "write ${NAME}, or $${ for the two characters themselves";

/// How `text` is written where variables are replaced, so that it comes to `text` again.
pub(super) fn escape(text: &str) -> Cow<'_, str> {
    if text.contains("${") { Cow::Owned(text.replace("${", "$${")) } else { Cow::Borrowed(text) }
}

/// Whether `name` can be that of an environment variable.
pub(super) fn is_variable(name: &str) -> bool {
    crate::model::is_legacy_label_name(name)
}

/// Whether the whole text is one `${NAME}`, which shows nothing about the value.
pub(super) fn is_reference(raw: &str) -> bool {
    raw.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')).is_some_and(is_variable)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str) -> Option<String> {
        (name == "A").then(|| "x: ${B}\n".to_owned())
    }

    #[test]
    fn variables_are_replaced_once() {
        for (raw, expected) in [
            ("plain", "plain"),
            ("${A}", "x: ${B}\n"),
            ("<${A}${A}>", "<x: ${B}\nx: ${B}\n>"),
            ("$A $$ $", "$A $$ $"),
            ("$${A}", "${A}"),
            ("$${", "${"),
            ("a$$${A}", "a$${A}"),
            ("{A}", "{A}"),
        ] {
            assert_eq!(expand(raw, &env).expect(raw), expected, "{raw}");
        }
        assert!(matches!(expand("$A", &env), Ok(Cow::Borrowed("$A"))));
    }

    #[test]
    fn what_is_no_variable_is_refused() {
        for raw in ["${1}", "${}", "${A", "${A B}", "${B}", "x${A}y${", "${A-default}"] {
            assert!(expand(raw, &env).is_err(), "{raw:?} was accepted");
        }
    }

    #[test]
    fn what_is_escaped_comes_to_itself() {
        for text in ["plain", "${A}", "$${A}", "x${", "$", "a$$${A}${A}"] {
            assert_eq!(expand(&escape(text), &env).expect(text), text);
        }
    }

    #[test]
    fn a_reference_is_the_whole_text() {
        assert!(is_reference("${A}"));
        for raw in ["a${A}", "${A}${B}", "${1}", "$A", "${A} "] {
            assert!(!is_reference(raw), "{raw}");
        }
    }
}
