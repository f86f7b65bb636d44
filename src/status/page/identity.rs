//! Our own certificates: who we are, whom we trust, how long both last, and how their files fared.

use std::time::SystemTime;

use maud::{Markup, html};

use super::findings::{left, still_used};
use super::layout::{Here, Page};
use super::look::Look;
use super::parts::{chip, code, moment, nothing};
use super::query::Query;
use super::words::{count, relative, utc};
use crate::identity::{CertificateFacts, IdentitySnapshot, Outcome, Reload};
use crate::model::clean;

pub(super) fn page(look: &Look, _: &Query) -> Page {
    let body = html! {
        h1 { "Identity" }
        @if look.identities.is_empty() {
            (nothing("No job and no receiver has certificates of its own."))
        }
        @for (number, identity) in look.identities.iter().enumerate() { (one(number, identity, look.now)) }
    };
    Page { here: Here::Identity, title: "Identity".to_owned(), body }
}

fn one(number: usize, identity: &IdentitySnapshot, now: SystemTime) -> Markup {
    let heading = format!("identity-{number}");
    let files = &identity.files;
    html! {
        section.identity aria-labelledby=(heading) {
            h2 id=(heading) {
                @if let Some(id) = &identity.id { (clean(&id.to_string())) }
                @else if let Some(leaf) = identity.own.first() { (clean(leaf.name())) }
                @else { "No certificate yet" }
                " "
                @if identity.not_ready.is_some() { (chip("bad", "not ready")) }
                @else if identity.own_certificate_untrusted.is_some() { (chip("bad", "not trusted")) }
                @else if !identity.problems.is_empty() { (chip("warn", "files broken")) }
                @else { (chip("good", "ready")) }
            }
            (troubles(identity))
            @if let Some(leaf) = identity.own.first() { (countdown(leaf, now)) }
            dl.facts {
                div { dt { "Trust domain" } dd { @if let Some(domain) = &identity.trust_domain { (code(&domain.to_string())) } @else { span.muted { "not known yet" } } } }
                div { dt { "Chain" } dd { (code(&files.chain.display().to_string())) } }
                div { dt { "Key" } dd { (code(&files.key.display().to_string())) } }
                div { dt { "Roots" } dd { (code(&files.root.display().to_string())) } }
                div { dt { "Taken" } dd { (count(identity.changes)) " times" @if let Some(at) = identity.changed_at { ", last " (moment(at, now)) } } }
                div { dt { "Refused" } dd { (count(identity.refusals)) " times" } }
            }
            (certificates("Our chain, leaf first", &identity.own, now))
            (certificates("Roots that vouch for peers", &identity.roots, now))
            (history(&identity.history, now))
        }
    }
}

fn troubles(identity: &IdentitySnapshot) -> Markup {
    html! {
        @if let Some(failure) = &identity.not_ready {
            div.finding.bad { p { code.reason { (failure.reason.name()) } " " (failure.detail) } p.fix { strong { "What to do: " } (failure.hint()) "." } }
        }
        @if let Some(why) = &identity.own_certificate_untrusted {
            div.finding.bad { p { (clean(why)) ". Peers with the same roots refuse us." } }
        }
        @for problem in &identity.problems {
            div.finding.warn { p { (clean(problem)) "." } }
        }
        @if let (Some(used), false) = (still_used(identity), identity.problems.is_empty()) {
            p.muted { "Of these files " (used) "." }
        }
    }
}

/// How much of our certificate's time is left.
fn countdown(leaf: &CertificateFacts, now: SystemTime) -> Markup {
    let (_, share) = left(leaf, now);
    let percent = (share * 100.0).clamp(0.0, 100.0) as u32;
    html! {
        p.countdown {
            "Our certificate ends " strong { (relative(leaf.not_after, now)) } span.muted { " (" (utc(leaf.not_after)) ")" }
            meter min="0" max="100" low="20" high="50" optimum="100" value=(percent) aria-label="Share of its time that is left" { (percent) "%" }
            span.muted { (percent) "% of its time is left" }
        }
    }
}

fn certificates(caption: &str, list: &[CertificateFacts], now: SystemTime) -> Markup {
    html! {
        @if !list.is_empty() {
            table.list.stack {
                caption { (caption) }
                thead {
                    tr {
                        th scope="col" { "Name" } th scope="col" { "Issued by" } th scope="col" { "Valid from" } th scope="col" { "Ends" }
                        th scope="col" { "Serial" }
                    }
                }
                tbody {
                    @for facts in list {
                        tr {
                            th scope="row" data-label="Name" { (code(facts.name())) }
                            td data-label="Issued by" { (code(&facts.issuer)) }
                            td data-label="Valid from" { time datetime=(utc(facts.not_before)) { (utc(facts.not_before)) } }
                            td data-label="Ends" {
                                (moment(facts.not_after, now)) " " br; span.muted { (utc(facts.not_after)) }
                                @if !facts.is_valid_at(now) { " " (chip("bad", "not valid now")) }
                            }
                            td data-label="Serial" { (code(&facts.serial)) }
                        }
                    }
                }
            }
        }
    }
}

fn history(reloads: &[Reload], now: SystemTime) -> Markup {
    html! {
        @if !reloads.is_empty() {
            table.list.stack {
                caption { "What became of the last changes of the files" }
                thead { tr { th scope="col" { "When" } th scope="col" { "Outcome" } th scope="col" { "What" } } }
                tbody { @for reload in reloads { (event(reload, now)) } }
            }
        }
    }
}

fn event(reload: &Reload, now: SystemTime) -> Markup {
    html! {
        tr {
            td data-label="When" { (moment(reload.at, now)) " " span.muted { (utc(reload.at)) } }
            @match &reload.outcome {
                Outcome::Taken { generation, own, roots } => {
                    td data-label="Outcome" { (chip("good", "taken")) }
                    td data-label="What" {
                        @match (own, roots) {
                            (true, true) => "our certificate and the roots",
                            (true, false) => "our certificate",
                            (false, true) => "the roots",
                            (false, false) => "the trust domain",
                        }
                        span.muted { ", generation " (generation) }
                    }
                }
                Outcome::Refused(why) => {
                    td data-label="Outcome" { (chip("warn", "refused")) }
                    td data-label="What" { (clean(why)) }
                }
            }
        }
    }
}
