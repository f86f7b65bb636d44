//! Taking secrets out of what others say.
//!
//! Targets, receivers and token endpoints may repeat what they were sent, and what they say is shown. What always holds: of
//! a secret that is known here no run of eight characters is left, however the text was cut or wrapped, and one that is shorter
//! is not left as a whole. Very short texts are no secrets: taking them out would leave nothing to read.

use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::Secret;
use super::secret::PLACEHOLDER;

/// The shortest text that is taken out.
const LEAST: usize = 4;
/// So many bytes of a secret in a row are taken out though the rest of it is missing.
const RUN: usize = 8;

/// Secrets that are known, as they are and as they are sent.
#[derive(Clone, Default)]
pub struct KnownSecrets {
    /// Those that are shorter than a run.
    short: Vec<String>,
    /// All runs of the others.
    runs: HashSet<[u8; RUN]>,
}

impl KnownSecrets {
    /// Adds one.
    pub fn add(&mut self, secret: &Secret) {
        self.add_text(secret.expose());
    }

    /// Adds a text that may be one.
    pub fn add_text(&mut self, text: &str) {
        self.runs.extend(text.as_bytes().array_windows::<RUN>());
        if (LEAST..RUN).contains(&text.len()) {
            self.short.push(text.to_owned());
            self.short.sort_by_key(|known| std::cmp::Reverse(known.len()));
        }
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

    /// The text without them.
    pub fn hide(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((from, until)) = self.next_runs(rest) {
            out.push_str(&self.without_short(&rest[..from]));
            out.push_str(PLACEHOLDER);
            rest = &rest[until..];
        }
        out.push_str(&self.without_short(rest));
        out
    }

    /// Where the first bytes stand that are runs of secrets, one after the other.
    fn next_runs(&self, text: &str) -> Option<(usize, usize)> {
        if self.runs.is_empty() {
            return None;
        }
        let known: Vec<bool> = text.as_bytes().array_windows::<RUN>().map(|run| self.runs.contains(run)).collect();
        let first = known.iter().position(|known| *known)?;
        let many = known[first..].iter().take_while(|known| **known).count();
        // Whole characters, if a run begins or ends inside one.
        Some((text.floor_char_boundary(first), text.ceil_char_boundary(first + many - 1 + RUN)))
    }

    fn without_short(&self, text: &str) -> String {
        self.short.iter().fold(text.to_owned(), |text, secret| text.replace(secret.as_str(), PLACEHOLDER))
    }
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
            ("canary-in-the-minecanary-in-the-mine", "<secret><secret>"),
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
