//! Regular expressions as Prometheus means them: Go's RE2 syntax, run by the `regex` crate.
//!
//! The two dialects look alike and differ where it hurts: `\w` is ASCII in one and Unicode in the other, `[a&&b]` is a
//! set of characters in one and an intersection in the other. So a pattern is read here by Go's rules, token by token,
//! and written anew with nothing in it that the two crates could read differently. What Go refuses is refused. Three
//! differences remain, and none changes what a pattern matches: more Unicode property names are known here, a
//! repetition right after flags, `a(?i)*`, is refused, and what nested repetitions may come to is bounded by memory instead
//! of by a count.
//!
//! Prometheus anchors by pasting text, `^(?s:` + pattern + `)$`, and some configurations live from the consequences
//! (`a)|(b` compiles and matches a prefix or a suffix). The same is done here.

use std::iter::Peekable;
use std::str::Chars;

use regex::{Captures, Regex, RegexBuilder};

/// The greatest count in a repetition, `{1000}` (RE2).
const MAX_REPEAT: u32 = 1000;
/// How large a compiled pattern may become. Go knows no such limit, but has none of our memory goals either.
const MAX_COMPILED_BYTES: usize = 32 << 20;

/// A compiled pattern, anchored at both ends.
#[derive(Clone, Debug)]
pub struct Pattern {
    regex: Regex,
    /// The names of the groups, by number; group 0 has none.
    names: Vec<Option<Box<str>>>,
}

impl Pattern {
    /// Compiles a text as it stands behind a `regex` key.
    ///
    /// # Errors
    /// What is wrong with it, for a person.
    pub fn new(text: &str) -> Result<Self, String> {
        let anchored = format!("^(?s:{text})$");
        let mut translator = Translator::new(&anchored);
        if let Err(why) = translator.run() {
            // Told of the text as it was written, where that explains it: `[a-` has no range to `)`.
            return Err(Translator::new(text).run().err().unwrap_or(why));
        }
        let Translator { out, names, .. } = translator;
        let regex = RegexBuilder::new(&out).size_limit(MAX_COMPILED_BYTES).build().map_err(|error| explain(&error))?;
        Ok(Self { regex, names })
    }

    /// Whether `text` matches.
    pub fn is_match(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }

    /// The groups of the first match in `text`.
    pub(super) fn captures<'t>(&self, text: &'t str) -> Option<Captures<'t>> {
        self.regex.captures(text)
    }

    /// All matches in `text`: one, except for patterns that escape their anchors.
    pub(super) fn all_captures<'t>(&self, text: &'t str) -> impl Iterator<Item = Captures<'t>> {
        self.regex.captures_iter(text)
    }

    /// The numbers of the groups called `name`, in order; Go allows a name more than once.
    pub(super) fn groups_named(&self, name: &str) -> Vec<usize> {
        let named = self.names.iter().enumerate();
        named.filter(|(_, own)| own.as_deref() == Some(name)).map(|(number, _)| number).collect()
    }

    /// How many groups there are, the whole match among them.
    pub(super) fn groups(&self) -> usize {
        self.names.len()
    }
}

/// The one line of the crate's many that says what is wrong.
fn explain(error: &regex::Error) -> String {
    match error {
        regex::Error::CompiledTooBig(limit) => {
            format!("it would take more than {} MiB of memory; split it into several rules", limit >> 20)
        }
        other => {
            let text = other.to_string();
            let line = text.lines().rev().find_map(|line| line.strip_prefix("error: "));
            line.unwrap_or(text.trim()).to_owned()
        }
    }
}

/// Reads Go's syntax, writes the crate's.
struct Translator<'p> {
    rest: Peekable<Chars<'p>>,
    out: String,
    names: Vec<Option<Box<str>>>,
}

impl<'p> Translator<'p> {
    fn new(pattern: &'p str) -> Self {
        Self { rest: pattern.chars().peekable(), out: String::with_capacity(pattern.len() + 16), names: vec![None] }
    }

    fn run(&mut self) -> Result<(), String> {
        // Perl stacks no repetitions, and neither does Go: `a**` is an error, `a*?` is lazy.
        let mut after_repeat = false;
        while let Some(c) = self.rest.next() {
            let repeat = match c {
                '*' | '+' | '?' => Some(c.to_string()),
                '{' => self.repetition()?,
                _ => None,
            };
            if let Some(repeat) = repeat {
                if after_repeat {
                    return Err(format!("a repetition cannot be repeated: {repeat:?} follows another"));
                }
                self.out.push_str(&repeat);
                if self.rest.next_if_eq(&'?').is_some() {
                    self.out.push('?');
                }
                after_repeat = true;
                continue;
            }
            after_repeat = false;
            match c {
                '\\' => self.escape()?,
                '[' => self.class()?,
                '(' => self.group()?,
                ')' | '|' | '^' | '$' | '.' => self.out.push(c),
                _ => self.literal(c),
            }
        }
        Ok(())
    }

    /// `{n}`, `{n,}`, `{n,m}` after the brace; anything else is no repetition, and the brace a literal.
    fn repetition(&mut self) -> Result<Option<String>, String> {
        let mut ahead = self.rest.clone();
        let Some(min) = count(&mut ahead) else { return Ok(None) };
        let mut text = format!("{{{min}");
        let mut max = Some(min);
        if ahead.next_if_eq(&',').is_some() {
            text.push(',');
            max = None;
            if ahead.peek() != Some(&'}') {
                let Some(bound) = count(&mut ahead) else { return Ok(None) };
                text.push_str(&bound.to_string());
                max = Some(bound);
            }
        }
        if ahead.next() != Some('}') {
            return Ok(None);
        }
        text.push('}');
        if min > MAX_REPEAT || max.is_some_and(|max| max > MAX_REPEAT) {
            return Err(format!("the repetition {text} is over the limit of {MAX_REPEAT}"));
        }
        if max.is_some_and(|max| max < min) {
            return Err(format!("the repetition {text} ends before it begins"));
        }
        self.rest = ahead;
        Ok(Some(text))
    }

    /// What follows a `\` outside a class.
    fn escape(&mut self) -> Result<(), String> {
        match self.rest.peek().copied() {
            Some(c @ ('A' | 'z')) => {
                self.rest.next();
                self.out.push('\\');
                self.out.push(c);
            }
            // Word boundaries of ASCII words only; the crate's own would be Unicode's.
            Some(c @ ('b' | 'B')) => {
                self.rest.next();
                self.out.push_str(if c == 'b' { r"(?-u:\b)" } else { r"(?-u:\B)" });
            }
            Some('C') => return Err(r"\C (any byte) is not supported".to_owned()),
            Some('Q') => {
                self.rest.next();
                self.quoted();
            }
            _ => match self.shared_class()? {
                Some(class) => self.out.push_str(&class),
                None => {
                    let c = self.escaped_char()?;
                    self.literal(c);
                }
            },
        }
        Ok(())
    }

    /// `\Q…\E`: literal text, to the end of the pattern if nothing closes it.
    fn quoted(&mut self) {
        while let Some(c) = self.rest.next() {
            if c == '\\' && self.rest.next_if_eq(&'E').is_some() {
                return;
            }
            self.literal(c);
        }
    }

    /// `\d`, `\pL` and the like after the `\`, which mean the same inside a class and outside.
    fn shared_class(&mut self) -> Result<Option<String>, String> {
        let class = match self.rest.peek() {
            Some('d') => "[0-9]",
            Some('D') => "[^0-9]",
            Some('s') => r"[\t\n\f\r ]",
            Some('S') => r"[^\t\n\f\r ]",
            Some('w') => "[0-9A-Za-z_]",
            Some('W') => "[^0-9A-Za-z_]",
            Some('p' | 'P') => return self.property().map(Some),
            _ => return Ok(None),
        };
        self.rest.next();
        Ok(Some(class.to_owned()))
    }

    /// `\pL`, `\p{Greek}`, `\p{^Greek}`, and each with `\P`.
    fn property(&mut self) -> Result<String, String> {
        let mut negated = self.rest.next() == Some('P');
        let mut name = String::new();
        match self.rest.next() {
            Some('{') => {
                negated ^= self.rest.next_if_eq(&'^').is_some();
                loop {
                    match self.rest.next() {
                        Some('}') => break,
                        Some(c) => name.push(c),
                        None => return Err(r"\p{ is not closed".to_owned()),
                    }
                }
            }
            Some(letter) => name.push(letter),
            None => return Err(r"\p lacks the name of a property".to_owned()),
        }
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return Err(format!("{name:?} is not the name of a Unicode property"));
        }
        Ok(format!("\\{}{{{name}}}", if negated { 'P' } else { 'p' }))
    }

    /// The one character that an escape stands for, after the `\`.
    fn escaped_char(&mut self) -> Result<char, String> {
        let Some(c) = self.rest.next() else { return Err("a \\ ends the pattern".to_owned()) };
        let octal = |c: &char| c.is_digit(8);
        Ok(match c {
            'a' => '\u{7}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\u{b}',
            '1'..='7' if !self.rest.peek().is_some_and(octal) => {
                return Err(format!("\\{c} is a back-reference, which RE2 does not have"));
            }
            '0'..='7' => {
                let mut code = digit(c, 8);
                for _ in 0..2 {
                    let Some(next) = self.rest.next_if(octal) else { break };
                    code = code * 8 + digit(next, 8);
                }
                char::from_u32(code).ok_or("an octal escape is out of range")?
            }
            'x' => self.hexadecimal()?,
            c if c.is_ascii() && !c.is_ascii_alphanumeric() => c,
            c => return Err(format!("\\{c} is not an escape that RE2 knows")),
        })
    }

    /// `\x41` or `\x{10FFFF}`, after the `x`.
    fn hexadecimal(&mut self) -> Result<char, String> {
        let refused = || r"\x needs two hexadecimal digits, or the code of a character in braces".to_owned();
        let mut code: u32 = 0;
        if self.rest.next_if_eq(&'{').is_some() {
            let mut digits = 0;
            while let Some(c) = self.rest.next_if(char::is_ascii_hexdigit) {
                code = code.saturating_mul(16).saturating_add(digit(c, 16));
                digits += 1;
            }
            if digits == 0 || self.rest.next() != Some('}') {
                return Err(refused());
            }
        } else {
            for _ in 0..2 {
                let c = self.rest.next_if(char::is_ascii_hexdigit).ok_or_else(refused)?;
                code = code * 16 + digit(c, 16);
            }
        }
        char::from_u32(code).ok_or_else(|| format!("\\x{{{code:X}}} is not a character"))
    }

    /// What follows a `(`: a capture, a named capture, or flags. All captures are written without their names, because
    /// Go allows names that the crate does not.
    fn group(&mut self) -> Result<(), String> {
        if self.rest.next_if_eq(&'?').is_none() {
            self.names.push(None);
            self.out.push('(');
            return Ok(());
        }
        let mut ahead = self.rest.clone();
        let p = ahead.next_if_eq(&'P').is_some();
        if ahead.next_if_eq(&'<').is_some() {
            if !p && matches!(ahead.peek(), Some('=' | '!')) {
                return Err("look-behind is not supported by RE2".to_owned());
            }
            let mut name = String::new();
            loop {
                match ahead.next() {
                    Some('>') if !name.is_empty() => break,
                    Some(c) if c.is_ascii_alphanumeric() || c == '_' => name.push(c),
                    _ => return Err("the name of a group is one or more of A-Z, a-z, 0-9 and '_', then '>'".to_owned()),
                }
            }
            self.rest = ahead;
            self.names.push(Some(name.into()));
            self.out.push('(');
            return Ok(());
        }
        if matches!(self.rest.peek(), Some('=' | '!')) {
            return Err("look-ahead is not supported by RE2".to_owned());
        }
        self.flags()
    }

    /// `i-s:` or `i-s)` after `(?`. Each flag is written once, as the crate demands.
    fn flags(&mut self) -> Result<(), String> {
        let (mut on, mut off) = (String::new(), String::new());
        let mut negative = false;
        let end = loop {
            match self.rest.next() {
                Some(flag @ ('i' | 'm' | 's' | 'U')) => {
                    let (into, from) = if negative { (&mut off, &mut on) } else { (&mut on, &mut off) };
                    from.retain(|other| other != flag);
                    if !into.contains(flag) {
                        into.push(flag);
                    }
                }
                Some('-') if !negative => negative = true,
                Some(end @ (':' | ')')) if !negative || !off.is_empty() => break end,
                Some(c) => return Err(format!("(?{c} is not known to RE2: the flags are i, m, s and U")),
                None => return Err("a group of flags is not closed".to_owned()),
            }
        };
        if end == ')' && on.is_empty() && off.is_empty() {
            return Ok(());
        }
        self.out.push_str("(?");
        self.out.push_str(&on);
        if !off.is_empty() {
            self.out.push('-');
            self.out.push_str(&off);
        }
        self.out.push(end);
        Ok(())
    }

    /// A character class after its `[`. There are no set operations and no nested classes in Go, only characters.
    fn class(&mut self) -> Result<(), String> {
        self.out.push('[');
        if self.rest.next_if_eq(&'^').is_some() {
            self.out.push('^');
        }
        let mut first = true;
        loop {
            let Some(&c) = self.rest.peek() else { return Err("a character class lacks its ]".to_owned()) };
            if c == ']' && !first {
                self.rest.next();
                self.out.push(']');
                return Ok(());
            }
            first = false;
            if c == '[' && self.named_class()? {
                continue;
            }
            if c == '\\' {
                let before = self.rest.clone();
                self.rest.next();
                if let Some(class) = self.shared_class()? {
                    self.out.push_str(&class);
                    continue;
                }
                self.rest = before;
            }
            self.range()?;
        }
    }

    /// `a` or `a-z` inside a class.
    fn range(&mut self) -> Result<(), String> {
        let low = self.class_char()?;
        let mut ahead = self.rest.clone();
        let dash = ahead.next() == Some('-') && ahead.peek().is_some_and(|&c| c != ']');
        self.class_literal(low);
        if dash {
            self.rest = ahead;
            let high = self.class_char()?;
            if high < low {
                return Err(format!("the range {low:?} to {high:?} of a character class is backwards"));
            }
            self.out.push('-');
            self.class_literal(high);
        }
        Ok(())
    }

    fn class_char(&mut self) -> Result<char, String> {
        match self.rest.next() {
            Some('\\') => self.escaped_char(),
            Some(c) => Ok(c),
            None => Err("a character class lacks its ]".to_owned()),
        }
    }

    /// `[:alpha:]` inside a class; false if what follows is only the character `[`.
    fn named_class(&mut self) -> Result<bool, String> {
        const NAMES: [&str; 14] = [
            "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space", "upper",
            "word", "xdigit",
        ];
        let rest: String = self.rest.clone().collect();
        let Some(inside) = rest.strip_prefix("[:") else { return Ok(false) };
        let Some((name, _)) = inside.split_once(":]") else { return Ok(false) };
        if !NAMES.contains(&name.strip_prefix('^').unwrap_or(name)) {
            return Err(format!("[:{name}:] is not a class that RE2 knows"));
        }
        let whole = format!("[:{name}:]");
        self.out.push_str(&whole);
        for _ in whole.chars() {
            self.rest.next();
        }
        Ok(true)
    }

    /// A character that stands for itself, outside a class.
    fn literal(&mut self, c: char) {
        if regex_syntax::is_meta_character(c) {
            self.out.push('\\');
        }
        self.out.push(c);
    }

    /// A character that stands for itself, inside a class.
    fn class_literal(&mut self, c: char) {
        if c.is_ascii() && !c.is_ascii_alphanumeric() {
            self.out.push_str(&format!("\\x{:02X}", u32::from(c)));
        } else {
            self.out.push(c);
        }
    }
}

/// A decimal count; a leading zero makes it none, as in Go.
fn count(rest: &mut Peekable<Chars<'_>>) -> Option<u32> {
    let first = rest.next_if(char::is_ascii_digit)?;
    if first == '0' && rest.peek().is_some_and(char::is_ascii_digit) {
        return None;
    }
    let mut value = digit(first, 10);
    while let Some(c) = rest.next_if(char::is_ascii_digit) {
        value = value.saturating_mul(10).saturating_add(digit(c, 10));
    }
    Some(value)
}

fn digit(c: char, radix: u32) -> u32 {
    c.to_digit(radix).expect("the caller has checked that it is a digit")
}
