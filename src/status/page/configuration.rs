//! The configuration in force, as the API shows it: with defaults and without secrets; and how the process was started.

use maud::html;

use super::findings::{REFUSED, first_of};
use super::layout::{Here, Page};
use super::look::Look;
use super::parts::{chip, moment_in_full};
use super::query::Query;
use crate::model::clean;
use crate::status::Unusable;

pub(super) fn page(look: &Look, _: &Query) -> Page {
    let configuration = &look.configuration;
    let body = html! {
        h1 { "Configuration" }
        p {
            @if configuration.refused.is_none() { (chip("good", "in force")) } @else { (chip(REFUSED.class(), "an older one is in force")) }
            " taken " (moment_in_full(configuration.taken, look.now))
        }
        @if let Some(Unusable { since, problems }) = &configuration.refused {
            div class={ "finding " (REFUSED.class()) } {
                p { "What is read since " (moment_in_full(*since, look.now)) " cannot be used: " (first_of(problems)) }
                p { strong { "What to do: " } "run " code { "meshscrape check config FILE" } ", which names every problem with its place." }
            }
        }
        p.muted { "With defaults, as " code { "meshscrape check config --print" } " shows it; secrets are not shown." }
        div.scroll tabindex="0" role="region" aria-label="Configuration in force" {
            pre.yaml { @for line in configuration.yaml.lines() { span.line { (clean_line(line)) "\n" } } }
        }
        h2 #command-line { "Command line" }
        div.scroll tabindex="0" role="region" aria-label="Arguments of the command line" {
            table.list {
                caption.hidden { "Arguments of the command line, with defaults" }
                thead { tr { th scope="col" { "Argument" } th scope="col" { "Value" } } }
                tbody {
                    @for (name, value) in &look.process.flags {
                        tr { th scope="row" { code { "--" (clean(name)) } } td { code { (clean(value)) } } }
                    }
                }
            }
        }
    };
    Page { here: Here::Configuration, title: "Configuration".to_owned(), body }
}

/// A line of the file may be longer than other texts: it is the operator's own.
fn clean_line(line: &str) -> String {
    crate::model::clean_to(line, 4096).into_owned()
}
