//! The listing as text for people: a heading a job, a line a target, and below it what is wrong and what to look at.
//!
//! Lines fit the terminal; where there is none they are as long as they are, for other programs to search.

use std::fmt::Write;

use super::listing::{Active, Dropped, Job, Listing};
use crate::cli::agent_api::WaitingPod;
use crate::cli::style::{Paint, shortened, wrapped};
use crate::model::{clean, clean_to};

/// No column is cut to less.
const LEAST: usize = 12;

/// The whole listing; `width` is that of the terminal, if it goes to one.
pub(super) fn text(listing: &Listing, labels: bool, width: Option<usize>, paint: Paint) -> String {
    let mut page = Page { out: String::new(), width, paint, labels, scraped: listing.scraped };
    for (at, job) in listing.jobs.iter().enumerate() {
        if at > 0 {
            page.out.push('\n');
        }
        page.job(job);
    }
    if listing.jobs.is_empty() {
        page.out.push_str("there are no jobs\n");
    }
    for WaitingPod { pod, why } in &listing.waiting_pods {
        let text = format!("pod {}: {}", clean(pod), clean(why));
        page.note(0, &Note { lead: "waiting:".to_owned(), bad: false, text });
    }
    if listing.waiting_pods_omitted > 0 {
        let text = match listing.waiting_pods.is_empty() {
            true => {
                format!("{} that can be no target yet (see --state dropped)", pods(listing.waiting_pods_omitted))
            }
            false => format!("at least {} besides", pods(listing.waiting_pods_omitted)),
        };
        page.note(0, &Note { lead: "waiting:".to_owned(), bad: false, text });
    }
    let lead = if listing.scraped { "agent:" } else { "source:" };
    for problem in &listing.problems {
        page.note(0, &Note { lead: lead.to_owned(), bad: true, text: clean_to(problem, 1024).into_owned() });
    }
    if !listing.complete {
        let missing = "not every source of targets has answered in time: what is not listed may exist all the same";
        page.note(0, &Note { lead: "incomplete:".to_owned(), bad: true, text: missing.to_owned() });
    }
    page.out
}

fn pods(count: usize) -> String {
    if count == 1 { "1 pod".to_owned() } else { format!("{count} pods") }
}

/// One line of a job's table.
struct Row<'l> {
    state: String,
    bad: bool,
    target: String,
    pod: String,
    identity: String,
    /// What is wrong, and what to look at.
    notes: Vec<Note>,
    /// Labels before and, of an active target, after relabelling.
    labels: Vec<(&'static str, Vec<(&'l str, &'l str)>)>,
}

/// A text that may be long, and the word before it that says what it is.
struct Note {
    lead: String,
    bad: bool,
    text: String,
}

struct Page {
    out: String,
    width: Option<usize>,
    paint: Paint,
    labels: bool,
    scraped: bool,
}

impl Page {
    fn job(&mut self, job: &Job) {
        let heading = format!("{}  {}", self.paint.bold(clean(&job.job)), self.summary(job));
        let _ = writeln!(self.out, "{heading}");
        let active = job.targets.iter().map(|target| self.active(target));
        let rows: Vec<Row<'_>> = active.chain(job.dropped_targets.iter().map(dropped)).collect();
        if !rows.is_empty() {
            self.rows(&rows);
        }
        for by in &job.dropped_by_rule {
            let rule = clean_to(&by.text, 1024);
            let text = format!("dropped by relabel rule {}: {rule}", by.rule);
            self.note(2, &Note { lead: by.count.to_string(), bad: false, text });
        }
        if job.forgotten > 0 {
            let text = "more dropped, and not remembered why (keep_dropped_targets)".to_owned();
            self.note(2, &Note { lead: job.forgotten.to_string(), bad: false, text });
        }
    }

    fn summary(&self, job: &Job) -> String {
        let all = job.up + job.down + job.unknown;
        let mut text = match all {
            0 => "no targets".to_owned(),
            1 => "1 target".to_owned(),
            _ => format!("{all} targets"),
        };
        let counts = match self.scraped {
            true => vec![(job.up, "up"), (job.down, "down"), (job.unknown, "not scraped yet")],
            false => vec![(job.down, "that may not be connected")],
        };
        let counts: Vec<_> =
            counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
        if !counts.is_empty() {
            let _ = write!(text, ": {}", counts.join(", "));
        }
        if job.dropped > 0 {
            let _ = write!(text, "; {} dropped", job.dropped);
        }
        text
    }

    fn active<'l>(&self, target: &'l Active) -> Row<'l> {
        let state = match (self.scraped, target.health.as_str()) {
            (true, health) => clean(health).into_owned(),
            (false, "down") => "refused".to_owned(),
            (false, _) => "found".to_owned(),
        };
        let mut notes = Vec::new();
        if !target.detail.is_empty() {
            let reason = if target.reason.is_empty() { "error" } else { &target.reason };
            let lead = format!("{}:", clean(reason));
            notes.push(Note { lead, bad: true, text: clean_to(&target.detail, 1024).into_owned() });
        }
        if !target.hint.is_empty() {
            let text = clean_to(&target.hint, 1024).into_owned();
            notes.push(Note { lead: "hint:".to_owned(), bad: false, text });
        }
        Row {
            state,
            bad: target.health == "down",
            target: clean(&target.url).into_owned(),
            pod: pod(&target.namespace, &target.pod),
            identity: clean(&target.expected_identity).into_owned(),
            notes,
            labels: vec![("before", pairs(&target.discovered_labels)), ("after", pairs(&target.labels))],
        }
    }

    fn rows(&mut self, rows: &[Row<'_>]) {
        let heads = ["STATE", "TARGET", "POD", "IDENTITY"];
        let cells: Vec<[&str; 4]> =
            rows.iter().map(|row| [&*row.state, &row.target, &row.pod, &row.identity].map(|cell| cell)).collect();
        let widths = self.widths(&heads, &cells);
        // Below the second column stands what else is said of a target.
        let indent = 2 + widths[0] + 2;
        let line = |cells: &[&str; 4], state: &dyn Fn(String) -> String| {
            let mut line = String::from(" ");
            for (column, (cell, &width)) in cells.iter().zip(&widths).enumerate().filter(|(_, (_, width))| **width > 0)
            {
                // Of an identity or a pod the end tells it from others, of a URL the beginning.
                let cell = if column < 2 { shortened(cell, width) } else { shortened_before(cell, width) };
                let padded = format!("{cell:<width$}");
                let _ = write!(line, " {}", if column == 0 { state(padded) } else { format!(" {padded}") });
            }
            line.truncate(line.trim_end().len());
            line
        };
        let _ = writeln!(self.out, "{}", line(&heads, &|text| text));
        for (row, cells) in rows.iter().zip(&cells) {
            let paint = self.paint;
            let state = move |text: String| if row.bad { paint.bad(text) } else { paint.good(text) };
            let _ = writeln!(self.out, "{}", line(cells, &state));
            for note in &row.notes {
                self.note(indent, note);
            }
            if self.labels {
                self.labels_of(indent, row);
            }
        }
    }

    /// The width of each column: what it needs, or less of the widest where the terminal has no room. A column of which
    /// nothing is known is left out.
    fn widths(&self, heads: &[&str; 4], cells: &[[&str; 4]]) -> [usize; 4] {
        let mut widths = [0; 4];
        for (column, width) in widths.iter_mut().enumerate() {
            let widest = cells.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
            *width = if widest == 0 { 0 } else { widest.max(heads[column].len()) };
        }
        let Some(room) = self.width else { return widths };
        let used =
            |widths: &[usize; 4]| widths.iter().filter(|width| **width > 0).map(|width| width + 2).sum::<usize>();
        while used(&widths) > room {
            match widths[1..].iter_mut().max_by_key(|width| **width) {
                Some(widest) if *widest > LEAST => *widest -= 1,
                _ => break,
            }
        }
        widths
    }

    fn labels_of(&mut self, indent: usize, row: &Row<'_>) {
        for (what, labels) in &row.labels {
            for (at, (name, value)) in labels.iter().enumerate() {
                let what = if at == 0 { what } else { "" };
                let _ = writeln!(self.out, "{:indent$}{what:<7} {}={:?}", "", clean(name), clean(value));
            }
        }
    }

    /// Indented, and broken between words where there is a terminal.
    fn note(&mut self, indent: usize, Note { lead, bad, text }: &Note) {
        let whole = format!("{lead} {text}");
        let mut lines = match self.width {
            None => vec![whole],
            Some(width) => wrapped(&whole, width.saturating_sub(indent).max(LEAST)),
        };
        let painted = if *bad { self.paint.bad(lead) } else { self.paint.bold(lead) };
        lines[0] = lines[0].replacen(lead, &painted, 1);
        for line in lines {
            let _ = writeln!(self.out, "{:indent$}{line}", "");
        }
    }
}

fn dropped(target: &Dropped) -> Row<'_> {
    let (state, bad, lead, text) = match (&target.error, target.by_rule) {
        (Some(error), _) => ("invalid", true, "error:", clean_to(error, 1024).into_owned()),
        (None, Some(rule)) => ("dropped", false, "by", format!("relabel rule {rule}")),
        (None, None) => ("dropped", false, "by", "a relabel rule".to_owned()),
    };
    Row {
        state: state.to_owned(),
        bad,
        target: clean(&target.address).into_owned(),
        pod: pod(&target.namespace, &target.pod),
        identity: String::new(),
        notes: vec![Note { lead: lead.to_owned(), bad, text }],
        labels: vec![("before", pairs(&target.discovered_labels))],
    }
}

fn pairs(labels: &std::collections::BTreeMap<String, String>) -> Vec<(&str, &str)> {
    labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

fn pod(namespace: &str, name: &str) -> String {
    match (namespace, name) {
        (_, "") => String::new(),
        ("", name) => clean(name).into_owned(),
        (namespace, name) => format!("{}/{}", clean(namespace), clean(name)),
    }
}

/// `text` in at most `width` characters, cut at its beginning.
fn shortened_before(text: &str, width: usize) -> String {
    let length = text.chars().count();
    if length <= width {
        return text.to_owned();
    }
    let end: String = text.chars().skip(length - width.saturating_sub(1)).collect();
    format!("…{end}")
}

#[cfg(test)]
mod tests {
    use super::super::listing::State;
    use super::super::listing::tests::told;
    use super::*;

    fn page(state: Option<State>, labels: bool, width: Option<usize>) -> String {
        let mut listing = Listing::of(told());
        listing.choose(state);
        text(&listing, labels, width, Paint::none())
    }

    #[test]
    fn a_job_shows_its_targets_what_is_wrong_with_them_and_what_is_dropped() {
        assert_eq!(
            page(None, false, None),
            "\
empty  no targets

mesh  2 targets: 1 up, 1 down; 7 dropped
  STATE    TARGET                                    POD              IDENTITY
  down     https://10.0.0.18:15092/stats/prometheus  shop/payments-1  spiffe://cluster.local/ns/shop/sa/payments
           identity_mismatch: expected A, but B answered
           hint: another workload answers on this address
  up       https://10.0.0.17:15092/stats/prometheus  shop/cart-1      spiffe://cluster.local/ns/shop/sa/cart
  invalid  x@evil:443                                web/b
           error: '@' may not stand in an address
  1 dropped by relabel rule 1: {action: drop}
  2 dropped by relabel rule 2: {action: keep, regex: 'true'}
  3 more dropped, and not remembered why (keep_dropped_targets)

plain  1 target: 1 not scraped yet
  STATE    TARGET
  unknown  http://node:9100/metrics
"
        );
    }

    #[test]
    fn labels_are_shown_before_and_after_relabelling() {
        let page = page(Some(State::Any), true, None);
        for part in [
            "           before  __address__=\"10.0.0.17:15092\"\n                   __meta_kubernetes_namespace=\"shop\"\n",
            "           after   instance=\"10.0.0.17:15092\"\n                   namespace=\"shop\"\n",
            "  dropped  10.0.0.19:80                              web/a\n           by relabel rule 2\n           before  __address__=\"10.0.0.19:80\"\n",
        ] {
            assert!(page.contains(part), "{part:?} is missing in\n{page}");
        }
    }

    #[test]
    fn lines_fit_the_terminal_and_keep_what_tells_targets_apart() {
        for width in [60, 80, 100] {
            let page = page(None, false, Some(width));
            for line in page.lines() {
                assert!(line.chars().count() <= width, "{width}: {line}");
            }
            assert!(page.contains("sa/payments\n") && page.contains("https://10.0"), "{page}");
        }
    }

    #[test]
    fn what_was_only_discovered_is_not_called_unknown() {
        let listing = Listing::found(told(), vec!["targets.yaml: \x1b[2J".to_owned()], false);
        let page = text(&listing, false, None, Paint::none());
        assert!(page.contains("mesh  2 targets: 1 that may not be connected; 7 dropped\n"), "{page}");
        assert!(page.contains("\n  refused  https://10.0.0.18"), "{page}");
        assert!(page.contains("\n  found    https://10.0.0.17"), "{page}");
        assert!(page.contains("\nsource: targets.yaml: \\u{1b}[2J\nincomplete: not every source"), "{page}");
    }

    #[test]
    fn nothing_that_a_target_says_steers_the_terminal() {
        let mut told = told();
        let evil = "\x1b]0;x\x07\n\u{202e}";
        for target in &mut told.active_targets {
            for text in [&mut target.scrape_url, &mut target.last_error, &mut target.hint, &mut target.health] {
                text.push_str(evil);
            }
            target.labels.insert(evil.to_owned(), evil.to_owned());
            target.scrape_pool = format!("mesh{evil}");
        }
        for target in &mut told.dropped_targets {
            target.rule = Some(evil.to_owned());
            target.discovered_labels.insert("__address__".to_owned(), evil.to_owned());
            target.discovered_labels.insert("__meta_kubernetes_pod_name".to_owned(), evil.to_owned());
        }
        let page = text(&Listing::of(told), true, None, Paint::none());
        assert!(!page.contains(['\x1b', '\x07', '\u{202e}']), "{page:?}");
    }
}
