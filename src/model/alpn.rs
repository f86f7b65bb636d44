//! The application protocols that a target is offered in its TLS greeting.

use std::sync::Arc;

use thiserror::Error;

use super::clean;

/// What an Istio proxy offers for an HTTP/1.1 request, and nothing besides: all of it is true of a scrape.
const ALLOWED: [&str; 3] = ["istio-http/1.1", "istio", "http/1.1"];
const HTTP2: [&str; 2] = ["istio-h2", "h2"];

/// Protocol names in the order in which they are offered; none by default, because a native secure port of Istio is one
/// that no protocol is offered to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Alpn(Arc<[&'static str]>);

/// Why a text is not a list of protocols that a scrape can offer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AlpnError {
    /// The peer would speak HTTP/2.
    #[error("{0} means HTTP/2, and a scrape speaks HTTP/1.1: offer istio-http/1.1")]
    Http2(&'static str),
    /// The peer would wait for what only a proxy sends.
    #[error(
        "istio-peer-exchange promises that metadata comes before the first request, which only a proxy sends: offer istio"
    )]
    PeerExchange,
    /// The same name again.
    #[error("{0} is named twice")]
    Twice(&'static str),
    /// Any other name.
    #[error("{0:?} cannot be offered: a scrape is istio-http/1.1, istio or http/1.1")]
    Unknown(String),
}

impl Alpn {
    /// Parses names with commas between them; the empty text is no protocol at all.
    pub fn parse(text: &str) -> Result<Self, AlpnError> {
        let mut names = Vec::new();
        if text.is_empty() {
            return Ok(Self::default());
        }
        for word in text.split(',').map(str::trim) {
            let of = |list: &[&'static str]| list.iter().copied().find(|name| *name == word);
            if let Some(name) = of(&HTTP2) {
                return Err(AlpnError::Http2(name));
            }
            if word == "istio-peer-exchange" {
                return Err(AlpnError::PeerExchange);
            }
            match of(&ALLOWED) {
                None => return Err(AlpnError::Unknown(clean(word).into_owned())),
                Some(name) if names.contains(&name) => return Err(AlpnError::Twice(name)),
                Some(name) => names.push(name),
            }
        }
        Ok(Self(names.into()))
    }

    /// Whether nothing is offered.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The names in order.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &'static str> {
        self.0.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_true_of_a_scrape_can_be_offered() {
        for (text, names) in [
            ("", &[][..]),
            ("istio-http/1.1", &["istio-http/1.1"]),
            ("istio-http/1.1, istio,http/1.1", &["istio-http/1.1", "istio", "http/1.1"]),
        ] {
            assert!(Alpn::parse(text).expect(text).names().eq(names.iter().copied()), "{text}");
        }
        assert!(Alpn::default().is_empty());
    }

    #[test]
    fn everything_else_is_refused_and_says_why() {
        for (text, words) in [
            ("h2", "h2 means HTTP/2"),
            ("istio-http/1.1,istio-h2", "istio-h2 means HTTP/2"),
            ("istio-peer-exchange", "metadata"),
            ("istio-http/1.0", "cannot be offered"),
            ("ISTIO", "cannot be offered"),
            ("istio,", "\"\" cannot be offered"),
            ("istio,istio", "named twice"),
            ("x\n", "\"x\" cannot be offered"),
            ("a\u{202e}b", "u{202e}"),
        ] {
            let error = Alpn::parse(text).expect_err(text).to_string();
            assert!(error.contains(words), "{text:?}: {error}");
        }
    }
}
