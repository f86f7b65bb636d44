//! The status page: what the person on call sees, as HTML made here.
//!
//! ```text
//! GET /                    what is wrong now, then the numbers          overview
//!     /targets             all targets, worst first                     targets
//!     /targets/ID          one of them                                  target
//!     /service-discovery   what was found, and why the rest is none     discovery
//!     /identity            our certificates                             identity
//!     /remote-write        the receivers                                remote_write
//!     /config              the configuration in force                   configuration
//!     /page/…              one style sheet, one script, one icon        assets
//!     /agent /status /flags   where Prometheus' agent has such pages: to ours
//! ```
//!
//! What always holds: the page reads snapshots and changes nothing; it needs nothing from elsewhere, and no script to be read,
//! searched and paged through; every text that is not ours is cleaned and then escaped by the templates, which have no way
//! around that; and the browser is told to run and load nothing but the three files that are built in. It must not know how
//! anything came to be as it is.

mod assets;
mod configuration;
mod discovery;
mod findings;
mod identity;
mod layout;
mod look;
mod overview;
mod pager;
mod parts;
mod query;
mod remote_write;
mod sparkline;
mod target;
mod targets;
#[cfg(test)]
mod testing;
mod words;

use axum::Router;
use axum::extract::{Path, RawQuery, Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::get;

use self::layout::Page;
use self::look::Look;
use self::query::Query;
use super::Sources;

/// What the browser may do with any answer of these routes: run the script, use the style sheet, show the icon, ask this
/// agent again; nothing else, and not inside another page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// The routes of the page.
pub(super) fn router(sources: Sources) -> Router {
    Router::new()
        .route("/", view(overview::page))
        .route("/targets", view(targets::page))
        .route("/targets/{id}", get(one_target))
        .route("/service-discovery", view(discovery::page))
        .route("/service-discovery/{key}", get(one_dropped))
        .route("/identity", view(identity::page))
        .route("/remote-write", view(remote_write::page))
        .route("/config", view(configuration::page))
        .route("/agent", get(async || Redirect::to("/")))
        .route("/status", get(async || Redirect::to("/")))
        .route("/flags", get(async || Redirect::to("/config#command-line")))
        .route("/page/style.css", get(assets::style))
        .route("/page/page.js", get(assets::script))
        .route("/page/icon.svg", get(assets::icon))
        .layer(middleware::from_fn(guard))
        .with_state(sources)
}

/// A page that is a function of what there is to see and of what was asked.
fn view(page: fn(&Look, &Query) -> Page) -> axum::routing::MethodRouter<Sources> {
    get(async move |State(sources): State<Sources>, RawQuery(query): RawQuery| {
        let look = Look::at(&sources);
        Html(page(&look, &Query::read(query.as_deref())).html(&look))
    })
}

async fn one_target(State(sources): State<Sources>, Path(id): Path<String>) -> Response {
    found(&sources, |look| target::page(look, &id))
}

async fn one_dropped(State(sources): State<Sources>, Path(key): Path<String>) -> Response {
    found(&sources, |look| discovery::dropped(look, &key))
}

/// The page of one thing, or one that says that it is gone.
fn found(sources: &Sources, page: impl FnOnce(&Look) -> Result<Page, Page>) -> Response {
    let look = Look::at(sources);
    match page(&look) {
        Ok(page) => Html(page.html(&look)).into_response(),
        Err(page) => (StatusCode::NOT_FOUND, Html(page.html(&look))).into_response(),
    }
}

async fn guard(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}
