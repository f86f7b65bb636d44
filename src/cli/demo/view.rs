//! What a person sees: a table that is redrawn in place, or, where nobody can redraw, a line for each change; and the
//! summary at the end.
//!
//! Every line is made as plain text of a known width and coloured afterwards, so that colour never changes the layout.
//! The functions are pure; only [`Screen`] writes. Text from outside was cleaned where it came in ([`super::api`]).

use std::io::{self, Write};
use std::time::Duration;

use tokio::time::Instant;

use super::scene::{Change, Row, Scene, State};
use super::verdict::{Outcome, TargetOutcome};
use crate::cli::style::{shortened, wrapped};

/// What a line may look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    /// As it is.
    Plain,
    /// In the background: headings, explanations.
    Dim,
    /// What should stand out.
    Bold,
    /// As it should be.
    Good,
    /// Refused as it should be: worth a look.
    Notable,
    /// Not as it should be.
    Bad,
}

impl Tone {
    fn code(self) -> &'static str {
        match self {
            Tone::Plain => "",
            Tone::Dim => "2",
            Tone::Bold => "1",
            Tone::Good => "32",
            Tone::Notable => "33",
            Tone::Bad => "31",
        }
    }
}

/// A line in parts, each with its tone.
pub(super) type Line = Vec<(String, Tone)>;

/// How many characters `line` takes.
fn width_of(line: &Line) -> usize {
    line.iter().map(|(text, _)| text.chars().count()).sum()
}

/// `line` cut to `width` characters.
fn fit(line: Line, width: usize) -> Line {
    if width_of(&line) <= width {
        return line;
    }
    let mut left = width;
    let mut fitted = Line::new();
    for (text, tone) in line {
        let length = text.chars().count();
        if length >= left {
            fitted.push((shortened(&text, left), tone));
            break;
        }
        left -= length;
        fitted.push((text, tone));
    }
    fitted
}

/// The six workloads at `now`, in at most `width` characters a line.
pub(super) fn table(scene: &Scene, now: Instant, width: usize) -> Vec<Line> {
    let path = |row: &Row| row.expected.path().trim_start_matches('/').to_owned();
    let whole: Vec<_> = scene.rows.iter().map(|row| cells(row, now, row.expected.to_string())).collect();
    let short: Vec<_> = scene.rows.iter().map(|row| cells(row, now, path(row))).collect();
    let heads = ["TARGET", "IDENTITY", "STATE", "REASON", "SAMPLES", "LAST SCRAPE"];
    // The whole identity if there is room; else its path; else not the age of the last scrape either.
    let fits = |cells: &[Cells], columns| widths(&heads, cells, columns).iter().sum::<usize>() + 2 * columns <= width;
    let (cells, columns) = match () {
        () if fits(&whole, 6) => (whole, 6),
        () if fits(&short, 6) => (short, 6),
        () => (short, 5),
    };
    let widths = widths(&heads, &cells, columns);
    let head = heads.iter().map(|head| (*head).to_owned());
    let mut lines = vec![layout(head.map(|head| (head, Tone::Dim)).collect(), &widths)];
    lines.extend(cells.into_iter().map(|cells| layout(cells.into(), &widths)));
    lines.into_iter().map(|line| fit(line, width)).collect()
}

type Cells = [(String, Tone); 6];

fn cells(row: &Row, now: Instant, identity: String) -> Cells {
    let age = row.seen.map(|seen| format!("{:.1}s ago", now.saturating_duration_since(seen).as_secs_f64()));
    let tone = tone_of(row);
    [
        (row.role.name.to_owned(), Tone::Bold),
        (identity, Tone::Plain),
        (row.state.as_str().to_owned(), tone),
        (row.target.reason.clone(), tone),
        (grouped(row.delivered.unwrap_or(row.scraped)), Tone::Plain),
        (age.unwrap_or_else(|| "-".to_owned()), Tone::Dim),
    ]
}

fn tone_of(row: &Row) -> Tone {
    match (row.state, row.role.refusal()) {
        (State::Waiting, _) => Tone::Dim,
        (State::Up, None) => Tone::Good,
        (_, Some(reason)) if row.target.reason == reason.name() => Tone::Notable,
        _ => Tone::Bad,
    }
}

fn widths(heads: &[&str; 6], rows: &[Cells], columns: usize) -> Vec<usize> {
    let widest = |column: usize| rows.iter().map(|row| row[column].0.chars().count()).max().unwrap_or(0);
    (0..columns).map(|column| widest(column).max(heads[column].len())).collect()
}

/// Cells side by side, two blanks before each; numbers (the fifth column) to the right.
fn layout(cells: Vec<(String, Tone)>, widths: &[usize]) -> Line {
    let padded = cells.into_iter().zip(widths).enumerate().map(|(column, ((text, tone), &width))| {
        (if column == 4 { format!("  {text:>width$}") } else { format!("  {text:<width$}") }, tone)
    });
    padded.collect()
}

/// The line under the table, in at most `width` characters.
pub(super) fn footer(scene: &Scene, left: Duration, width: usize) -> Line {
    let mut parts = Vec::new();
    if !left.is_zero() {
        parts.push(format!("{}s to go", left.as_secs_f64().ceil()));
    }
    parts.push(format!("rotations {} (roots: {})", scene.rotations, scene.stage.trusted()));
    match (&scene.ledger, scene.sent) {
        (Some(ledger), _) => {
            parts.push(format!("delivered {} samples", grouped(ledger.samples)));
            parts.push(format!("impostor's series {}", ledger.marked));
        }
        (None, Some(sent)) => parts.push(format!("delivered {} samples", grouped(sent))),
        (None, None) => {}
    }
    fit(vec![(format!("  {}", parts.join(" · ")), Tone::Dim)], width)
}

/// A change as a line of a log, `at` after the start.
pub(super) fn change(change: &Change, at: Duration) -> Line {
    let tone = match change.state {
        State::Up => Tone::Good,
        State::Refused => Tone::Notable,
        State::Down => Tone::Bad,
        State::Waiting => Tone::Dim,
    };
    let mut line = vec![
        (stamp(at), Tone::Dim),
        (format!("{:<10}", change.name), Tone::Bold),
        (change.state.as_str().to_owned(), tone),
    ];
    if !change.detail.is_empty() {
        line.push((format!("  {}", change.detail), Tone::Plain));
    }
    line
}

/// A rotation as a line of a log, `at` after the start.
pub(super) fn rotation(scene: &Scene, at: Duration) -> Line {
    let text =
        format!("rotation {}: new keys and leaves for all, trusted roots: {}", scene.rotations, scene.stage.trusted());
    vec![(stamp(at), Tone::Dim), (text, Tone::Plain)]
}

fn stamp(at: Duration) -> String {
    format!("{:>6.1}s  ", at.as_secs_f64())
}

/// What is told at the end; long texts are broken at `width` characters.
pub(super) fn summary(outcome: &Outcome, width: usize) -> Vec<Line> {
    let mut lines = delivered(outcome);
    lines.push(Line::new());
    for (position, target) in outcome.targets.iter().filter(|target| target.must_be_refused).enumerate() {
        lines.extend(refused(target, if position == 0 { "Refused" } else { "" }, width));
    }
    lines.push(Line::new());
    let rotations = &outcome.rotations;
    let roots = if outcome.roots_changed() { "; the root changed old → old+new → new" } else { "" };
    let failed = rotations.failed_scrapes;
    lines.push(titled("Rotated", format!("{} times, new keys and leaves for all{roots}", rotations.count)));
    lines.push(titled("", format!("{failed} scrapes of good targets failed meanwhile")));
    lines.push(Line::new());
    for promise in &outcome.promises {
        let (mark, tone) = if promise.kept { ("ok    ", Tone::Good) } else { ("broken", Tone::Bad) };
        let mut line = vec![(format!("  {mark}  "), tone), (promise.promise.clone(), Tone::Plain)];
        if let Some(seen) = &promise.seen {
            line.push((format!(": {seen}"), Tone::Bad));
        }
        lines.push(line);
    }
    lines.push(Line::new());
    lines.push(verdict(outcome));
    lines
}

/// Where texts begin in the summary.
const INDENT: usize = 11;

fn titled(title: &str, text: String) -> Line {
    vec![(format!("{title:<INDENT$}"), Tone::Bold), (text, Tone::Plain)]
}

fn delivered(outcome: &Outcome) -> Vec<Line> {
    let total = &outcome.delivered;
    let requests = total.requests.map(|requests| format!(" in {requests} requests")).unwrap_or_default();
    let mut lines = vec![titled("Delivered", format!("{} samples{requests} to {}", grouped(total.samples), total.url))];
    for target in outcome.targets.iter().filter(|target| !target.must_be_refused) {
        let samples = target.samples.map(|samples| format!("{:>8} samples", grouped(samples))).unwrap_or_default();
        let scrapes = format!("{} scrapes, {} failed", target.scrapes, target.failed_scrapes);
        lines.push(titled("", format!("{:<10}{samples}  {scrapes}", target.name)));
    }
    let listed: Option<u64> = outcome.targets.iter().filter(|t| !t.must_be_refused).map(|t| t.samples).sum();
    if let Some(own) = listed.map(|listed| total.samples.saturating_sub(listed)).filter(|own| *own > 0) {
        let text = format!(
            "{:<10}{:>8} samples  up and its companions, of every scrape, refused ones too",
            "(ours)",
            grouped(own)
        );
        lines.push(titled("", text));
    }
    lines
}

fn refused(target: &TargetOutcome, title: &str, width: usize) -> Vec<Line> {
    let samples = target.samples.map(|samples| format!(", {samples} samples taken")).unwrap_or_default();
    let refused = format!("  {} of {} scrapes refused{samples}", target.failed_scrapes, target.scrapes);
    let mut first = titled(title, format!("{:<10}", target.name));
    first.push(match &target.reason {
        Some(reason) => (reason.clone(), Tone::Notable),
        None => ("not refused".to_owned(), Tone::Bad),
    });
    first.push((refused, Tone::Plain));
    let said = [
        Some(format!("expected: {}", target.expected_identity)),
        target.presented_identity.as_deref().map(|id| format!("answered: {id}")),
        target.hint.as_deref().map(|hint| format!("hint: {hint}")),
    ];
    let said = said.into_iter().flatten().flat_map(|text| wrapped(&text, width.saturating_sub(2 * INDENT)));
    let said = said.map(|text| vec![(format!("{:1$}{text}", "", 2 * INDENT - 1), Tone::Dim)]);
    std::iter::once(first).chain(said).collect()
}

fn verdict(outcome: &Outcome) -> Line {
    let broken = outcome.promises.iter().filter(|promise| !promise.kept).count();
    let (text, tone) = match (broken, outcome.delivered.marked_series) {
        (0, Some(_)) => ("Nothing was taken from anybody whose identity was not verified.".to_owned(), Tone::Good),
        // Nobody here has seen what arrived.
        (0, None) => ("Every promise was kept, as far as the agent itself tells.".to_owned(), Tone::Good),
        (_, _) => (format!("{broken} of {} promises were broken.", outcome.promises.len()), Tone::Bad),
    };
    vec![("Verdict    ".to_owned(), Tone::Bold), (text, tone)]
}

/// `1234567` as `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Where lines are written, and whether a frame can be drawn over the one before.
pub(super) struct Screen<W> {
    out: W,
    colour: bool,
    drawn: usize,
}

impl<W: Write> Screen<W> {
    /// Writes to `out`; `colour` only if it is a terminal.
    pub(super) fn new(out: W, colour: bool) -> Self {
        Self { out, colour, drawn: 0 }
    }

    /// Writes lines that stay; a frame that was drawn before stays above them.
    pub(super) fn print(&mut self, lines: &[Line]) -> io::Result<()> {
        self.drawn = 0;
        let text: String = lines.iter().map(|line| self.render(line) + "\n").collect();
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }

    /// Draws `lines` over the frame drawn before. A terminal is needed, at least as high as the frame.
    pub(super) fn redraw(&mut self, lines: &[Line]) -> io::Result<()> {
        // One write for a whole frame, and no wrapping meanwhile, so that a line is a row even if the terminal has just
        // become narrower.
        let mut frame = String::from("\x1b[?7l");
        if self.drawn > 0 {
            frame.push_str(&format!("\x1b[{}A\r", self.drawn));
        }
        for line in lines {
            frame.push_str(&self.render(line));
            frame.push_str("\x1b[K\n");
        }
        frame.push_str("\x1b[J\x1b[?7h");
        self.drawn = lines.len();
        self.out.write_all(frame.as_bytes())?;
        self.out.flush()
    }

    fn render(&self, line: &Line) -> String {
        let last = line.len().saturating_sub(1);
        let part = |(position, (text, tone)): (usize, &(String, Tone))| {
            let text = if position == last { text.trim_end() } else { text };
            match tone.code() {
                code if self.colour && !code.is_empty() => format!("\x1b[{code}m{text}\x1b[0m"),
                _ => text.to_owned(),
            }
        };
        line.iter().enumerate().map(part).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::verdict::{judge, tests::kept};
    use super::*;

    fn text(lines: &[Line]) -> Vec<String> {
        let mut out = Vec::new();
        Screen::new(&mut out, false).print(lines).expect("written");
        String::from_utf8(out).expect("utf-8").lines().map(str::to_owned).collect()
    }

    #[test]
    fn the_table_keeps_to_the_width_of_the_terminal() {
        let scene = kept();
        for width in [10, 40, 79, 80, 100, 120, 200] {
            for line in text(&table(&scene, Instant::now(), width)) {
                assert!(line.chars().count() <= width, "{width}: {line}");
            }
        }
        let wide = text(&table(&scene, Instant::now(), 160));
        assert!(wide[1].contains("spiffe://cluster.local/ns/shop/sa/cart"), "{wide:#?}");
        assert!(wide[5].contains("refused") && wide[5].contains("identity_mismatch"), "{wide:#?}");
        let narrow = text(&table(&scene, Instant::now(), 100));
        assert!(narrow[1].contains(" ns/shop/sa/cart ") && narrow[0].contains("SAMPLES"), "{narrow:#?}");
    }

    #[test]
    fn colour_is_only_written_where_it_was_asked_for() {
        let lines = table(&kept(), Instant::now(), 100);
        assert!(!text(&lines).concat().contains('\x1b'));
        let mut out = Vec::new();
        Screen::new(&mut out, true).print(&lines).expect("written");
        assert!(String::from_utf8(out).expect("utf-8").contains("\x1b[32m"));
    }

    #[test]
    fn a_frame_is_drawn_over_the_one_before() {
        let mut out = Vec::new();
        let mut screen = Screen::new(&mut out, false);
        let frame = |count| vec![vec![("row".to_owned(), Tone::Plain)]; count];
        screen.redraw(&frame(3)).expect("written");
        screen.redraw(&frame(2)).expect("written");
        screen.print(&frame(1)).expect("written");
        screen.redraw(&frame(1)).expect("written");
        let text = String::from_utf8(out).expect("utf-8");
        assert_eq!(text.matches("\x1b[3A").count(), 1, "the second frame starts where the first did: {text:?}");
        assert_eq!(text.matches('A').count(), 1, "what was printed is never drawn over: {text:?}");
    }

    #[test]
    fn the_summary_says_who_was_refused_and_why() {
        let lines = text(&summary(&judge(&kept(), "http://receiver", 20.0, 0), 100)).join("\n");
        for wanted in ["payments  identity_mismatch", "legacy    plaintext_server", "hint: look", "old → old+new → new"]
        {
            assert!(lines.contains(wanted), "{wanted}: {lines}");
        }
        assert!(lines.contains("Nothing was taken"), "{lines}");

        let mut scene = kept();
        scene.rotations = 0;
        let lines = text(&summary(&judge(&scene, "http://receiver", 20.0, 0), 100)).join("\n");
        assert!(lines.contains("broken  certificates") && lines.contains("1 of 7 promises"), "{lines}");
    }

    #[test]
    fn what_was_not_watched_is_not_claimed() {
        let mut scene = kept();
        (scene.ledger, scene.sent) = (None, Some(400));
        let lines = text(&summary(&judge(&scene, "http://receiver", 20.0, 0), 100)).join("\n");
        assert!(lines.contains("as far as the agent itself tells") && !lines.contains("Nothing was taken"), "{lines}");
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}
