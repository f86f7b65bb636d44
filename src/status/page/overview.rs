//! The first view: what is wrong right now, and then the numbers.

use maud::{Markup, html};

use super::findings::{Finding, left};
use super::layout::{Here, Page};
use super::look::{Look, Tally, tally};
use super::parts::{Severity, chip, severity as severity_chip};
use super::query::{Query, link};
use super::words::{bytes, count, counted, span};
use crate::config::JobSecurity;
use crate::model::{DropCause, Match, Scheme, clean};
use crate::scrape::PoolSnapshot;

pub(super) fn page(look: &Look, _: &Query) -> Page {
    let tally = look.tally();
    let body = html! {
        h1.hidden { "Overview" }
        (headline(look, tally))
        @if !look.findings.is_empty() {
            section aria-labelledby="wrong" {
                h2 #wrong { "Right now" }
                ul.findings { @for finding in &look.findings { (one(finding)) } }
            }
        }
        section aria-labelledby="numbers" {
            h2 #numbers { "Numbers" }
            (numbers(look, tally))
        }
        section aria-labelledby="jobs" {
            h2 #jobs { "Jobs" }
            (jobs(look))
        }
    };
    Page { here: Here::Overview, title: "Overview".to_owned(), body }
}

/// The answer to "is it well?" in one line.
pub(super) fn headline(look: &Look, tally: Tally) -> Markup {
    let of = |severity| look.findings.iter().filter(|finding| finding.severity == severity).count();
    let (bad, warnings, remarks) = (of(Severity::Bad), of(Severity::Warning), of(Severity::Note));
    let (class, text) = match (bad, warnings) {
        (0, 0) if tally.all() == 0 => ("idle", "There is nothing to scrape".to_owned()),
        (0, 0) if tally.unknown > 0 => ("idle", "Nothing is wrong so far".to_owned()),
        (0, 0) if remarks > 0 => ("idle", format!("Nothing is wrong, {}", counted(remarks, "remark"))),
        (0, 0) => ("good", "All is well".to_owned()),
        (0, warnings) => ("warn", counted(warnings, "warning")),
        (bad, _) => ("bad", if bad == 1 { "One thing is wrong".to_owned() } else { format!("{bad} things are wrong") }),
    };
    let targets = match (tally.all(), tally.down, tally.unknown) {
        (0, _, _) => "No targets.".to_owned(),
        (1, 0, 0) => "The one target is up.".to_owned(),
        (all, 0, 0) => format!("All {} targets are up.", count(all as u64)),
        (all, 0, unknown) => format!("Of {}, {} were not scraped yet.", counted(all, "target"), count(unknown as u64)),
        (all, down, _) => format!("{} of {} down.", count(down as u64), counted(all, "target")),
    };
    html! {
        p class={ "headline " (class) } role="status" { strong { (text) } " " span { (targets) } }
    }
}

fn one(finding: &Finding) -> Markup {
    let Finding { severity, title, reason, detail, fix, link: (url, to), examples } = finding;
    html! {
        li class={ "finding " (severity.class()) } {
            h3 {
                (severity_chip(*severity)) " " (title)
                @if let Some(reason) = reason { " " code.reason { (reason.name()) } }
            }
            p { (detail) }
            p.fix { strong { "What to do: " } (fix) @if !fix.ends_with('?') { "." } }
            @if !examples.is_empty() {
                ul.examples {
                    @for (url, name, detail) in examples {
                        li { a href=(url) { (name) } " " span.muted { (detail) } }
                    }
                }
            }
            p { a href=(url) { (to) span.hidden { ": " (title) } } }
        }
    }
}

fn numbers(look: &Look, tally: Tally) -> Markup {
    let rate: f64 = look.receivers.iter().map(|receiver| receiver.samples_per_second).sum();
    let lag = look.receivers.iter().map(|receiver| receiver.lag).max();
    let waiting: u64 = look.receivers.iter().map(|receiver| receiver.queue.pending_samples).sum();
    let memory: u64 = look.receivers.iter().map(|receiver| receiver.queue.waiting_bytes).sum();
    let left_out = |cause| look.pools.iter().map(|pool| pool.left_out(cause)).sum::<usize>();
    let next = look.identities.iter().filter_map(|identity| identity.own.first()).min_by_key(|leaf| leaf.not_after);
    html! {
        dl.numbers {
            div { dt { "Targets up" } dd { a href="/targets?state=up" { (count(tally.up as u64)) } span.muted { " of " (count(tally.all() as u64)) } } }
            div { dt { "Down" } dd { a href="/targets?state=down" { (count(tally.down as u64)) } } }
            div {
                dt { "Dropped by rules" }
                dd {
                    a href="/service-discovery?state=dropped" { (count(left_out(DropCause::Rule) as u64)) }
                    @for (cause, what) in [
                        (DropCause::Malformed, " not fit"),
                        (DropCause::Surplus, " over a limit"),
                        (DropCause::Superseded, " superseded"),
                    ] {
                        @let others = left_out(cause);
                        @if others > 0 {
                            span.muted { ", " a href={ "/service-discovery?state=" (cause.name()) } { (count(others as u64)) } (what) }
                        }
                    }
                }
            }
            div { dt { "Samples last scraped" } dd { (count(tally.samples as u64)) } }
            div { dt { "Delivered" } dd { (count(rate as u64)) span.muted { " samples/s" } } }
            @if let Some(lag) = lag {
                div { dt { "Behind" } dd { a href="/remote-write" { (span(lag)) } } }
                div { dt { "Waiting" } dd { (count(waiting)) span.muted { " samples, " (bytes(memory)) " in memory" } } }
            }
            @if let Some(leaf) = next {
                div { dt { "Own certificate" } dd { a href="/identity" { (span(left(leaf, look.now).0)) } span.muted { " left" } } }
            }
        }
    }
}

fn jobs(look: &Look) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label="Jobs" {
            table.list {
                caption.hidden { "Jobs and how their targets fare" }
                thead {
                    tr {
                        th scope="col" { "Job" } th scope="col" { "Who must answer" }
                        th.number scope="col" { "Up" } th.number scope="col" { "Down" } th.number scope="col" { "Unknown" }
                        th.number scope="col" { "No target" } th.number scope="col" { "Samples" }
                    }
                }
                tbody {
                    @for pool in &look.pools {
                        @let tally = tally(pool.active.iter());
                        tr {
                            th scope="row" { a href=(link("/targets", "", "", &pool.pool)) { (clean(&pool.pool)) } }
                            td { (verification(pool)) }
                            td.number { (count(tally.up as u64)) }
                            td.number {
                                @if tally.down == 0 { "0" }
                                @else { a.down href=(link("/targets", "down", "", &pool.pool)) { (count(tally.down as u64)) } }
                            }
                            td.number { (count(tally.unknown as u64)) }
                            td.number {
                                a href=(link("/service-discovery", "", "", &pool.pool)) { (count(pool.dropped_count as u64)) }
                            }
                            td.number { (count(tally.samples as u64)) }
                        }
                    }
                }
            }
        }
    }
}

/// How a job knows who answers.
pub(super) fn verification(pool: &PoolSnapshot) -> Markup {
    match &pool.config.security {
        JobSecurity::Spiffe(spiffe) => match spiffe.rule {
            Match::Exact => chip("good", "exact SPIFFE ID"),
            Match::Namespace => chip("warn", "namespace of the SPIFFE ID"),
            Match::TrustDomain => chip("warn", "trust domain of the SPIFFE ID"),
        },
        JobSecurity::Ordinary(_) if pool.config.scheme == Scheme::Http => chip("warn", "anybody, plain text"),
        JobSecurity::Ordinary(_) => chip("good", "host name"),
    }
}
