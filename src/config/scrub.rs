//! Taking secrets out of what others say.
//!
//! Targets, receivers and token endpoints may repeat what they were sent, and what they say is shown. What always holds: of
//! a secret that is known here no run of eight characters is left, however the text was cut or wrapped, and one that is shorter
//! is not left as a whole. Very short texts are no secrets: taking them out would leave nothing to read.

use std::cmp::Reverse;
use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use foldhash::quality::RandomState;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use url::Url;

use super::Secret;
use super::secret::PLACEHOLDER;

/// The shortest text that is taken out.
const LEAST: usize = 4;
/// So many bytes of a secret in a row are taken out though the rest of it is missing.
const RUN: usize = 8;

/// Secrets that are known, as they are and as they are sent.
#[derive(Clone, Default)]
pub struct KnownSecrets(Vec<Secret>);

impl KnownSecrets {
    /// Adds one.
    pub fn add(&mut self, secret: &Secret) {
        self.add_text(secret.expose());
    }

    /// Adds a text that may be one.
    pub fn add_text(&mut self, text: &str) {
        if text.len() >= LEAST {
            self.0.push(Secret::new(text));
        }
    }

    /// Adds the query of a URL, as a whole and each value in it.
    pub fn add_query(&mut self, url: &Url) {
        self.add_text(url.query().unwrap_or_default());
        url.query_pairs().for_each(|(_, value)| self.add_text(&value));
    }

    /// Adds what the value of an `Authorization` header holds; what `Basic` makes of a password is as good as the password.
    pub fn add_authorization(&mut self, value: &str) {
        let (kind, credentials) = value.split_once(' ').unwrap_or(("", value));
        self.add_text(credentials);
        if kind.eq_ignore_ascii_case("basic")
            && let Some(pair) = BASE64.decode(credentials).ok().and_then(|pair| String::from_utf8(pair).ok())
        {
            self.add_text(pair.split_once(':').map_or(&*pair, |(_, password)| password));
        }
    }

    /// The text without them, also where they stand as they do in quotes or in a URL. Takes time in proportion to its length,
    /// whatever it is.
    pub fn hide(&self, text: &str) -> String {
        let spellings: Vec<String> = self.0.iter().flat_map(|secret| spellings(secret.expose())).collect();
        let long = spellings.iter().filter(|secret| secret.len() >= RUN);
        let runs: HashSet<&[u8; RUN], RandomState> = long.flat_map(|text| text.as_bytes().array_windows()).collect();
        let mut short: Vec<&str> = spellings.iter().map(String::as_str).filter(|secret| secret.len() < RUN).collect();
        short.sort_by_key(|secret| Reverse(secret.len()));
        let without_short =
            |part: &str| short.iter().fold(part.to_owned(), |part, secret| part.replace(secret, PLACEHOLDER));

        let (mut out, mut done) = (String::with_capacity(text.len()), 0);
        // Where the bytes end that are runs of secrets, one beside or over the other.
        let mut hidden: Option<(usize, usize)> = None;
        for (at, run) in text.as_bytes().array_windows::<RUN>().enumerate() {
            match &mut hidden {
                _ if !runs.contains(run) => {}
                Some((_, until)) if at <= *until => *until = at + RUN,
                _ => {
                    done = push_without(&mut out, text, done, hidden, without_short);
                    hidden = Some((at, at + RUN));
                }
            }
        }
        done = push_without(&mut out, text, done, hidden, without_short);
        out.push_str(&without_short(&text[done..]));
        out
    }
}

/// Appends what stands before a hidden part and what stands in its place; gives where the text goes on.
fn push_without(
    out: &mut String,
    text: &str,
    done: usize,
    hidden: Option<(usize, usize)>,
    without_short: impl Fn(&str) -> String,
) -> usize {
    let Some((from, until)) = hidden else { return done };
    // Whole characters, if a run begins or ends inside one.
    let (from, until) = (text.floor_char_boundary(from).max(done), text.ceil_char_boundary(until));
    out.push_str(&without_short(&text[done..from]));
    out.push_str(PLACEHOLDER);
    until
}

/// A secret as it is, as it stands in quotes, and as it stands in the path of a URL.
fn spellings(secret: &str) -> Vec<String> {
    const IN_A_PATH: &AsciiSet =
        &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'<').add(b'>').add(b'?').add(b'`').add(b'{').add(b'}');
    let quoted = secret.escape_debug().to_string();
    let mut spellings = vec![secret.to_owned(), quoted, utf8_percent_encode(secret, IN_A_PATH).to_string()];
    spellings.dedup();
    spellings
}

impl std::fmt::Debug for KnownSecrets {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(PLACEHOLDER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(texts: &[&str]) -> KnownSecrets {
        let mut known = KnownSecrets::default();
        texts.iter().for_each(|text| known.add_text(text));
        known
    }

    #[test]
    fn secrets_are_taken_out_whole_and_in_pieces() {
        let known = known(&["canary-in-the-mine", "abcde", "abc", "geheimnisträger"]);
        for (text, expected) in [
            ("nothing", "nothing"),
            ("a canary-in-the-mine!", "a <secret>!"),
            ("canary-in-the-minecanary-in-the-mine", "<secret>"),
            ("cut: canary-in…", "cut: <secret>…"),
            ("cut: …the-mine", "cut: …<secret>"),
            ("%20canary-i%20the-mine", "%20<secret>%20<secret>"),
            ("canary", "canary"),
            ("xabcdex abcd", "x<secret>x abcd"),
            ("abc", "abc"),
            ("geheimnisträg", "<secret>"),
            ("imnisträ", "<secret>"),
        ] {
            assert_eq!(known.hide(text), expected, "{text}");
        }
        assert_eq!(format!("{known:?}"), "<secret>");
    }

    #[test]
    fn secrets_with_marks_are_hidden_as_they_are_written() {
        let secret = "ab\"cd\\ef\"gh i@jk";
        let known = known(&[secret]);
        for text in [secret.to_owned(), format!("{secret:?}"), "/ab%22cd\\ef%22gh%20i@jk/".to_owned()] {
            let told = known.hide(&text);
            assert!(told.contains("<secret>") && !told.contains("cd") && !told.contains("jk"), "{told}");
        }
    }

    /// Whoever knows the secret can make a text of nothing but its beginnings. If each of them cost the whole text, this would
    /// not end.
    #[test]
    fn a_text_of_pieces_costs_no_more_than_any_other() {
        let known = known(&["canary-in-the-mine"]);
        let told = known.hide(&"canary-i ".repeat(1 << 17));
        assert_eq!(told.matches("<secret> ").count(), 1 << 17);
    }

    #[test]
    fn a_query_is_hidden_as_a_whole_and_value_by_value() {
        let mut known = KnownSecrets::default();
        known.add_query(&Url::parse("https://a.example/?token=can%20ary&n=1").expect("a URL"));
        for text in ["token=can%20ary&n=1", "can ary", "can%20ary"] {
            assert_eq!(known.hide(text), "<secret>", "{text}");
        }
        assert_eq!(known.hide("token, n, 1"), "token, n, 1");
    }

    #[test]
    fn a_password_is_hidden_as_it_is_and_as_it_is_sent() {
        let mut known = KnownSecrets::default();
        known.add_authorization("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        known.add_authorization("Bearer a-token-of-mine");
        assert_eq!(
            known.hide("open sesame, QWxhZGRpbjpvcGVuIHNlc2FtZQ==, a-token-of-mine"),
            "<secret>, <secret>, <secret>"
        );
        assert_eq!(known.hide("Aladdin, Basic, Bearer"), "Aladdin, Basic, Bearer");
    }
}
