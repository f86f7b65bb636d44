//! `POST /-/reload` and `POST /-/quit`, and `PUT` as Prometheus has it: the configuration is read again, or the agent ends as
//! at SIGTERM, where the command line allows it.
//!
//! The header `X-Meshscrape: reload` or `quit` is required for the reason that [`live`](super::live) gives. Answers are text: a
//! sentence where it is done, else why not; a configuration that cannot be used leaves the last good one in force.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};

use crate::lifecycle::Control;
use crate::status::{HEADER, Sources};

pub(super) async fn reload(State(sources): State<Sources>, headers: HeaderMap) -> (StatusCode, String) {
    let control = match allowed(&sources, &headers, "reload", "SIGHUP") {
        Ok(control) => control,
        Err(why) => return (StatusCode::FORBIDDEN, why),
    };
    match control.reload.ask().await {
        Ok(()) => (StatusCode::OK, "the configuration has been reloaded\n".to_owned()),
        Err(why) => (StatusCode::INTERNAL_SERVER_ERROR, format!("failed to reload the configuration:\n{why}\n")),
    }
}

pub(super) async fn quit(State(sources): State<Sources>, headers: HeaderMap) -> (StatusCode, String) {
    match allowed(&sources, &headers, "quit", "SIGTERM") {
        Ok(control) => {
            control.stop.cancel();
            (StatusCode::OK, "stopping\n".to_owned())
        }
        Err(why) => (StatusCode::FORBIDDEN, why),
    }
}

fn allowed<'s>(sources: &'s Sources, headers: &HeaderMap, what: &str, signal: &str) -> Result<&'s Control, String> {
    let Some(control) = &sources.control else {
        return Err(format!("/-/{what} is off; it is on with --enable-lifecycle, and {signal} does the same\n"));
    };
    match headers.get(HEADER).is_some_and(|value| value == what) {
        true => Ok(control),
        false => Err(format!("the header X-Meshscrape: {what} is missing\n")),
    }
}
