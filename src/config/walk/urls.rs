//! URLs of those whom we ask for targets or send samples to.
//!
//! A URL can hold a password or a token, so no problem quotes one, and one is shown without its user-info and query.

use url::Url;

use super::PLACEHOLDER;
use super::fields::Fields;
use super::scalar::{Scalar, is_reference};
use crate::config::problem::Wrong;
use crate::config::shown::Shown;
use crate::model::clean;

/// Reads the URL behind `key`: `http` or `https`, with a host, without a part behind `#`. `example` is what one looks
/// like; `check` says what else is wrong with it.
pub(super) fn read<'w>(
    fields: &mut Fields<'w>,
    key: &'static str,
    example: &str,
    check: impl FnOnce(&Url) -> Result<(), Wrong>,
) -> Option<(Url, Scalar<'w>)> {
    let scalar = fields.scalar(key)?;
    match parse(&scalar.value, example).and_then(|url| check(&url).map(|()| url)) {
        Ok(url) => {
            fields.show(key, Shown::Text(shown(&scalar.raw, &url)));
            Some((url, scalar))
        }
        // Neither the value of the variable nor what is written around it, which can hold a password.
        Err(_) if scalar.is_expanded() => {
            let message = "with its variables this is not a URL that can be used";
            fields.wrong(key, Wrong::new(message, "check what the variables hold; it must come to https://host/path"));
            None
        }
        Err(wrong) => {
            fields.wrong(key, wrong);
            None
        }
    }
}

fn parse(text: &str, example: &str) -> Result<Url, Wrong> {
    let instead = format!("write {example}");
    let url = Url::parse(text).map_err(|error| match error {
        url::ParseError::RelativeUrlWithoutBase => {
            Wrong::new("this does not begin with https:// or http://", instead.clone())
        }
        other => Wrong::new(format!("this is not a URL: {other}"), instead.clone()),
    })?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(Wrong::new(
            format!("the URL begins with {:?}, not with https:// or http://", clean(&format!("{}:", url.scheme()))),
            instead,
        ));
    }
    if url.fragment().is_some() {
        return Err(Wrong::new("the URL has a part behind #, which is never sent", "remove it"));
    }
    Ok(url)
}

/// Refuses user-info, where there are keys for it.
pub(super) fn without_user_info(url: &Url) -> Result<(), Wrong> {
    if has_user_info(url) {
        return Err(Wrong::new("the URL holds a user name or a password", "write them under basic_auth"));
    }
    Ok(())
}

pub(super) fn has_user_info(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
}

/// The credentials of `who` may go over a connection that nobody verifies only if the file literally says so.
pub(super) fn check_credentials(fields: &Fields<'_>, key: &'static str, url: &Url, scalar: &Scalar<'_>, who: &str) {
    check_plain(fields, key, url, scalar, (who, "write https://, or literally http://, before the variable"));
}

/// As [`check_credentials`], where there is nothing but `http`.
pub(super) fn check_credentials_of_proxy(fields: &Fields<'_>, key: &'static str, url: &Url, scalar: &Scalar<'_>) {
    check_plain(fields, key, url, scalar, ("this proxy", "write http:// literally, before the variable"));
}

fn check_plain(
    fields: &Fields<'_>,
    key: &'static str,
    url: &Url,
    scalar: &Scalar<'_>,
    (who, instead): (&str, &'static str),
) {
    let written = scalar.raw.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("http://"));
    if url.scheme() == "http" && !written {
        let message = format!("the credentials of {who} would go over http, and the file does not say that they may");
        fields.wrong(key, Wrong::new(message, instead));
    }
}

/// The text of the file without user-info and query; mere references stay.
fn shown(raw: &str, url: &Url) -> String {
    let (before, query) =
        raw.split_once('?').map_or((raw, String::new()), |(before, _)| (before, format!("?{PLACEHOLDER}")));
    match before.rsplit_once('@').filter(|_| has_user_info(url)) {
        None => format!("{before}{query}"),
        Some((before, after)) => {
            let (scheme, user_info) = before.split_once("://").unwrap_or(("https", before));
            let hidden = |part| if is_reference(part) { part } else { PLACEHOLDER };
            let user_info = user_info.split(':').map(hidden).collect::<Vec<_>>().join(":");
            format!("{scheme}://{user_info}@{after}{query}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_shown_without_what_can_be_secret() {
        for (raw, value, expected) in [
            ("https://a/b@c", "https://a/b@c", "https://a/b@c"),
            ("https://a/b?token=x", "https://a/b?token=x", "https://a/b?<secret>"),
            ("https://me:pw@a/b?x", "https://me:pw@a/b?x", "https://<secret>:<secret>@a/b?<secret>"),
            ("https://token@a", "https://token@a", "https://<secret>@a"),
            ("https://${U}:${P}@a/", "https://u:p@a/", "https://${U}:${P}@a/"),
            ("https://me:x${P}@a/", "https://me:xp@a/", "https://<secret>:<secret>@a/"),
            ("https:/me:pw@a/b", "https:/me:pw@a/b", "https://<secret>:<secret>:<secret>@a/b"),
            ("${U}", "https://me:pw@a", "${U}"),
        ] {
            let url = Url::parse(value).expect("a URL");
            let shown = shown(raw, &url);
            assert_eq!(shown, expected);
            assert!(!shown.contains("pw"));
        }
    }
}
