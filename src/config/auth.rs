//! What is said to the peer about ourselves in HTTP, besides a certificate.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use http::{HeaderName, HeaderValue};

use super::{Secret, SecretError, SecretSource};

/// The `Authorization` header of every request. It is written only after the peer has been verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Auth {
    /// `basic_auth`: `Basic <base64 of username:password>`.
    Basic {
        /// The name; not secret in itself, but it may stand in a file like one.
        username: SecretSource,
        /// The password.
        password: SecretSource,
    },
    /// `authorization` (and its old forms `bearer_token`, `bearer_token_file`): `<kind> <credentials>`.
    Authorization {
        /// The scheme, `Bearer` unless written otherwise; never `Basic`.
        kind: String,
        /// What follows it.
        credentials: SecretSource,
    },
}

/// One value of a header that the file adds to every request (`http_headers`). What is there already stays beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpHeader {
    /// The header; none that we set ourselves, but for `Accept`.
    pub name: HeaderName,
    /// The value.
    pub value: SecretSource,
    /// Whether it is one of `secrets` or `files`.
    pub secret: bool,
}

impl HttpHeader {
    /// The value, its source read anew, marked so that no library shows it. Blocks for the time of reading a small file.
    pub fn read(&self) -> Result<HeaderValue, SecretError> {
        let text = self.value.read()?;
        let mut value = HeaderValue::from_str(text.expose().trim_matches([' ', '\t']))
            .map_err(|_| SecretError::NotAHeader(self.name.clone()))?;
        value.set_sensitive(true);
        Ok(value)
    }
}

impl Auth {
    /// The value of the header, its sources read anew. Blocks for the time of reading a small file.
    pub fn header(&self) -> Result<Secret, SecretError> {
        Ok(Secret::new(match self {
            Auth::Basic { username, password } => {
                let pair = format!("{}:{}", username.read()?.expose(), password.read()?.expose());
                format!("Basic {}", BASE64.encode(pair))
            }
            Auth::Authorization { kind, credentials } => format!("{kind} {}", credentials.read()?.expose()),
        }))
    }
}
