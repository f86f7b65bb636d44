//! The selectors of Kubernetes and the names of its objects, as far as a file can be wrong about them.
//!
//! A selector is handed to the API server as it is written; here it is only read as the API server would read it, so that
//! a mistake is found with the file and not by a list that fails at night. Which fields there are is the server's business;
//! that their names have no blanks is not.

use super::problem::Wrong;
use crate::model::clean;

/// The longest name of a label, and the longest value.
const MAX_NAME: usize = 63;

/// The longest name of an object.
const MAX_SUBDOMAIN: usize = 253;

/// Whether `text` is a selector of labels: `a=b,c!=d,e in (x,y),f notin (z),g,!h`.
pub(super) fn check_labels(text: &str) -> Result<(), Wrong> {
    labels(text).map_err(|why| {
        let message = format!("{:?} is not a label selector: {why}", clean(text));
        Wrong::new(message, "write such as app=web,tier in (front,back),track!=beta,!legacy")
    })
}

/// Whether `text` is a selector of fields: `spec.nodeName=a,status.phase!=Failed`, with `\` before a `,`, `=` or `\`
/// of a value.
pub(super) fn check_fields(text: &str) -> Result<(), Wrong> {
    fields(text).map_err(|why| {
        let message = format!("{:?} is not a field selector: {why}", clean(text));
        Wrong::new(message, "write such as spec.nodeName=node-1,status.phase!=Failed")
    })
}

/// Whether `text` can be the name of a namespace.
pub(super) fn is_namespace(text: &str) -> bool {
    text.len() <= MAX_NAME && is_part(text)
}

/// Whether `text` can be the name of a node.
pub(super) fn is_node(text: &str) -> bool {
    text.len() <= MAX_SUBDOMAIN && text.split('.').all(is_part)
}

/// Lower case letters, digits, and dashes between them.
fn is_part(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty() && text.bytes().all(allowed) && !text.starts_with('-') && !text.ends_with('-')
}

/// What the text of a selector of labels consists of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Token<'t> {
    Word(&'t str),
    Symbol(&'static str),
    End,
}

impl Token<'_> {
    fn shown(self) -> String {
        match self {
            Token::Word(text) | Token::Symbol(text) => format!("{:?} stands", clean(text)),
            Token::End => "it ends".to_owned(),
        }
    }
}

/// The symbols; of two that begin alike the longer one is first.
const SYMBOLS: [&str; 9] = ["==", "=", "!=", "!", "(", ")", ",", ">", "<"];

struct Tokens<'t>(&'t str);

impl<'t> Tokens<'t> {
    fn next(&mut self) -> Token<'t> {
        let text = self.0.trim_start_matches([' ', '\t', '\r', '\n']);
        if let Some(symbol) = SYMBOLS.into_iter().find(|symbol| text.starts_with(symbol)) {
            self.0 = &text[symbol.len()..];
            return Token::Symbol(symbol);
        }
        let end = text.find([' ', '\t', '\r', '\n', '=', '!', '(', ')', ',', '>', '<']).unwrap_or(text.len());
        let (word, rest) = text.split_at(end);
        self.0 = rest;
        if word.is_empty() { Token::End } else { Token::Word(word) }
    }

    fn peek(&self) -> Token<'t> {
        Tokens(self.0).next()
    }
}

fn labels(text: &str) -> Result<(), String> {
    let mut tokens = Tokens(text);
    if tokens.peek() == Token::End {
        return Ok(());
    }
    loop {
        requirement(&mut tokens)?;
        match tokens.next() {
            Token::End => return Ok(()),
            Token::Symbol(",") => {}
            other => return Err(format!("{} where a comma or its end is expected", other.shown())),
        }
    }
}

fn requirement(tokens: &mut Tokens<'_>) -> Result<(), String> {
    let mut first = tokens.next();
    let absent = first == Token::Symbol("!");
    if absent {
        first = tokens.next();
    }
    let Token::Word(key) = first else { return Err(format!("{} where a label is expected", first.shown())) };
    if !is_label_key(key) {
        return Err(format!("{:?} cannot be the name of a label", clean(key)));
    }
    if absent || matches!(tokens.peek(), Token::Symbol(",") | Token::End) {
        return Ok(());
    }
    match tokens.next() {
        Token::Symbol("=" | "==" | "!=") => value(tokens).map(drop),
        Token::Symbol(">" | "<") => match value(tokens)?.parse::<i64>() {
            Ok(_) => Ok(()),
            Err(_) => Err("a whole number is expected behind > and <".to_owned()),
        },
        Token::Word("in" | "notin") => values(tokens),
        other => Err(format!("{} where one of =, !=, in, notin, > and < is expected", other.shown())),
    }
}

/// One value, or none, which is the empty one.
fn value<'t>(tokens: &mut Tokens<'t>) -> Result<&'t str, String> {
    match tokens.peek() {
        Token::Symbol("," | ")") | Token::End => Ok(""),
        Token::Word(value) => {
            tokens.next();
            if is_label_value(value) { Ok(value) } else { Err(format!("{:?} cannot be a label's value", clean(value))) }
        }
        other => Err(format!("{} where a value is expected", other.shown())),
    }
}

fn values(tokens: &mut Tokens<'_>) -> Result<(), String> {
    match tokens.next() {
        Token::Symbol("(") => {}
        other => return Err(format!("{} where ( is expected", other.shown())),
    }
    loop {
        value(tokens)?;
        match tokens.next() {
            Token::Symbol(",") => {}
            Token::Symbol(")") => return Ok(()),
            other => return Err(format!("{} where a comma or ) is expected", other.shown())),
        }
    }
}

/// `name`, or `prefix/name` with a domain for the prefix.
fn is_label_key(text: &str) -> bool {
    let (prefix, name) = text.split_once('/').map_or((None, text), |(prefix, name)| (Some(prefix), name));
    prefix.is_none_or(is_node) && !name.is_empty() && is_label_value(name)
}

/// Letters and digits, between them also `-`, `_` and `.`; or nothing.
fn is_label_value(text: &str) -> bool {
    let inside = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    text.len() <= MAX_NAME
        && text.bytes().all(inside)
        && [text.bytes().next(), text.bytes().last()].into_iter().flatten().all(|byte| byte.is_ascii_alphanumeric())
}

fn fields(text: &str) -> Result<(), String> {
    for term in terms(text).into_iter().filter(|term| !term.is_empty()) {
        let Some((name, value)) = split_term(term) else {
            return Err(format!("{:?} has neither = nor !=", clean(term)));
        };
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)) {
            return Err(format!("{:?} cannot be the name of a field", clean(name)));
        }
        check_field_value(value)?;
    }
    Ok(())
}

/// The parts between commas that no `\` stands before.
fn terms(text: &str) -> Vec<&str> {
    let mut terms = Vec::new();
    let mut start = 0;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                terms.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    terms
}

fn split_term(term: &str) -> Option<(&str, &str)> {
    let at = term.find('=')?;
    let name = &term[..at];
    let value = &term[at + 1..];
    Some((name.strip_suffix('!').unwrap_or(name), value.strip_prefix('=').unwrap_or(value)))
}

fn check_field_value(value: &str) -> Result<(), String> {
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' if !matches!(chars.next(), Some('\\' | ',' | '=')) => {
                return Err("a \\ stands before something else than a comma, = or \\".to_owned());
            }
            '=' => return Err("a = of a value has no \\ before it".to_owned()),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_of_labels_that_kubernetes_reads() {
        for good in [
            "",
            " ",
            "a",
            "!a",
            "! a , b",
            "a=b",
            "a==b",
            "a != b",
            "a=",
            "a=,b",
            "a in ()",
            "a in (b)",
            "a in (b, c,)",
            "a in (,b)",
            "a notin (b,,c)",
            "a>1,b<2",
            "in in (in)",
            "notin",
            "example.com/App_1.x=Y-1.z",
            "app.kubernetes.io/name=web,tier in (front,back),track!=beta,!legacy",
        ] {
            assert_eq!(check_labels(good), Ok(()), "{good}");
        }
    }

    #[test]
    fn what_is_no_selector_of_labels() {
        let long = "x".repeat(64);
        for bad in [
            "a=b,",
            ",a",
            "=b",
            "a b",
            "a=b c",
            "a=b=c",
            "a=!b",
            "!a=b",
            "!!a",
            "!",
            "a in b",
            "a in (b",
            "a in (b c)",
            "a in (b))",
            "a>b",
            "a<",
            "a > 1.5",
            "a > -1",
            "-a",
            "a-",
            "a=-b",
            "a=b/c",
            "/a",
            "b/",
            "B.com/a",
            "a/b/c",
            "ä",
            "a=ä",
            "a^b",
            long.as_str(),
        ] {
            assert!(check_labels(bad).is_err(), "{bad:?} was accepted");
        }
        assert!(check_labels(&format!("a={long}")).is_err());
    }

    #[test]
    fn selectors_of_fields_that_kubernetes_reads() {
        for good in [
            "",
            "spec.nodeName=a",
            "spec.nodeName==a",
            "status.phase!=Failed,spec.nodeName=",
            "metadata.name=a\\,b\\=c\\\\",
            ",a=b,",
            "a=b!c",
        ] {
            assert_eq!(check_fields(good), Ok(()), "{good}");
        }
        for bad in ["a", "=b", "!=b", "a=b=c", "a=b\\c", "a=b\\", "a b=c", "a in (b)", "a===b", "a =b", "a=b,c"] {
            assert!(check_fields(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn names_of_namespaces_and_nodes() {
        for (name, namespace, node) in [
            ("shop", true, true),
            ("0-a", true, true),
            ("a.b", false, true),
            ("ip-10-0-0-1.ec2.internal", false, true),
            ("", false, false),
            ("-a", false, false),
            ("a-", false, false),
            ("a..b", false, false),
            ("a,b", false, false),
            ("a=b", false, false),
            ("../a", false, false),
            ("A", false, false),
        ] {
            assert_eq!((is_namespace(name), is_node(name)), (namespace, node), "{name:?}");
        }
        assert!(!is_namespace(&"a".repeat(64)) && is_node(&"a".repeat(253)) && !is_node(&"a".repeat(254)));
    }
}
