//! The small parts that views are made of.

use std::time::SystemTime;

use maud::{Markup, html};

use super::findings::LACKING;
use super::words::{relative, utc};
use crate::model::{Labels, Target, clean, clean_to};
use crate::relabel::Rule;
use crate::status::health::{Health, State};

/// How bad something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Severity {
    /// Data is lost, missing or refused now.
    Bad,
    /// It will be, or may be.
    Warning,
    /// Worth knowing.
    Note,
}

impl Severity {
    pub(super) fn class(self) -> &'static str {
        match self {
            Severity::Bad => "bad",
            Severity::Warning => "warn",
            Severity::Note => "note",
        }
    }

    pub(super) fn word(self) -> &'static str {
        match self {
            Severity::Bad => "Wrong",
            Severity::Warning => "Warning",
            Severity::Note => "Note",
        }
    }
}

/// A word in the colour and with the sign of what it means; the style sheet draws the sign.
pub(super) fn chip(class: &str, word: &str) -> Markup {
    html! { span class={ "chip " (class) } { (word) } }
}

/// How bad something is.
pub(super) fn severity(severity: Severity) -> Markup {
    chip(severity.class(), severity.word())
}

/// The state of a target.
pub(super) fn state(health: &Health<'_>) -> Markup {
    match (health.state, health.lack) {
        (State::Up, Some(_)) => chip(LACKING.class(), "up, lacking"),
        (State::Up, None) => chip("good", "up"),
        (State::Down, _) => chip("bad", "down"),
        (State::Unknown, _) => chip("idle", "unknown"),
    }
}

/// A moment, as far from now as it is; the moment itself is one look away.
pub(super) fn moment(time: SystemTime, now: SystemTime) -> Markup {
    let exactly = utc(time);
    html! { time datetime=(exactly) title=(exactly) { (relative(time, now)) } }
}

/// The same with the moment beside it.
pub(super) fn moment_in_full(time: SystemTime, now: SystemTime) -> Markup {
    html! { (moment(time, now)) " " span.muted { (utc(time)) } }
}

/// A text to be copied, such as a command; the button is of use with a script only, and there with one only.
pub(super) fn copyable(text: &str) -> Markup {
    html! {
        span.copyable {
            code { (text) }
            button.copy type="button" data-copy=(text) { "Copy" }
        }
    }
}

/// An identity, or whatever else is written in one piece.
pub(super) fn code(text: &str) -> Markup {
    html! { @if text.is_empty() { span.muted { "none" } } @else { code { (clean(text)) } } }
}

/// An identity, which may be broken into lines behind each of its parts.
pub(super) fn id(text: &str) -> Markup {
    let text = clean(text);
    html! { code { @for part in text.split_inclusive('/') { (part) wbr; } } }
}

/// Labels by name.
pub(super) fn labels(caption: &str, labels: &Labels) -> Markup {
    html! {
        table.labels {
            caption { (caption) }
            thead { tr { th scope="col" { "Label" } th scope="col" { "Value" } } }
            tbody {
                @for (name, value) in labels.iter() {
                    tr { th scope="row" { code { (clean(name)) } } td { code { (clean(value)) } } }
                }
            }
        }
    }
}

/// What stands in place of an empty list.
pub(super) fn nothing(text: &str) -> Markup {
    html! { p.nothing { (text) } }
}

/// What people call a target: its pod, else its instance.
pub(super) fn name(target: &Target) -> String {
    pod(&target.discovered, &target.labels).unwrap_or_else(|| instance(target))
}

/// What Prometheus calls a target: its instance, else its address.
pub(super) fn instance(target: &Target) -> String {
    match target.labels.value("instance") {
        "" => clean(&target.address.to_string()).into_owned(),
        instance => clean(instance).into_owned(),
    }
}

/// The page of a target.
pub(super) fn target_url(target: &Target) -> String {
    format!("/targets/{}", target.id)
}

/// `namespace/name` of the pod behind labels: as discovery says, else as the target's labels do.
pub(super) fn pod(discovered: &Labels, labels: &Labels) -> Option<String> {
    let of = |meta, label| discovered.get(meta).or_else(|| labels.get(label)).unwrap_or_default();
    match (of("__meta_kubernetes_namespace", "namespace"), of("__meta_kubernetes_pod_name", "pod")) {
        (_, "") => None,
        ("", name) => Some(clean(name).into_owned()),
        (namespace, name) => Some(format!("{}/{}", clean(namespace), clean(name))),
    }
}

/// A relabel rule as it is written; longer than other foreign texts may be, because it is the operator's own.
pub(super) fn rule(rule: &Rule) -> String {
    clean_to(&rule.spec().to_string(), 1024).into_owned()
}
