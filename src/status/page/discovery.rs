//! What was found, by job, and why the rest is no target.
//!
//! The question of this view is "why is my pod not a target?", and it has four answers: it is one; it was found, and a rule
//! dropped it or it cannot be scraped as it is described; it is known and waits for its address; or it was never found, because
//! nobody looked where it is. The last cannot name the pod, so the view says for each job where it looks.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use maud::{Markup, html};

use super::findings::{SILENT, UNUSABLE};
use super::layout::{Here, Page};
use super::look::Look;
use super::pager::Slice;
use super::parts::{chip, labels, name, nothing, pod, rule, severity, state, target_url};
use super::query::{Query, link};
use super::target::relabeling;
use super::targets::job_choice;
use super::words::{count, counted};
use crate::config::{KubernetesSd, format_duration};
use crate::discover;
use crate::model::{DropCause, DroppedTarget, Labels, clean};
use crate::scrape::PoolSnapshot;
use crate::status::health::Health;

const PATH: &str = "/service-discovery";
/// How many targets a search names; the view of targets has the rest.
const FOUND: usize = 10;
/// Why a candidate is not a target, in words.
const BECAUSE: [(DropCause, &str); 4] = [
    (DropCause::Rule, "a rule drops it"),
    (DropCause::Malformed, "it cannot be scraped so"),
    (DropCause::Surplus, "its namespace has too many"),
    (DropCause::Superseded, "a newer pod has its address"),
];

pub(super) fn page(look: &Look, query: &Query) -> Page {
    let chosen: Vec<_> = candidates(look).filter(|(pool, dropped)| matches(pool, dropped, query)).collect();
    let slice = Slice::of(chosen, query);
    let body = html! {
        h1 { "Service discovery" }
        (troubles(look))
        (filter(look, query))
        @if !query.words.is_empty() { (among_targets(look, query)) }
        section aria-labelledby="dropped" {
            h2 #dropped { "Found, and not a target" }
            p.count role="status" { "Showing " (slice.range()) "." (forgotten(look, query)) }
            @if slice.rows.is_empty() { (nothing(if query.narrows() { "None is like that." } else { "There is nothing of the kind." })) } @else {
                (table(&slice.rows))
                (slice.ways(PATH, query))
            }
        }
        (waiting(look, query))
        section aria-labelledby="sources" {
            h2 #sources { "Where each job looks" }
            p { "What is in none of the lists was not found: it is not where its job looks, or it is a pod that has ended and has no address any more." }
            @for pool in look.pools.iter().filter(|pool| query.job.is_empty() || *query.job == *pool.pool) { (job(pool)) }
        }
    };
    Page { here: Here::Discovery, title: "Service discovery".to_owned(), body }
}

/// The page of a candidate that is no target, or one that says that there is none.
pub(super) fn dropped(look: &Look, key: &str) -> Result<Page, Page> {
    let Some((pool, dropped)) = candidates(look).find(|(pool, dropped)| key_of(pool, dropped) == key) else {
        let body = html! {
            h1 { "No such candidate" }
            p { "It is gone, or it has other labels now, since the page that led here was made." }
            p { a href=(PATH) { "Service discovery" } }
        };
        return Err(Page { here: Here::Discovery, title: "No such candidate".to_owned(), body });
    };
    let title = called(dropped);
    let body = html! {
        p.back { a href=(PATH) { "Service discovery" } }
        h1 { "Why " (title) " is not a target" }
        p { "Job " a href=(link(PATH, "", "", &pool.pool)) { (clean(&pool.pool)) } ": " (why(pool, dropped)) }
        (relabeling(&pool.config.relabel, &dropped.discovered))
        (labels("As it was discovered", &dropped.discovered))
    };
    Ok(Page { here: Here::Discovery, title, body })
}

fn candidates(look: &Look) -> impl Iterator<Item = (&PoolSnapshot, &Arc<DroppedTarget>)> {
    look.pools.iter().flat_map(|pool| pool.dropped.iter().map(move |dropped| (pool, dropped)))
}

/// What it is found by again: it has no name of its own.
fn key_of(pool: &PoolSnapshot, dropped: &DroppedTarget) -> String {
    let mut hasher = DefaultHasher::new();
    (&pool.pool, &dropped.discovered).hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

fn called(dropped: &DroppedTarget) -> String {
    let address = clean(dropped.discovered.value("__address__"));
    pod(&dropped.discovered, &Labels::new()).unwrap_or_else(|| address.into_owned())
}

fn matches(pool: &PoolSnapshot, dropped: &DroppedTarget, query: &Query) -> bool {
    (query.state.is_empty() || query.state == dropped.cause.name())
        && (query.job.is_empty() || *query.job == *pool.pool)
        && query.finds(|text| {
            text.push_str(&pool.pool);
            for (label, value) in dropped.discovered.iter() {
                text.extend(["\n", label, "=", value]);
            }
        })
}

fn troubles(look: &Look) -> Markup {
    html! {
        @if !look.discovery.problems.is_empty() || look.discovery.unconfirmed {
            ul.findings {
                @if look.discovery.unconfirmed {
                    li class={ "finding " (SILENT.class()) } { p { (severity(SILENT)) " The API server has not been heard for too long: pods may have changed unseen." } }
                }
                @for problem in &look.discovery.problems {
                    li class={ "finding " (UNUSABLE.class()) } {
                        p { (severity(UNUSABLE)) " " code { (clean(&problem.source)) } " " (problem.message) }
                        p.muted { "What it said before still holds." }
                    }
                }
            }
        }
    }
}

fn filter(look: &Look, query: &Query) -> Markup {
    html! {
        form.filter method="get" action=(PATH) role="search" {
            p.wide {
                label for="search" { "Why is it not a target?" }
                input #search type="search" name="search" value=(query.search) autocomplete="off" spellcheck="false"
                    placeholder="pod, address, label";
            }
            p {
                label for="state" { "Because" }
                select #state name="state" {
                    option value="" { "of anything" }
                    @for (cause, words) in BECAUSE {
                        option value=(cause.name()) selected[query.state == cause.name()] { (words) }
                    }
                }
            }
            (job_choice(look, query))
            p.buttons { button type="submit" { "Filter" } @if query.narrows() { " " a href=(PATH) { "Show all" } } }
        }
    }
}

/// What a search finds among those that are targets, so that nobody looks for a reason that is none.
fn among_targets(look: &Look, query: &Query) -> Markup {
    let found: Vec<_> = look
        .targets()
        .filter(|(pool, active)| {
            (query.job.is_empty() || *query.job == *pool.pool)
                && query.finds(|text| {
                    for (label, value) in active.target.discovered.iter() {
                        text.extend(["\n", label, "=", value]);
                    }
                })
        })
        .collect();
    html! {
        @if !found.is_empty() {
            section aria-labelledby="are-targets" {
                h2 #are-targets { (counted(found.len(), "target")) " like that" }
                ul.plain {
                    @for (pool, active) in found.iter().take(FOUND) {
                        li { (state(&Health::of(active))) " " a href=(target_url(&active.target)) { (name(&active.target)) } span.muted { " in " (clean(&pool.pool)) } }
                    }
                }
                @if found.len() > FOUND {
                    p { a href=(Query { state: String::new(), ..query.clone() }.url("/targets", 1)) { "All of them" } }
                }
            }
        }
    }
}

/// Pods that are known and can be no targets yet; of which job they would be only their labels will say.
fn waiting(look: &Look, query: &Query) -> Markup {
    let discover::Waiting { pods, more } = &look.discovery.waiting;
    let found: Vec<_> = pods.iter().filter(|(pod, _)| query.finds(|text| text.push_str(pod))).collect();
    html! {
        @if query.state.is_empty() && (!found.is_empty() || *more > 0) {
            section aria-labelledby="waiting" {
                h2 #waiting { "Known, and not yet to be scraped" }
                @if !found.is_empty() { ul.plain { @for (pod, why) in found { li { (clean(pod)) span.muted { ": " (why) } } } } }
                @if *more > 0 { p { "Of " (count(*more as u64)) " more, at least, only the number is known." } }
            }
        }
    }
}

/// Of many that rules drop, or that a namespace has too many, only some are remembered.
fn forgotten(look: &Look, query: &Query) -> Markup {
    let forgotten = |cause: DropCause| -> usize {
        if !query.state.is_empty() && query.state != cause.name() {
            return 0;
        }
        let pools = look.pools.iter().filter(|pool| query.job.is_empty() || *query.job == *pool.pool);
        let of = |pool: &PoolSnapshot| {
            let remembered = pool.dropped.iter().filter(|dropped| dropped.cause == cause).count();
            pool.left_out(cause).saturating_sub(remembered)
        };
        pools.map(of).sum()
    };
    let (by_rules, surplus) = (forgotten(DropCause::Rule), forgotten(DropCause::Surplus));
    html! {
        @if by_rules > 0 {
            " Of " (count(by_rules as u64)) " more that rules drop only the number is known: keep_dropped_targets says how many are remembered."
        }
        @if surplus > 0 {
            " Of " (count(surplus as u64)) " more that are over namespace_target_limit only the number is known."
        }
    }
}

fn table(rows: &[(&PoolSnapshot, &Arc<DroppedTarget>)]) -> Markup {
    html! {
        table.list.stack {
            caption.hidden { "Candidates that are not scraped" }
            thead { tr { th scope="col" { "Candidate" } th scope="col" { "Job" } th scope="col" { "Why it is not a target" } } }
            tbody {
                @for (pool, dropped) in rows {
                    tr {
                        th.target scope="row" data-label="Candidate" {
                            a href={ (PATH) "/" (key_of(pool, dropped)) } { (called(dropped)) }
                            span.where { (clean(dropped.discovered.value("__address__"))) }
                        }
                        td data-label="Job" { (clean(&pool.pool)) }
                        td data-label="Why" { (why(pool, dropped)) }
                    }
                }
            }
        }
    }
}

fn why(pool: &PoolSnapshot, dropped: &DroppedTarget) -> Markup {
    html! {
        @let class = match dropped.cause {
            DropCause::Malformed => "bad",
            DropCause::Surplus => "warn",
            DropCause::Rule | DropCause::Superseded => "idle",
        };
        (chip(class, dropped.cause.name())) " "
        @if let Some(error) = &dropped.error {
            (clean(error))
        } @else if let Some(number) = dropped.by_rule {
            "by relabel rule " (number + 1)
            @if let Some(found) = pool.config.relabel.get(number) { ": " code.rule { (rule(found)) } }
        }
    }
}

fn job(pool: &PoolSnapshot) -> Markup {
    let by_rules = pool.left_out(DropCause::Rule);
    html! {
        section.job {
            h3 { (clean(&pool.pool)) }
            p {
                (count((pool.active.len() + pool.dropped_count) as u64)) " found: "
                a href=(link("/targets", "", "", &pool.pool)) { (counted(pool.active.len(), "target")) }
                ", " (count(by_rules as u64)) " dropped by rules"
                @for (cause, what) in [
                    (DropCause::Malformed, " that cannot be scraped so"),
                    (DropCause::Surplus, " over namespace_target_limit"),
                    (DropCause::Superseded, " whose address a newer pod has"),
                ] {
                    @let others = pool.left_out(cause);
                    @if others > 0 { ", " a href=(link(PATH, cause.name(), "", &pool.pool)) { (count(others as u64)) } (what) }
                }
            }
            ul { @for source in sources(pool) { li { (source) } } }
            @if by_rules > 0 {
                table.list {
                    caption { "What its rules drop" }
                    thead { tr { th.number scope="col" { "Rule" } th scope="col" { "It says" } th.number scope="col" { "Drops" } } }
                    tbody {
                        @for (&number, &drops) in &pool.dropped_by_rule {
                            tr {
                                th.number scope="row" { (number + 1) }
                                td { @if let Some(found) = pool.config.relabel.get(number) { code.rule { (rule(found)) } } }
                                td.number { (count(drops as u64)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Where a job looks, in words.
fn sources(pool: &PoolSnapshot) -> Vec<String> {
    let config = &pool.config;
    let listed: usize = config.static_configs.iter().map(|entry| entry.targets.len()).sum();
    let listed = (listed > 0).then(|| format!("{} in the configuration itself", counted(listed, "address")));
    let files = config
        .file_sd_configs
        .iter()
        .flat_map(|files| files.files.iter().map(|file| format!("the file {}", clean(&file.display().to_string()))));
    let lists = config
        .http_sd_configs
        .iter()
        .map(|list| format!("the list at {}, every {}", list.shown_url(), format_duration(list.refresh_interval)));
    listed.into_iter().chain(files).chain(lists).chain(config.kubernetes_sd_configs.iter().map(kubernetes)).collect()
}

fn kubernetes(source: &KubernetesSd) -> String {
    let mut namespaces: Vec<&str> = source.namespaces.iter().map(String::as_str).collect();
    if source.own_namespace {
        namespaces.push("its own");
    }
    let place = match namespaces.is_empty() {
        true => "all namespaces".to_owned(),
        false => format!("namespaces {}", clean(&namespaces.join(", "))),
    };
    let mut text = format!("Kubernetes, role {}, in {place}", source.role.as_str());
    for selector in &source.selectors {
        for (kind, value) in [("label", &selector.label), ("field", &selector.field)] {
            if !value.is_empty() {
                text.push_str(&format!(", only {}s with {kind} {}", selector.role.as_str(), clean(value)));
            }
        }
    }
    text
}
