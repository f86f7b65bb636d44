//! The receivers: whether they take what is scraped, how far behind they are, and what they said last.

use std::time::SystemTime;

use maud::{Markup, html};

use super::layout::{Here, Page};
use super::look::Look;
use super::parts::{chip, code, moment, moment_in_full, nothing};
use super::query::Query;
use super::words::{bytes, count, span};
use crate::model::{WriteFormat, clean};
use crate::send::ReceiverSnapshot;

pub(super) fn page(look: &Look, _: &Query) -> Page {
    let body = html! {
        h1 { "Remote write" }
        @if look.receivers.is_empty() {
            (nothing("No remote_write is configured: targets are scraped and nothing is forwarded."))
        }
        @for (number, receiver) in look.receivers.iter().enumerate() { (one(number, receiver, look.now)) }
    };
    Page { here: Here::RemoteWrite, title: "Remote write".to_owned(), body }
}

fn one(number: usize, receiver: &ReceiverSnapshot, now: SystemTime) -> Markup {
    let heading = format!("receiver-{number}");
    let queue = &receiver.queue;
    html! {
        section.receiver aria-labelledby=(heading) {
            h2 id=(heading) { (clean(&receiver.name)) " " (state(receiver)) }
            p { (code(&receiver.url)) }
            @if let Some((since, trouble)) = &receiver.trouble {
                div.finding.bad {
                    p { (trouble) }
                    p.muted { "Since " (moment_in_full(*since, now)) ". It is asked again and again; nothing is lost as long as there is room." }
                }
            }
            dl.numbers {
                div { dt { "Behind" } dd { (span(receiver.lag)) } }
                div { dt { "Takes" } dd { (count(receiver.samples_per_second as u64)) span.muted { " samples/s" } } }
                div { dt { "Waiting" } dd { (count(queue.pending_samples)) span.muted { " samples" } } }
                div { dt { "Delivered" } dd { (count(receiver.delivered_samples)) span.muted { " samples" } } }
                div { dt { "Rejected" } dd { (count(receiver.rejected_samples)) } }
                div { dt { "Lost" } dd { (count(queue.dropped_samples + receiver.too_old_samples)) } }
            }
            dl.facts {
                div { dt { "Message" } dd { (message(receiver.message)) } }
                div { dt { "Last delivery" } dd { @if let Some(at) = receiver.last_delivery { (moment_in_full(at, now)) } @else { span.muted { "none yet" } } } }
                div { dt { "Queue" } dd { (count(queue.pending_blocks)) " blocks, " (kept(receiver)) } }
                div {
                    dt { "In memory" }
                    dd { (room(queue.waiting_bytes, queue.capacity_bytes, "How full the memory of the queue is")) }
                }
                div {
                    dt { "On disk" }
                    dd {
                        @match queue.disk {
                            Some(disk) => {
                                (room(disk.bytes, disk.capacity_bytes, "How full the files of the queue are"))
                                @if !disk.works { " " (chip("bad", "not written now")) }
                            }
                            None => span.muted { "nothing: the agent runs without --data-dir" },
                        }
                    }
                }
                div {
                    dt { "Lost by" }
                    dd { (count(queue.dropped_samples)) " samples by want of room or by age in the queue, " (count(receiver.too_old_samples)) " older than sample_age_limit" @if let Some(ago) = receiver.since_loss { ", the last " (span(ago)) " ago" } }
                }
            }
            h3 { "Last refusal" }
            @if let Some(refusal) = &receiver.last_refusal {
                p { (moment(refusal.at, now)) ", status " (refusal.status) ", " (count(refusal.samples)) " samples were in the request:" }
                blockquote { (clean(&refusal.words)) }
            } @else {
                (nothing("It has rejected nothing."))
            }
        }
    }
}

fn state(receiver: &ReceiverSnapshot) -> Markup {
    let refused = receiver.last_refusal.as_ref().map(|refusal| refusal.at);
    match (&receiver.trouble, receiver.last_delivery) {
        (Some(_), _) => chip("bad", "takes nothing"),
        (None, delivered) if refused.is_some() && refused >= delivered => chip("bad", "rejects samples"),
        (None, Some(_)) => chip("good", "takes samples"),
        (None, None) => chip("idle", "nothing sent yet"),
    }
}

fn message(format: WriteFormat) -> &'static str {
    match format {
        WriteFormat::V1 => "remote write 1.0",
        WriteFormat::V2 => "remote write 2.0, or 1.0 while the receiver does not know it",
    }
}

fn kept(receiver: &ReceiverSnapshot) -> String {
    let queue = &receiver.queue;
    match (queue.pending_blocks, queue.kept_blocks) {
        (0, _) => "all delivered".to_owned(),
        (all, kept) if kept >= all => "all of them on disk".to_owned(),
        (_, 0) => "in memory only".to_owned(),
        (_, kept) => format!("{} of them on disk", count(kept)),
    }
}

/// So many bytes of as many as there may be.
fn room(used: u64, all: u64, what: &str) -> Markup {
    let percent = used.saturating_mul(100).checked_div(all).unwrap_or(0).min(100);
    html! {
        (bytes(used)) " of " (bytes(all)) " "
        meter min="0" max="100" low="50" high="80" optimum="0" value=(percent) aria-label=(what) { (percent) "%" }
    }
}
