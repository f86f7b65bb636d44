//! A selector of label sets, such as `{job="mesh",pod=~"cart-.*"}`, as PromQL writes it.
//!
//! It picks series, or targets, which have no `__name__` for the name in front of the braces to match. What always holds: a
//! label that is not there is the empty text; regular expressions are those of relabelling, anchored at both ends; the
//! empty selector matches everything.

use super::Pattern;
use crate::model::Labels;

/// The matchers, all of which must hold.
#[derive(Clone, Debug)]
pub struct Selector(Vec<Matcher>);

#[derive(Clone, Debug)]
struct Matcher {
    label: String,
    test: Test,
}

#[derive(Clone, Debug)]
enum Test {
    Equal(String),
    NotEqual(String),
    Matches(Pattern),
    MatchesNot(Pattern),
}

impl Selector {
    /// Reads a selector; the empty text selects everything.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut rest = Rest { all: text, at: 0 };
        let mut matchers = Vec::new();
        rest.skip_blanks();
        if rest.is_over() {
            return Ok(Self(matchers));
        }
        let name = rest.word();
        if !name.is_empty() {
            matchers.push(Matcher { label: "__name__".to_owned(), test: Test::Equal(name.to_owned()) });
        }
        if name.is_empty() || !rest.is_over() {
            rest.expect("{")?;
            while !rest.take("}") {
                matchers.push(rest.matcher()?);
                if !rest.take(",") {
                    rest.expect("}")?;
                    break;
                }
            }
        }
        rest.skip_blanks();
        if rest.is_over() { Ok(Self(matchers)) } else { Err(rest.unexpected("the end")) }
    }

    /// Whether the labels satisfy all matchers.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|Matcher { label, test }| {
            let value = labels.value(label);
            match test {
                Test::Equal(other) => value == other,
                Test::NotEqual(other) => value != other,
                Test::Matches(pattern) => pattern.is_match(value),
                Test::MatchesNot(pattern) => !pattern.is_match(value),
            }
        })
    }
}

/// What is left to read.
struct Rest<'t> {
    all: &'t str,
    at: usize,
}

impl<'t> Rest<'t> {
    fn left(&self) -> &'t str {
        &self.all[self.at..]
    }

    fn is_over(&self) -> bool {
        self.left().is_empty()
    }

    fn skip_blanks(&mut self) {
        self.at = self.all.len() - self.left().trim_start().len();
    }

    /// Takes this text if it comes next, blanks before it apart.
    fn take(&mut self, text: &str) -> bool {
        self.skip_blanks();
        let there = self.left().starts_with(text);
        self.at += if there { text.len() } else { 0 };
        there
    }

    fn expect(&mut self, text: &str) -> Result<(), String> {
        if self.take(text) { Ok(()) } else { Err(self.unexpected(&format!("{text:?}"))) }
    }

    fn unexpected(&self, wanted: &str) -> String {
        let column = self.all[..self.at].chars().count() + 1;
        match self.left().chars().next() {
            Some(found) => format!("{wanted} is expected at character {column}, not {found:?}"),
            None => format!("{wanted} is expected at its end"),
        }
    }

    /// A bare name, perhaps none.
    fn word(&mut self) -> &'t str {
        self.skip_blanks();
        let left = self.left();
        let ends = |c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':');
        let word = &left[..left.find(ends).unwrap_or(left.len())];
        self.at += word.len();
        word
    }

    fn matcher(&mut self) -> Result<Matcher, String> {
        let label = match self.word() {
            "" => self.quoted("the name of a label")?,
            word => word.to_owned(),
        };
        let test = match () {
            () if self.take("=~") => Test::Matches(self.pattern()?),
            () if self.take("!~") => Test::MatchesNot(self.pattern()?),
            () if self.take("!=") => Test::NotEqual(self.quoted("a value in quotes")?),
            () if self.take("=") => Test::Equal(self.quoted("a value in quotes")?),
            () => return Err(self.unexpected("one of = != =~ !~")),
        };
        Ok(Matcher { label, test })
    }

    fn pattern(&mut self) -> Result<Pattern, String> {
        let text = self.quoted("a regular expression in quotes")?;
        Pattern::new(&text).map_err(|error| format!("{text:?} is no regular expression: {error}"))
    }

    /// A text in quotes with the escapes of Go, or in backquotes without any.
    fn quoted(&mut self, what: &str) -> Result<String, String> {
        self.skip_blanks();
        let Some(quote) = self.left().chars().next().filter(|c| matches!(c, '"' | '\'' | '`')) else {
            return Err(self.unexpected(what));
        };
        let mut text = String::new();
        let mut chars = self.left().char_indices().skip(1);
        while let Some((at, c)) = chars.next() {
            match c {
                _ if c == quote => {
                    self.at += at + c.len_utf8();
                    return Ok(text);
                }
                '\\' if quote != '`' => match chars.next().map(|(_, c)| c) {
                    Some('n') => text.push('\n'),
                    Some('t') => text.push('\t'),
                    Some('r') => text.push('\r'),
                    Some(c @ ('\\' | '"' | '\'')) => text.push(c),
                    Some(c) => return Err(format!("\\{c} is no escape that is known here")),
                    None => break,
                },
                _ => text.push(c),
            }
        }
        Err(format!("a text in quotes does not end: {}", self.left()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_selected_as_by_promql() {
        let labels: Labels = [("job", "mesh"), ("pod", "cart-1"), ("quote", "a\"b")].into_iter().collect();
        for (text, matches) in [
            ("", true),
            (" {} ", true),
            ("{job=\"mesh\"}", true),
            ("{job='mesh', pod=~`cart-.*`,}", true),
            ("{job!=\"mesh\"}", false),
            ("{pod=~\"cart\"}", false),
            ("{pod!~\"cart\"}", true),
            ("{nothing=\"\"}", true),
            ("{quote=\"a\\\"b\"}", true),
            ("{\"pod\"=\"cart-1\"}", true),
            ("up", false),
            ("up{job=\"mesh\"}", false),
        ] {
            assert_eq!(Selector::parse(text).expect(text).matches(&labels), matches, "{text}");
        }
    }

    #[test]
    fn what_is_no_selector_is_told_with_its_place() {
        for (text, error) in [
            ("{", "the name of a label is expected at its end"),
            ("{job}", "one of = != =~ !~ is expected at character 5, not '}'"),
            ("{job=mesh}", "a value in quotes is expected at character 6, not 'm'"),
            ("{job=\"a\" pod=\"b\"}", "\"}\" is expected at character 10, not 'p'"),
            ("{job=\"a\"} x", "the end is expected at character 11, not 'x'"),
            ("{job=\"a}", "a text in quotes does not end: \"a}"),
            ("{job=\"\\x\"}", "\\x is no escape that is known here"),
        ] {
            assert_eq!(Selector::parse(text).expect_err(text), error);
        }
        assert!(Selector::parse("{job=~\"(\"}").expect_err("a regex").starts_with("\"(\" is no regular expression"));
    }
}
