//! `basic_auth`, `authorization` and its old forms.

use super::fields::Fields;
use super::tables::{AUTHORIZATION, BASIC_AUTH};
use crate::config::problem::Wrong;
use crate::config::shown::Shown;
use crate::config::{Auth, Secret, SecretSource};

/// The ways to say who we are, besides `oauth2`; at most one of all may be written.
pub(super) const KINDS: [&str; 4] = ["basic_auth", "authorization", "bearer_token", "bearer_token_file"];

/// Reads them in `fields`, a job, a discovery or a receiver.
pub(super) fn read(fields: &mut Fields<'_>) -> Option<Auth> {
    let written: Vec<_> = KINDS.into_iter().filter(|key| fields.has(key)).collect();
    if let [first, .., last] = written[..] {
        fields.wrong(
            last,
            Wrong::new(
                format!("{first} is written as well, and one request has one Authorization"),
                "remove one of the two",
            ),
        );
    }
    match *written.first()? {
        "basic_auth" => basic(fields),
        "authorization" => authorization(fields),
        old => bearer_token(fields, old),
    }
}

fn basic(fields: &mut Fields<'_>) -> Option<Auth> {
    let mut inner = fields.section("basic_auth", &BASIC_AUTH)?;
    let username = match file_or(&mut inner, "username", "username_file") {
        Some(file) => SecretSource::File(file),
        // A name is no secret: it may be shown.
        None => SecretSource::Inline(Secret::new(
            inner.text("username").map(|name| name.value.into_owned()).unwrap_or_default(),
        )),
    };
    let password = match file_or(&mut inner, "password", "password_file") {
        Some(file) => SecretSource::File(file),
        None => SecretSource::Inline(inner.secret("password").unwrap_or_else(|| Secret::new(""))),
    };
    if !["username", "username_file", "password", "password_file"].iter().any(|key| inner.has(key)) {
        fields.wrong(
            "basic_auth",
            Wrong::new("there is neither a user name nor a password", "write username and password_file"),
        );
    }
    fields.show("basic_auth", inner.close());
    Some(Auth::Basic { username, password })
}

fn authorization(fields: &mut Fields<'_>) -> Option<Auth> {
    let mut inner = fields.section("authorization", &AUTHORIZATION)?;
    let kind = inner.parsed("type", read_kind);
    if !inner.has("type") {
        inner.show("type", Shown::Text(BEARER.to_owned()));
    }
    let credentials = match file_or(&mut inner, "credentials", "credentials_file") {
        Some(file) => Some(SecretSource::File(file)),
        None => credentials(&mut inner, "credentials"),
    };
    if !inner.has("credentials") && !inner.has("credentials_file") {
        fields.wrong("authorization", Wrong::new("there are no credentials", "write credentials_file, or credentials"));
    }
    fields.show("authorization", inner.close());
    Some(Auth::Authorization { kind: kind.unwrap_or_else(|| BEARER.to_owned()), credentials: credentials? })
}

/// A credential that is written here: not an empty one, which nobody means.
fn credentials(fields: &mut Fields<'_>, key: &'static str) -> Option<SecretSource> {
    let secret = fields.secret(key)?;
    if secret.expose().is_empty() {
        fields.wrong(key, Wrong::new("the credentials are empty", "write them, or a file, or remove the key"));
    }
    Some(SecretSource::Inline(secret))
}

const BEARER: &str = "Bearer";

fn bearer_token(fields: &mut Fields<'_>, key: &'static str) -> Option<Auth> {
    let credentials = match key {
        "bearer_token_file" => SecretSource::File(fields.path(key)?),
        _ => credentials(fields, key)?,
    };
    Some(Auth::Authorization { kind: BEARER.to_owned(), credentials })
}

/// The path behind `file_key`, which must not stand beside `key`.
pub(super) fn file_or(
    fields: &mut Fields<'_>,
    key: &'static str,
    file_key: &'static str,
) -> Option<std::path::PathBuf> {
    if fields.has(key) && fields.has(file_key) {
        fields.wrong(file_key, Wrong::new(format!("{key} is written as well"), "remove one of the two"));
    }
    fields.path(file_key)
}

fn read_kind(text: &str) -> Result<String, Wrong> {
    if text.eq_ignore_ascii_case("basic") {
        return Err(Wrong::new(
            "a user name and a password are not written here",
            "write basic_auth instead of authorization",
        ));
    }
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if text.is_empty() || !text.bytes().all(token) {
        // Not quoted: often the credentials stand here as well.
        let message = "this cannot be the type of an Authorization header, which is one word without the credentials";
        return Err(Wrong::new(message, "write Bearer"));
    }
    Ok(text.to_owned())
}
