//! An audit as text for people: the worst first, one entry for all pods of a workload that have the same trouble, and below
//! it what to change. Lines fit the terminal, but a fix is never broken: it is there to be copied.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use super::report::{Audit, Audited, Found, Summary};
use super::rule::{Rule, Severity};
use crate::cli::exposure::ENOUGH;
use crate::cli::style::{Paint, wrapped};

/// Where texts begin below the line that names the pod.
const INDENT: usize = 9;

/// Findings that are one to a person: the same rule, of the same workload or pod, for the same reason.
type Key<'a> = (Reverse<Severity>, &'static str, &'a str, &'a str, Option<&'static str>);

/// The whole of it; `width` is that of the terminal, if it goes to one.
pub(super) fn text(audit: &Audit, width: Option<usize>, paint: Paint) -> String {
    let mut groups: BTreeMap<Key<'_>, Vec<(&Audited, &Found)>> = BTreeMap::new();
    for pod in &audit.pods {
        let who = pod.workload.as_deref().unwrap_or(&pod.name);
        // Of ports that were given up the summary speaks, once for all pods.
        let told = |found: &&Found| found.rule != Rule::NotAsked || !given_up(audit, found);
        for found in pod.findings.iter().filter(told) {
            let key = (Reverse(found.severity), found.id, &*pod.namespace, who, found.reason);
            groups.entry(key).or_default().push((pod, found));
        }
    }
    let mut out = String::new();
    for members in groups.values() {
        entry(&mut out, members, width, paint);
    }
    if !groups.is_empty() {
        out.push('\n');
    }
    summary(&mut out, audit, paint);
    out
}

fn given_up(audit: &Audit, found: &Found) -> bool {
    found.port.is_some_and(|port| audit.given_up.contains(&port))
}

fn entry(out: &mut String, members: &[(&Audited, &Found)], width: Option<usize>, paint: Paint) {
    let Some((pod, found)) = members.first() else { return };
    let severity = format!("{:<7}", found.severity);
    let severity = match found.severity {
        Severity::Error => paint.bad(severity),
        Severity::Warning => paint.bold(severity),
        Severity::Note => severity,
    };
    let pods: BTreeSet<&str> = members.iter().map(|(pod, _)| pod.name.as_str()).collect();
    let others = match (pods.len() - 1, &pod.workload) {
        (0, _) => String::new(),
        (more, Some(workload)) => format!(" and {more} more of {workload}"),
        (more, None) => format!(" and {more} more"),
    };
    let _ = writeln!(out, "{severity}  {}  {}/{}{others}", found.id, pod.namespace, pod.name);
    // Of the replicas the first speaks for all; it may have the same trouble on several ports.
    let own: Vec<&Found> =
        members.iter().filter(|(other, _)| other.name == pod.name).map(|(_, found)| *found).collect();
    for found in &own {
        let lines = match width {
            Some(width) => wrapped(&found.message, width.saturating_sub(INDENT).max(20)),
            None => vec![found.message.clone()],
        };
        for line in lines {
            let _ = writeln!(out, "{:INDENT$}{line}", "");
        }
    }
    let mut fixes: Vec<&str> = own.iter().map(|found| found.fix.as_str()).collect();
    fixes.dedup();
    for fix in fixes {
        let _ = writeln!(out, "{:INDENT$}{} {fix}", "", paint.bold("fix:"));
    }
}

fn summary(out: &mut String, audit: &Audit, paint: Paint) {
    let Summary { listed, meshed, secured, foreign, finished, leaving, errors, warnings, notes } = audit.summary;
    let secured = match (audit.connected && meshed > 0, secured == meshed) {
        // Nobody knows, or nobody is there.
        (false, _) => String::new(),
        (true, true) => paint.good(format!(", {secured} secured")),
        (true, false) => paint.bold(format!(", {secured} secured")),
    };
    let _ = writeln!(
        out,
        "{meshed} of {listed} pods are in the mesh{secured}; {}, {}, {}",
        counted(errors, "error"),
        counted(warnings, "warning"),
        counted(notes, "note"),
    );
    let left: Vec<_> = [(foreign, "outside the mesh"), (finished, "finished"), (leaving, "being deleted")]
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    if !left.is_empty() {
        let _ = writeln!(out, "left out: {}", left.join(", "));
    }
    if audit.pods.iter().flat_map(|pod| &pod.findings).any(|found| found.fix.contains("kubectl ")) {
        let _ = writeln!(out, "commands name the owner that the pod claims to have: look at it before you run one");
    }
    if !audit.connected {
        let _ = writeln!(out, "no port was asked (--no-connect): this is what the API server says");
    }
    for port in &audit.given_up {
        let unseen = audit.pods.iter().flat_map(|pod| &pod.findings);
        let pods = unseen.filter(|found| found.rule == Rule::NotAsked && found.port == Some(*port)).count();
        let _ = writeln!(
            out,
            "not seen (MS018): whether port {port} of {pods} pods gives metrics in plain text: {ENOUGH} of a namespace did not answer, \
             so no more of it were asked; a NetworkPolicy may keep this pod from it, as that of the agents does"
        );
    }
    if !audit.complete {
        let _ = writeln!(out, "{} the time limit was over before every pod was asked", paint.bad("incomplete:"));
    }
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
