//! `POST /-/reload`, and `PUT` as Prometheus has it: reads the configuration again, where the command line allows it.
//!
//! The header `X-Meshscrape: reload` is required for the reason that [`live`](super::live) gives. The answer is text: a
//! sentence where the configuration is in force, else what is wrong with it, and then the last good one stays.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};

use super::{HEADER, Sources};

pub(super) async fn reload(State(sources): State<Sources>, headers: HeaderMap) -> (StatusCode, String) {
    let Some(reload) = &sources.reload else {
        let words = "reloading over HTTP is off; it is on with --enable-lifecycle, and SIGHUP does the same\n";
        return (StatusCode::FORBIDDEN, words.to_owned());
    };
    if headers.get(HEADER).is_none_or(|value| value != "reload") {
        return (StatusCode::FORBIDDEN, "the header X-Meshscrape: reload is missing\n".to_owned());
    }
    match reload.ask().await {
        Ok(()) => (StatusCode::OK, "the configuration has been reloaded\n".to_owned()),
        Err(why) => (StatusCode::INTERNAL_SERVER_ERROR, format!("failed to reload the configuration:\n{why}\n")),
    }
}
