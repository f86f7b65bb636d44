//! All targets, the worst first, to be narrowed down and paged through.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::time::SystemTime;

use maud::{Markup, html};

use super::findings::rank;
use super::layout::{Here, Page};
use super::look::{Look, Tally};
use super::pager::Slice;
use super::parts::{id, instance, moment, name, nothing, state, target_url};
use super::query::Query;
use super::sparkline::sparkline;
use super::words::{count, counted, took};
use crate::model::{Failure, clean};
use crate::scrape::{PoolSnapshot, TargetSnapshot};
use crate::status::health::{Health, State};

const PATH: &str = "/targets";

pub(super) fn page(look: &Look, query: &Query) -> Page {
    let mut chosen: Vec<_> = look.targets().filter(|(pool, target)| matches(pool, target, query)).collect();
    chosen.sort_by_cached_key(|(pool, active)| {
        let health = Health::of(active);
        (health.state, health.complaint().map(rank), pool.pool.clone(), name(&active.target))
    });
    let slice = Slice::of(chosen, query);
    let body = html! {
        h1 { "Targets" }
        (filter(look, query))
        p.count role="status" {
            "Showing " (slice.range())
            @if query.narrows() { ", chosen from " (counted(look.tally().all(), "target")) }
            "."
        }
        @if slice.rows.is_empty() {
            (none(look, query))
        } @else {
            (table(&slice.rows, look.now))
            (slice.ways(PATH, query))
        }
    };
    Page { here: Here::Targets, title: "Targets".to_owned(), body }
}

fn matches(pool: &PoolSnapshot, active: &TargetSnapshot, query: &Query) -> bool {
    let health = Health::of(active);
    let reason = health.complaint().map_or("", |failure| failure.reason.name());
    (query.state.is_empty() || query.state == health.state.word())
        && (query.reason.is_empty() || query.reason == reason)
        && (query.job.is_empty() || *query.job == *pool.pool)
        && query.finds(|text| {
            for part in [&*pool.pool, &active.target.shown_url(), reason, &health.expected(), health.presented()] {
                text.push_str(part);
                text.push('\n');
            }
            text.push_str(active.target.pod.as_ref().map_or("", |pod| &pod.name));
            for (label, value) in active.target.labels.iter() {
                text.extend(["\n", label, "=", value]);
            }
        })
}

fn filter(look: &Look, query: &Query) -> Markup {
    let reasons: BTreeSet<&str> = look
        .targets()
        .filter_map(|(_, active)| Some(Health::of(active).complaint()?.reason.name()))
        .chain((!query.reason.is_empty()).then_some(query.reason.as_str()))
        .collect();
    let Tally { up, down, unknown, .. } = look.tally();
    let states = [(State::Down, down), (State::Unknown, unknown), (State::Up, up)];
    html! {
        form.filter method="get" action=(PATH) role="search" {
            p.wide {
                label for="search" { "Search" }
                input #search type="search" name="search" value=(query.search) autocomplete="off" spellcheck="false"
                    placeholder="pod, address, label, identity";
            }
            p {
                label for="state" { "State" }
                select #state name="state" {
                    option value="" { "any" }
                    @for (state, number) in states {
                        option value=(state.word()) selected[query.state == state.word()] {
                            (state.word()) " (" (count(number as u64)) ")"
                        }
                    }
                }
            }
            p {
                label for="reason" { "Reason" }
                select #reason name="reason" {
                    option value="" { "any" }
                    @for reason in reasons { option value=(reason) selected[query.reason == reason] { (clean(reason)) } }
                }
            }
            (job_choice(look, query))
            p.buttons {
                button type="submit" { "Filter" }
                @if query.narrows() { " " a href=(PATH) { "Show all" } }
            }
        }
    }
}

/// The choice of a job, for any list.
pub(super) fn job_choice(look: &Look, query: &Query) -> Markup {
    html! {
        p {
            label for="job" { "Job" }
            select #job name="job" {
                option value="" { "any" }
                @for pool in &look.pools {
                    option value=(pool.pool) selected[*query.job == *pool.pool] { (clean(&pool.pool)) }
                }
            }
        }
    }
}

fn none(look: &Look, query: &Query) -> Markup {
    html! {
        @if query.narrows() {
            (nothing("No target is like that."))
            @if !query.search.is_empty() {
                p {
                    "If it should be one: "
                    a href=(Query { search: query.search.clone(), ..Query::default() }.url("/service-discovery", 1)) {
                        "why is it not a target?"
                    }
                }
            }
        } @else if !look.discovery.first_pass_done {
            (nothing("The targets are not known yet: not every source has answered."))
        } @else {
            (nothing("There are no targets."))
            p { a href="/service-discovery" { "What was found, and why none of it is a target" } }
        }
    }
}

fn table(rows: &[(&PoolSnapshot, &TargetSnapshot)], now: SystemTime) -> Markup {
    html! {
        table.list.stack {
            caption.hidden { "Targets, those that are down first" }
            thead {
                tr {
                    th scope="col" { "State" } th scope="col" { "Target" } th scope="col" { "Identity" }
                    th scope="col" { "Last scrape" } th.number scope="col" { "Samples" } th scope="col" { "Recent scrapes" }
                }
            }
            tbody {
                @for (at, (pool, active)) in rows.iter().enumerate() {
                    @let before = at.checked_sub(1).and_then(|before| hint(rows[before].1));
                    (row(pool, active, hint(active).filter(|hint| before.as_ref() != Some(hint)), now))
                }
            }
        }
    }
}

/// What to do about it.
fn hint(active: &TargetSnapshot) -> Option<Cow<'static, str>> {
    Health::of(active).complaint().map(Failure::hint)
}

/// One target; the hint is that of its failure unless the row above has the same.
fn row(pool: &PoolSnapshot, active: &TargetSnapshot, hint: Option<Cow<'static, str>>, now: SystemTime) -> Markup {
    let TargetSnapshot { target, status } = active;
    let health = Health::of(active);
    html! {
        tr id={ "t" (target.id) } class=(health.state.word()) {
            td data-label="State" { (state(&health)) }
            th.target scope="row" data-label="Target" {
                a href=(target_url(target)) { (name(target)) }
                span.where {
                    (clean(&pool.pool))
                    @if instance(target) != name(target) { " · " (instance(target)) }
                }
                @if let Some(failure) = health.complaint() {
                    span.why { code.reason { (failure.reason.name()) } " " (failure.detail) }
                    @if let Some(hint) = hint { span.fix { strong { "What to do: " } (hint) "." } }
                }
            }
            td.identity data-label="Identity" { (identity(&health)) }
            td data-label="Last scrape" {
                @if let Some(last) = health.last {
                    (moment(last.started, now)) " " br; span.muted.whole { "took " (took(last.phases.total)) }
                } @else { span.muted { "not yet" } }
            }
            td.number data-label="Samples" { (health.last.map_or(0, |last| last.samples_kept)) }
            td data-label="Recent scrapes" { (sparkline(&status.recent)) }
        }
    }
}

/// Who must answer, and who did where that is somebody else.
fn identity(health: &Health<'_>) -> Markup {
    let (expected, presented) = (health.expected(), health.presented());
    html! {
        @if !expected.is_empty() { (id(&expected)) }
        @else if health.refused() { span.muted { "missing: nobody may answer" } }
        @else if presented.is_empty() { span.muted { "not asked for" } }
        @if !presented.is_empty() && presented != expected {
            span.other { span.muted { @if health.failure.is_some() { "answered: " } @else { "verified: " } } (id(presented)) }
        }
    }
}
