//! `oauth2`: where tokens come from that prove who we are.

use std::fmt;
use std::sync::Arc;

use url::Url;

use super::{OrdinaryTls, Proxies, Secret, SecretSource};

/// Tokens for us as a client (the grant `client_credentials` of RFC 6749, section 4.4).
#[derive(Clone, PartialEq, Eq)]
pub struct OAuth2 {
    /// Who we are there.
    pub client_id: String,
    /// What proves it.
    pub client_secret: SecretSource,
    /// What the token is to allow; may be empty.
    pub scopes: Vec<String>,
    /// Who is asked: `http` or `https`. Its query may hold what is not for showing: see [`OAuth2::shown_url`].
    pub token_url: Url,
    /// What is said besides, none of what the grant itself says.
    pub endpoint_params: Vec<(String, Secret)>,
    /// How the one who is asked is verified, over `https`.
    pub tls: OrdinaryTls,
    /// Through which proxies it is asked.
    pub proxies: Option<Arc<Proxies>>,
}

impl OAuth2 {
    /// The URL for people: without its query.
    pub fn shown_url(&self) -> String {
        let mut url = self.token_url.clone();
        url.set_query(None);
        url.into()
    }
}

impl fmt::Debug for OAuth2 {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { client_id, client_secret, scopes, token_url: _, endpoint_params, tls, proxies } = self;
        out.debug_struct("OAuth2")
            .field("client_id", client_id)
            .field("client_secret", client_secret)
            .field("scopes", scopes)
            .field("token_url", &self.shown_url())
            .field("endpoint_params", endpoint_params)
            .field("tls", tls)
            .field("proxies", proxies)
            .finish()
    }
}
