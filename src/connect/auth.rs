//! The `Authorization` header, and those that the file adds.
//!
//! Sources in files are read for every scrape, so that rotating a file is enough. Always holds: they are marked
//! sensitive, so that no library prints it, and no error shows any part of a secret.

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};

use crate::config::{Auth, HttpHeader, KnownSecrets, SecretError};
use crate::model::{Failure, Reason};
use crate::token::TokenError;

/// Adds the header that `auth` asks for, and `more`; returns what of it nobody is to see.
pub(super) fn add(headers: &mut HeaderMap, auth: Option<&Auth>, more: &[HttpHeader]) -> Result<KnownSecrets, Failure> {
    let mut secrets = KnownSecrets::default();
    let unreadable = |error: SecretError| Failure::new(Reason::CredentialsUnreadable, error.to_string());
    for header in more {
        let value = header.read().map_err(unreadable)?;
        if header.secret {
            secrets.add_text(&String::from_utf8_lossy(value.as_bytes()));
        }
        headers.append(header.name.clone(), value);
    }
    let Some(auth) = auth else { return Ok(secrets) };
    let text = auth.header().map_err(unreadable)?;
    let mut value = HeaderValue::try_from(text.expose()).map_err(|_| {
        Failure::new(Reason::CredentialsUnreadable, "a secret contains a character that no header may hold")
    })?;
    value.set_sensitive(true);
    headers.insert(AUTHORIZATION, value);
    secrets.add_authorization(text.expose());
    Ok(secrets)
}

/// Adds the header that holds a token, if there is one.
pub(super) fn add_token(
    headers: &mut HeaderMap,
    secrets: &mut KnownSecrets,
    token: Result<HeaderValue, TokenError>,
) -> Result<(), Failure> {
    let value = token.map_err(|error| Failure::new(Reason::CredentialsUnreadable, error.to_string()))?;
    secrets.add_authorization(&String::from_utf8_lossy(value.as_bytes()));
    headers.insert(AUTHORIZATION, value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use http::header::ACCEPT;

    use super::*;
    use crate::config::{Secret, SecretSource};

    fn inline(text: &str) -> SecretSource {
        SecretSource::Inline(Secret::new(text))
    }

    #[test]
    fn the_header_as_the_file_asks_for_it() {
        let basic = Auth::Basic { username: inline("Aladdin"), password: inline("open sesame") };
        let bearer = Auth::Authorization { kind: "Bearer".to_owned(), credentials: inline("t.o-k") };
        for (auth, expected) in [(basic, "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="), (bearer, "Bearer t.o-k")] {
            let mut headers = HeaderMap::new();
            add(&mut headers, Some(&auth), &[]).expect("readable");
            assert_eq!(headers[AUTHORIZATION], expected);
            assert!(headers[AUTHORIZATION].is_sensitive());
        }
    }

    #[test]
    fn what_cannot_be_read_or_sent_is_a_failure_without_the_secret() {
        let missing = SecretSource::File("/nonexistent/token".into());
        for source in [missing, inline("canary\r\nX-Forged: 1")] {
            let auth = Auth::Authorization { kind: "Bearer".to_owned(), credentials: source };
            let failure = add(&mut HeaderMap::new(), Some(&auth), &[]).expect_err("unusable");
            assert_eq!(failure.reason, Reason::CredentialsUnreadable);
            assert!(!failure.detail.contains("canary"), "{failure}");
        }
    }

    #[test]
    fn added_headers_stand_beside_what_is_there() {
        let header = |value| HttpHeader { name: ACCEPT, value, secret: true };
        let mut headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static("text/plain"))]);
        add(&mut headers, None, &[header(inline("a/b")), header(inline("\tc/d "))]).expect("readable");
        assert_eq!(headers.get_all(ACCEPT).iter().collect::<Vec<_>>(), ["text/plain", "a/b", "c/d"]);
        for value in [SecretSource::File("/nonexistent/token".into()), inline("canary\r\nX-Forged: 1")] {
            let failure = add(&mut HeaderMap::new(), None, &[header(value)]).expect_err("unusable");
            assert_eq!(failure.reason, Reason::CredentialsUnreadable);
            assert!(!failure.detail.contains("canary"), "{failure}");
        }
    }
}
