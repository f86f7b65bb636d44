//! One target: how it fares, who answered, and how it came to be what it is.

use std::time::SystemTime;

use maud::{Markup, html};

use super::findings::how_bad;
use super::layout::{Here, Page};
use super::look::Look;
use super::parts::{
    Severity, chip, code, copyable, instance, labels, moment_in_full, name, nothing, pod, severity as severity_chip,
    state,
};
use super::sparkline::{in_words, sparkline};
use super::words::{bytes, count, counted, took};
use crate::config::format_duration;
use crate::model::{Failure, Labels, Match, PeerReport, Scheme, ScrapeReport, Target, Verification, clean};
use crate::relabel::Rule;
use crate::scrape::{Beat, PoolSnapshot, TargetSnapshot};
use crate::status::health::Health;
use crate::status::relabelled::{Step, steps};

/// Where the API is served, and commands look for it, unless they are told otherwise.
const DEFAULT_API: &str = "127.0.0.1:9465";

/// The page of the target with this id, or one that says that there is none.
pub(super) fn page(look: &Look, id: &str) -> Result<Page, Page> {
    let Some((pool, active)) = look.targets().find(|(_, active)| active.target.id.to_string() == id) else {
        let body = html! {
            h1 { "No such target" }
            p { "It is gone since the page that led here was made, or the address was mistyped." }
            p { a href="/targets" { "All targets" } }
        };
        return Err(Page { here: Here::Targets, title: "No such target".to_owned(), body });
    };
    let title = name(&active.target);
    let health = Health::of(active);
    let body = html! {
        p.back { a href="/targets" { "All targets" } }
        h1 { (title) " " (state(&health)) }
        @if instance(&active.target) != title { p.muted { (instance(&active.target)) } }
        @if let Some(failure) = health.complaint() { (complaint(how_bad(&health), failure)) }
        (facts(look, pool, active, &health))
        (recent(active))
        (certificates(look.now, &health))
        section aria-labelledby="labels" {
            h2 #labels { "Labels" }
            div.pair {
                (labels("What its series get", &active.target.labels))
                details { summary { "Before relabeling" } (labels("As it was discovered", &active.target.discovered)) }
            }
        }
        (relabeling(&pool.config.relabel, &active.target.discovered))
        (by_hand(look, pool, active))
    };
    Ok(Page { here: Here::Targets, title, body })
}

fn complaint(severity: Severity, failure: &Failure) -> Markup {
    html! {
        div class={ "finding " (severity.class()) } {
            h2 { (severity_chip(severity)) " " code.reason { (failure.reason.name()) } }
            p { (failure.reason.when()) }
            p { (failure.detail) }
            p.fix { strong { "What to do: " } (failure.hint()) "." }
        }
    }
}

fn facts(
    look: &Look,
    pool: &PoolSnapshot,
    TargetSnapshot { target, status }: &TargetSnapshot,
    health: &Health<'_>,
) -> Markup {
    let rule = match &target.verification {
        Verification::Spiffe(peer) => match peer.rule() {
            Match::Exact => "exactly this SPIFFE ID",
            Match::Namespace => "any service account of this namespace",
            Match::TrustDomain => "anybody of this trust domain",
        },
        Verification::HostName => "whoever has a certificate for the host name",
        Verification::None => "anybody: the job says plain http",
        Verification::Refused(_) => "nobody: it is never connected",
    };
    let expected = health.expected();
    html! {
        dl.facts {
            div { dt { "URL" } dd { (copyable(&clean(&target.shown_url()))) } }
            div { dt { "Job" } dd { (clean(&pool.pool)) } }
            @if let Some(pod) = pod(&target.discovered, &target.labels) {
                div { dt { "Pod" } dd { (pod) @if target.pod.as_ref().is_some_and(|pod| pod.terminating) { " " (chip("warn", "terminating")) } } }
            }
            div { dt { "May answer" } dd { (rule) } }
            @if !expected.is_empty() { div { dt { "Expected" } dd { (code(&expected)) } } }
            @if !health.presented().is_empty() {
                div {
                    dt { @if health.peer().is_some() { "Verified" } @else { "Answered" } }
                    dd { (code(health.presented())) @if health.peer().is_some_and(|peer| !peer.exact) { " " (chip("warn", "weaker match")) } }
                }
            }
            @for (rule, tenant) in target.tenants.iter() {
                div {
                    dt { "Tenant by " (code(rule.template())) }
                    dd {
                        @match tenant {
                            Ok(tenant) => (code(tenant.as_str())),
                            Err(why) => { (chip("bad", "nobody's, not sent")) " " (why) }
                        }
                    }
                }
            }
            div { dt { "Scraped" } dd { "every " (format_duration(target.interval)) ", for at most " (format_duration(target.timeout)) } }
            @if let Some(last) = health.last { (last_scrape(last, look.now)) }
            div {
                dt { "Since it is known" }
                dd { (counted(status.succeeded as usize, "scrape")) " good, " (count(status.failed)) " failed, " (count(status.series as u64)) " series" }
            }
        }
    }
}

fn last_scrape(last: &ScrapeReport, now: SystemTime) -> Markup {
    let phases = [("connect", last.phases.connect), ("TLS", last.phases.tls), ("first byte", last.phases.first_byte)];
    let parts = phases.iter().filter_map(|(name, duration)| Some((name, (*duration)?)));
    html! {
        div { dt { "Last scrape" } dd { (moment_in_full(last.started, now)) } }
        div {
            dt { "Took" }
            dd { (took(last.phases.total)) @for (name, duration) in parts { span.muted { ", " (name) " " (took(duration)) } } }
        }
        div {
            dt { "Samples" }
            dd {
                (count(last.samples_kept as u64))
                @if last.samples != last.samples_kept { span.muted { " of " (count(last.samples as u64)) " exposed" } }
                span.muted { ", " (bytes(last.body_bytes)) }
            }
        }
    }
}

fn recent(TargetSnapshot { status, .. }: &TargetSnapshot) -> Markup {
    let beats: Vec<Beat> = status.recent.beats().collect();
    html! {
        section aria-labelledby="recent" {
            h2 #recent { "Recent scrapes" }
            @if beats.is_empty() {
                (nothing("It has not been scraped yet."))
            } @else {
                p.large { (sparkline(&status.recent)) }
                p { (in_words(&beats)) "." }
                details {
                    summary { "One by one" }
                    ol.beats reversed {
                        @for beat in beats.iter().rev() { li { @if beat.ok { (took(beat.duration)) } @else { "failed after " (took(beat.duration)) } } }
                    }
                }
            }
        }
    }
}

fn certificates(now: SystemTime, health: &Health<'_>) -> Markup {
    let refused = health.failure.map(|failure| &*failure.chain).unwrap_or_default();
    html! {
        @if let Some(PeerReport { tls_version, cipher, not_after, chain, .. }) = health.peer() {
            section aria-labelledby="peer" {
                h2 #peer { "Who answered" }
                dl.facts {
                    div { dt { "Chain ends" } dd { (moment_in_full(*not_after, now)) } }
                    div { dt { "TLS" } dd { (tls_version) " " (clean(cipher)) } }
                }
                (chain_of(chain))
            }
        } @else if !refused.is_empty() {
            section aria-labelledby="peer" {
                h2 #peer { "Who was refused" }
                p.muted { "Its own words: nothing of this is verified." }
                (chain_of(refused))
            }
        }
    }
}

fn chain_of(chain: &[String]) -> Markup {
    html! { ol.chain { @for certificate in chain { li { code { (clean(certificate)) } } } } }
}

/// What each relabel rule of the job makes of the labels that discovery gave.
pub(super) fn relabeling(rules: &[Rule], discovered: &Labels) -> Markup {
    let mut before = discovered.clone();
    html! {
        section aria-labelledby="relabeling" {
            h2 #relabeling { "Relabeling, rule by rule" }
            @if rules.is_empty() {
                (nothing("The job has no relabel rules."))
            } @else {
                ol.steps {
                    @for step in steps(rules, discovered.clone()) {
                        (one_step(&step, &std::mem::replace(&mut before, step.labels.clone())))
                    }
                }
            }
        }
    }
}

fn one_step(step: &Step<'_>, before: &Labels) -> Markup {
    let changed: Vec<_> = step.labels.iter().filter(|(name, value)| before.get(name) != Some(value)).collect();
    let removed: Vec<_> = before.iter().filter(|(name, _)| !step.labels.contains(name)).collect();
    html! {
        li class=(if step.keep { "kept" } else { "dropped" }) {
            code.rule { (super::parts::rule(step.rule)) }
            @if !step.keep {
                @if before.is_empty() { p.muted { "not reached" } } @else { p { (chip("bad", "dropped here")) } }
            } @else if changed.is_empty() && removed.is_empty() {
                p.muted { "changes nothing" }
            } @else {
                ul.changes {
                    @for (name, value) in changed {
                        li {
                            code { (clean(name)) } " = " code { (clean(value)) }
                            @if let Some(was) = before.get(name) { span.muted { " was " code { (clean(was)) } } }
                        }
                    }
                    @for (name, _) in removed { li { code { (clean(name)) } " is removed" } }
                }
            }
        }
    }
}

/// The commands that look closer.
fn by_hand(look: &Look, pool: &PoolSnapshot, TargetSnapshot { target, .. }: &TargetSnapshot) -> Markup {
    let flags = &look.process.flags;
    let api = flags.iter().find(|(name, _)| name == "api-listen").map_or(DEFAULT_API, |(_, value)| value);
    html! {
        section aria-labelledby="by-hand" {
            h2 #by-hand { "Look closer" }
            @if let Some(command) = scrape_command(target, api) { p { (copyable(&command)) } }
            p { (copyable(&targets_command(&pool.pool, api))) }
            p {
                "One scrape now, apart from its own beat: "
                (copyable(&format!("curl -X POST -H 'X-Meshscrape: scrape' 'http://{api}/api/v1/targets/{}/scrape'", target.id)))
            }
        }
    }
}

/// The command that scrapes the pod as this target is scraped: on its port, through this agent's API where that is.
fn scrape_command(target: &Target, api: &str) -> Option<String> {
    let (namespace, pod) = target.pod.as_ref()?.name.split_once('/')?;
    let port = target.address.port().unwrap_or(match target.scheme {
        Scheme::Http => 80,
        Scheme::Https => 443,
    });
    let agent_port = |address: &str| address.rsplit_once(':').map(|(_, port)| port.to_owned());
    let at = match agent_port(api).filter(|port| agent_port(DEFAULT_API).as_ref() != Some(port)) {
        Some(port) => format!(" --agent-port {port}"),
        None => String::new(),
    };
    Some(format!("meshscrape scrape pod/{} -n {} --port {port}{at}", clean(pod), clean(namespace)))
}

/// The command that lists the targets of a job, asking the API where it is.
fn targets_command(job: &str, api: &str) -> String {
    let url = if api == DEFAULT_API { String::new() } else { format!(" --url http://{api}") };
    format!("meshscrape targets --job {} --labels{url}", quoted(job))
}

/// A word that a shell takes as one.
fn quoted(text: &str) -> String {
    format!("'{}'", clean(text).replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::testing::target;
    use super::*;
    use crate::model::Pod;

    #[test]
    fn commands_ask_what_the_page_speaks_of() {
        let pod = Pod {
            name: "shop/cart-0".into(),
            uid: "1".into(),
            ip: None,
            created: 0,
            host_network: false,
            finished: false,
            terminating: false,
        };
        let of = |address, api| scrape_command(&Target { pod: Some(Arc::new(pod.clone())), ..target(address) }, api);
        let command = |port| Some(format!("meshscrape scrape pod/cart-0 -n shop --port {port}"));
        assert_eq!(of("10.0.0.1:15091", DEFAULT_API), command("15091"));
        assert_eq!(of("10.0.0.1", DEFAULT_API), command("443"));
        assert_eq!(of("10.0.0.1:15091", "[::1]:9555"), command("15091 --agent-port 9555"));
        assert_eq!(scrape_command(&target("10.0.0.1:15091"), DEFAULT_API), None);
        assert_eq!(targets_command("a b", DEFAULT_API), "meshscrape targets --job 'a b' --labels");
        assert_eq!(
            targets_command("shop", "[::1]:9555"),
            "meshscrape targets --job 'shop' --labels --url http://[::1]:9555"
        );
    }
}
