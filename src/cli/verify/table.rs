//! A verification as text for people: a line a check, and below it what to do where it failed.

use std::fmt::Write;

use super::Verified;
use super::judge::{Outcome, Verdict};
use crate::cli::style::{Paint, wrapped};

/// The whole of it; `width` is that of the terminal, if it goes to one.
pub(super) fn text(verified: &Verified, width: Option<usize>, paint: Paint) -> String {
    let Verified { namespace, name, address, expected_identity, steps, .. } = verified;
    let mut out = String::new();
    let _ = writeln!(out, "{}  {address}  {expected_identity}", paint.bold(format!("pod {namespace}/{name}")));
    let checks = steps.iter().map(|step| step.check.chars().count()).max().unwrap_or(0);
    let indent = 2 + checks + 2 + 14 + 2;
    for step in steps {
        let verdict = match step.verdict {
            Verdict::Ok => paint.good(format!("{:<14}", "ok")),
            Verdict::Failed => paint.bad(format!("{:<14}", "failed")),
            Verdict::NotApplicable => format!("{:<14}", "not applicable"),
            Verdict::NotAsked => paint.bold(format!("{:<14}", "not asked")),
        };
        let seen = match width {
            Some(width) if width > indent + 30 => wrapped(&step.seen, width - indent),
            _ => vec![step.seen.clone()],
        };
        for (at, line) in seen.iter().enumerate() {
            let _ = match at {
                0 => writeln!(out, "  {:<checks$}  {verdict}  {line}", step.check),
                _ => writeln!(out, "{:indent$}{line}", ""),
            };
        }
        // Never broken: it may be there to be copied.
        if let Some(next) = &step.next {
            let _ = writeln!(out, "    {} {next}", paint.bold("next:"));
        }
    }
    let count = |verdict| steps.iter().filter(|step| step.verdict == verdict).count();
    let (good, bad) = (count(Verdict::Ok), count(Verdict::Failed));
    let bad = if bad == 0 { paint.good("0 failed") } else { paint.bad(format!("{bad} failed")) };
    let (idle, open) = (count(Verdict::NotApplicable), count(Verdict::NotAsked));
    let _ = writeln!(out, "{good} ok, {bad}, {idle} not applicable, {open} not asked");
    if verified.outcome == Outcome::Unproven {
        let _ = writeln!(out, "{} no secure port of the pod was asked", paint.bad("not verified:"));
    }
    out
}
