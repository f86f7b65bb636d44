//! Closes the way in through a browser: rebinding a name to loopback, or asking from another page.
//!
//! On loopback the `Host` must be a loopback address, and an `Origin`, where there is one, must be ours. That holds for the
//! API and the page alike, whatever is asked for. On the listener of the mesh there must be no `Origin`.

use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;

use super::api::failed;

/// Refuses what comes from elsewhere.
pub(super) async fn refuse_foreign(request: Request, next: Next) -> Response {
    let headers = request.headers();
    let refused = if !is_loopback(headers.get(header::HOST).and_then(|host| host.to_str().ok())) {
        Some("the Host header does not name a loopback address")
    } else if headers.contains_key(header::ORIGIN) && !same_origin(headers) {
        Some("requests from another origin are refused")
    } else {
        None
    };
    match refused {
        Some(reason) => failed(StatusCode::FORBIDDEN, "forbidden", reason),
        None => next.run(request).await,
    }
}

/// Who is let in by a certificate is no page of another origin; a browser that has one must not act for such a page.
pub(super) async fn refuse_pages(request: Request, next: Next) -> Response {
    match request.headers().contains_key(header::ORIGIN) {
        true => failed(StatusCode::FORBIDDEN, "forbidden", "requests from pages are refused"),
        false => next.run(request).await,
    }
}

fn is_loopback(host: Option<&str>) -> bool {
    let Some(host) = host else { return false };
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn same_origin(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|value: &header::HeaderValue| value.to_str().ok());
    match (text(header::ORIGIN), text(header::HOST)) {
        (Some(origin), Some(host)) => origin.strip_prefix("http://") == Some(host),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_names_are_hosts() {
        for good in ["127.0.0.1:9465", "localhost", "[::1]:9465", "LOCALHOST:1", "127.0.0.7"] {
            assert!(is_loopback(Some(good)), "{good}");
        }
        for bad in ["10.0.0.1:9465", "evil.example:9465", "localhost.evil.example", "127.0.0.1.nip.io", "[::2]", ""] {
            assert!(!is_loopback(Some(bad)), "{bad}");
        }
        assert!(!is_loopback(None));
    }
}
