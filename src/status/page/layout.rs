//! What all views share: the frame of the document, the ways between the views, and the moment that is shown.

use maud::{DOCTYPE, Markup, html};

use super::look::Look;
use super::parts::Severity;
use super::words::{counted, span, utc};
use crate::model::clean;

/// Where one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Here {
    Overview,
    Targets,
    Discovery,
    Identity,
    RemoteWrite,
    Configuration,
}

const VIEWS: [(Here, &str, &str); 6] = [
    (Here::Overview, "/", "Overview"),
    (Here::Targets, "/targets", "Targets"),
    (Here::Discovery, "/service-discovery", "Service discovery"),
    (Here::Identity, "/identity", "Identity"),
    (Here::RemoteWrite, "/remote-write", "Remote write"),
    (Here::Configuration, "/config", "Configuration"),
];

/// One page.
pub(super) struct Page {
    pub(super) here: Here,
    /// What the browser's tab says, before the name of the program.
    pub(super) title: String,
    pub(super) body: Markup,
}

impl Page {
    /// The whole document.
    pub(super) fn html(self, look: &Look) -> String {
        let Self { here, title, body } = self;
        let host = clean(&look.process.host);
        let wrong = look.findings.iter().filter(|finding| finding.severity < Severity::Note).count();
        let worst = look.findings.first().map_or("good", |finding| finding.severity.class());
        let document = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    title { @if wrong > 0 { "(" (wrong) ") " } (title) " · meshscrape" }
                    link rel="icon" href="/page/icon.svg" type="image/svg+xml";
                    link rel="stylesheet" href="/page/style.css";
                    script src="/page/page.js" defer {}
                }
                body {
                    a.skip href="#main" { "Skip to the content" }
                    header.top {
                        div.inner {
                            p.brand {
                                a href="/" { img src="/page/icon.svg" alt="" width="24" height="24"; " meshscrape" }
                                @if !host.is_empty() { span.host { (host) } }
                            }
                            nav aria-label="Views" {
                                ul {
                                    @for (view, path, name) in VIEWS {
                                        li {
                                            a href=(path) aria-current=[(view == here).then_some("page")] {
                                                (name)
                                                @if view == Here::Overview && wrong > 0 {
                                                    " " span class={ "badge " (worst) } {
                                                        (wrong) span.hidden { " " (if wrong == 1 { "problem" } else { "problems" }) }
                                                    }
                                                }
                                            }
                                        }
                                    }
                                }
                            }
                        }
                    }
                    main #main tabindex="-1" { (body) }
                    footer.bottom {
                        div.inner {
                            p {
                                "State of " time #as-of datetime=(utc(look.now)) { (utc(look.now)) } ". "
                                button #live type="button" hidden { "Pause" }
                                span #connection role="status" {}
                            }
                            p.muted {
                                "meshscrape " (env!("CARGO_PKG_VERSION")) ", up for "
                                (span(look.now.duration_since(look.process.started).unwrap_or_default())) ", "
                                (counted(look.tally().all(), "target")) ". The same as data: "
                                a href="/api/v1/targets" { "targets" } ", " a href="/metrics" { "metrics" } "."
                            }
                        }
                    }
                }
            }
        };
        document.into_string()
    }
}
