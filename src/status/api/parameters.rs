//! The parameters of a request, read as Prometheus reads them: of a name the first value counts, one that is missing is as good
//! as an empty one, and nobody minds the others.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use url::form_urlencoded;

/// What stands behind the question mark.
pub(super) struct Parameters(Vec<(String, String)>);

impl Parameters {
    fn read(query: &str) -> Self {
        Self(form_urlencoded::parse(query.as_bytes()).into_owned().collect())
    }

    /// The value of a name; empty if there is none.
    pub(super) fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }
}

impl<S: Sync> FromRequestParts<S> for Parameters {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::read(parts.uri.query().unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_value_of_a_name_counts() {
        let parameters = Parameters::read("state=active&state=dropped&scrapePool=&other=1&limit=%20x&=;&%ff");
        assert_eq!(parameters.get("state"), "active");
        assert_eq!(parameters.get("limit"), " x");
        assert_eq!((parameters.get("scrapePool"), parameters.get("none")), ("", ""));
        assert_eq!(Parameters::read("").get(""), "");
    }
}
