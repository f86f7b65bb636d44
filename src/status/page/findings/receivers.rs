//! What is wrong with receivers and their queues.

use std::time::{Duration, SystemTime};

use super::super::look::Look;
use super::super::parts::Severity;
use super::super::words::{count, counted, relative, span};
use super::{Finding, finding};
use crate::model::clean;
use crate::send::{ReceiverSnapshot, TroubleKind};

/// A receiver that is further behind than this is behind.
const BEHIND: Duration = Duration::from_secs(120);
/// A refusal that is older than this is history.
const RECENT: Duration = Duration::from_secs(600);
/// So is a loss that is older than this: the window of its alert.
const LOSS: Duration = Duration::from_secs(300);
/// And damage of files, again as its alert has it.
const DAMAGE: Duration = Duration::from_secs(3600);
/// Where it is all shown.
const TO: (&str, &str) = ("/remote-write", "Remote write");

pub(super) fn add(look: &Look, all: &mut Vec<Finding>) {
    if look.receivers.is_empty() {
        let detail = "Targets are scraped and nothing is forwarded.".to_owned();
        let fix = "write remote_write into the configuration";
        all.push(finding(Severity::Note, "No remote_write is configured", detail, fix, TO));
    }
    for receiver in &look.receivers {
        let name = clean(&receiver.name).into_owned();
        delivery(receiver, &name, look.now, all);
        all.extend(refused(receiver, &name, look.now));
        all.extend(lost(receiver, &name));
        queue(receiver, &name, all);
    }
}

/// Whether it takes what is sent, and in time.
fn delivery(receiver: &ReceiverSnapshot, name: &str, now: SystemTime, all: &mut Vec<Finding>) {
    if let Some((since, trouble)) = &receiver.trouble {
        let waiting = counted(receiver.queue.pending_samples as usize, "sample");
        let detail = format!("{trouble}. {waiting} waiting; none is lost as long as there is room.");
        let since = span(now.duration_since(*since).unwrap_or_default());
        let title = format!("Receiver {name} takes nothing, since {since}");
        all.push(finding(Severity::Bad, &title, detail, cure(trouble.kind), TO));
    } else if receiver.lag > BEHIND {
        let title = format!("Receiver {name} is {} behind", span(receiver.lag));
        let detail = format!("It takes {} samples a second.", count(receiver.samples_per_second as u64));
        let fix = "look at its load, or raise queue_config.max_requests_in_flight";
        all.push(finding(Severity::Bad, &title, detail, fix, TO));
    }
}

/// What was dropped a moment ago; older losses are history, which its own view tells.
fn lost(receiver: &ReceiverSnapshot, name: &str) -> Option<Finding> {
    let ago = receiver.since_loss.filter(|ago| *ago < LOSS)?;
    let title = format!("Samples for receiver {name} are lost");
    let all = receiver.queue.dropped_samples + receiver.too_old_samples;
    let detail = format!(
        "The last {} ago, {} since the agent has started: its queue was full, or they were too old.",
        span(ago),
        count(all)
    );
    let fix = "raise queue_config.max_disk or max_memory to what an outage takes";
    Some(finding(Severity::Bad, &title, detail, fix, TO))
}

/// How its queue fares.
fn queue(receiver: &ReceiverSnapshot, name: &str, all: &mut Vec<Finding>) {
    let queue = &receiver.queue;
    let mut filling = |what: &str, used: u64, room: u64, fix: &str| {
        // More than half, as the alerts have it.
        if used.saturating_mul(2) > room && room > 0 {
            let percent = used.saturating_mul(100) / room;
            let title = format!("The {what} of the queue for receiver {name} is {percent}% full");
            let detail = "At 100% the oldest samples are dropped.".to_owned();
            all.push(finding(Severity::Warning, &title, detail, fix, TO));
        }
    };
    let fix = "see why the receiver is slow, or raise queue_config.max_memory";
    filling("memory", queue.waiting_bytes, queue.capacity_bytes, fix);
    let Some(disk) = queue.disk else { return };
    let fix = "see why the receiver is slow, or raise queue_config.max_disk";
    filling("disk", disk.bytes, disk.capacity_bytes, fix);
    if !disk.works {
        let title = format!("The queue for receiver {name} is not on disk");
        let detail = "What waits is in memory only, and lost if the agent is killed.".to_owned();
        let fix = "is the volume of --data-dir full, read-only, gone or broken? The log says what failed";
        all.push(finding(Severity::Bad, &title, detail, fix, TO));
    }
    if let Some(ago) = disk.since_damage.filter(|ago| *ago < DAMAGE) {
        let title = format!("Files of the queue for receiver {name} are damaged");
        let detail = format!("Found {} ago; what is whole is delivered, and the rest is lost.", span(ago));
        let fix = "look at the disk below --data-dir; the log names the files";
        all.push(finding(Severity::Warning, &title, detail, fix, TO));
    }
}

/// What to do about a receiver that takes nothing.
fn cure(kind: TroubleKind) -> &'static str {
    match kind {
        TroubleKind::NotReady => "look at the certificates and secrets that its entry in the configuration names",
        TroubleKind::Identity => {
            "somebody else answers at its URL, or its entry names the wrong server_ids, ca_file or server_name"
        }
        TroubleKind::Connect => "is it running, is its URL right, and does a NetworkPolicy let us through?",
        TroubleKind::Timeout => "it, or the way to it, is overloaded: look at its load, or raise remote_timeout",
        TroubleKind::Network => "something on the way ends the connection: look at proxies and at its log",
        TroubleKind::Redirect => "write the URL that it leads to into the configuration",
        TroubleKind::Status(_) => "it answers and cannot take samples now: look at its log and at its limits",
    }
}

fn refused(receiver: &ReceiverSnapshot, name: &str, now: SystemTime) -> Option<Finding> {
    let refusal = receiver.last_refusal.as_ref()?;
    let recent = now.duration_since(refusal.at).is_ok_and(|ago| ago < RECENT);
    recent.then(|| {
        let title = format!("Receiver {name} rejected {}", counted(refusal.samples as usize, "sample"));
        let detail = format!("{} {}: {}", relative(refusal.at, now), refusal.status, refusal.words);
        let fix = "they are gone; its words say which series, and the log names the target";
        finding(Severity::Bad, &title, detail, fix, TO)
    })
}
