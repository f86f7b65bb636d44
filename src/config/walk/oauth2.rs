//! `oauth2` of a job, a discovery or a receiver.

use std::sync::Arc;

use super::fields::Fields;
use super::tables::OAUTH2;
use super::{auth, proxy, tls, urls};
use crate::config::problem::Wrong;
use crate::config::shown::Shown;
use crate::config::{OAuth2, Secret, SecretSource};

/// What the grant itself says.
const OF_THE_GRANT: [&str; 4] = ["grant_type", "scope", "client_id", "client_secret"];

/// Reads it in `fields`; it must not stand beside another way to say who we are.
pub(super) fn read(fields: &mut Fields<'_>) -> Option<Arc<OAuth2>> {
    const KEY: &str = "oauth2";
    const EXAMPLE: &str = "https://host/token";
    let mut inner = fields.section(KEY, &OAUTH2)?;
    if let Some(other) = auth::KINDS.into_iter().find(|key| fields.has(key)) {
        let message = format!("{other} is written as well, and one request has one Authorization");
        fields.wrong(KEY, Wrong::new(message, "remove one of the two"));
    }
    inner.need("client_id", "write client_id, who we are there");
    inner.need("token_url", &format!("write token_url: {EXAMPLE}"));
    let client_id = inner.text("client_id").map(|text| text.value.into_owned());
    if client_id.as_deref() == Some("") {
        inner.wrong("client_id", Wrong::new("this is empty", "write who we are there"));
    }
    let client_secret = match auth::file_or(&mut inner, "client_secret", "client_secret_file") {
        Some(file) => SecretSource::File(file),
        None => SecretSource::Inline(inner.secret("client_secret").unwrap_or_else(|| Secret::new(""))),
    };
    let scopes = inner.texts("scopes").into_iter().map(|scope| scope.value.into_owned()).collect();
    let url = urls::read(&mut inner, "token_url", EXAMPLE, |url| match urls::has_user_info(url) {
        true => Err(Wrong::new("the URL holds a user name or a password", "write client_id and client_secret_file")),
        false => Ok(()),
    });
    if let Some((url, written)) = &url {
        urls::check_credentials(&inner, "token_url", url, written, "this client");
    }
    let endpoint_params = endpoint_params(&mut inner);
    let tls = tls::of_discovery(&mut inner).unwrap_or_default();
    let proxies = proxy::read(&mut inner, Some(&tls));
    fields.show(KEY, inner.close());
    let (token_url, _) = url?;
    Some(Arc::new(OAuth2 { client_id: client_id?, client_secret, scopes, token_url, endpoint_params, tls, proxies }))
}

fn endpoint_params(inner: &mut Fields<'_>) -> Vec<(String, Secret)> {
    const KEY: &str = "endpoint_params";
    let mut params = Vec::new();
    let mut shown = Vec::new();
    for named in inner.names(KEY) {
        let Some(scalar) = inner.walk.scalar(&named.item) else { continue };
        if OF_THE_GRANT.contains(&named.name) {
            let wrong = Wrong::new("the request says this itself", "remove it");
            inner.walk.problem(named.pos, &named.item.path, wrong);
        }
        shown.push((named.name.to_owned(), Shown::Text(inner.walk.hide(&scalar))));
        params.push((named.name.to_owned(), Secret::new(scalar.value)));
    }
    if !shown.is_empty() {
        inner.show(KEY, Shown::Map(shown));
    }
    params
}
