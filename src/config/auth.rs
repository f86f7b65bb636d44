//! What is said to the peer about ourselves in HTTP, besides a certificate.

use super::SecretSource;

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
