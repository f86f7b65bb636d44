//! Scrapes again and again, or twice, to see what changes.
//!
//! Nothing is kept but the scrape before. A scrape that fails is a line like any other: whoever watches wants to see it heal.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::{Instant, MissedTickBehavior};

use super::compare::Changes;
use super::report::{Report, duration};
use super::{Collector, Output, ScrapeArgs, Scraped, told};
use crate::cli::style::Paint;
use crate::clock::Clock;
use crate::lifecycle;
use crate::model::Failure;

/// Scrapes until interrupted, or for a difference alone twice; returns the exit code of the last scrape.
pub(super) async fn run(args: &ScrapeArgs, pause: Duration) -> u8 {
    let stop = match lifecycle::stop_on_signal() {
        Ok(stop) => stop.asked,
        Err(error) => {
            say!("meshscrape: cannot listen for signals: {error}");
            return 1;
        }
    };
    let clock = Clock::system();
    let mut beat = tokio::time::interval(pause);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut code, mut found, mut before) = (0, None, None::<(Instant, Collector)>);
    let mut any_seen = false;
    loop {
        tokio::select! {
            () = stop.cancelled() => return code,
            _ = beat.tick() => {}
        }
        let at = Instant::now();
        let scraped = tokio::select! {
            () = stop.cancelled() => return code,
            scraped = super::scrape(args, &mut found) => scraped,
        };
        let Scraped { report, collector } = match scraped {
            Ok(scraped) => scraped,
            Err(stop) => {
                code = told(&stop);
                // What cannot even begin will not begin by itself; what went on a moment ago may.
                if args.view.watch.is_none() || !any_seen {
                    return code;
                }
                continue;
            }
        };
        any_seen = true;
        code = report.exit_code();
        let good = report.failure.is_none();
        let (changes, lack) = match (&before, good) {
            (Some((then, before)), true) => {
                (Some(Changes::between(before, &collector, at - *then)), collector.lack_since(before))
            }
            (None, true) => (None, collector.lack()),
            (_, false) => (None, None),
        };
        let over = args.view.watch.is_none() && (!good || changes.is_some());
        let printed = match (args.view.watch, &changes) {
            // Of the first of two there is nothing to say, unless it is the last.
            (None, None) if good => Ok(()),
            (None, Some(changes)) if args.output != Output::Json => {
                let paint = Paint::for_stdout();
                let lack = lack.map(|lack| format!("{}\n", lacking(&lack, paint))).unwrap_or_default();
                write(&format!("{}{lack}", changes.text(io::stdout().is_terminal(), paint)))
            }
            _ => said(args, &clock, &report, &collector, changes.as_ref(), lack.as_ref()),
        };
        if let Err(error) = printed {
            return super::super::written(Err(error));
        }
        if over {
            return code;
        }
        if good {
            before = Some((at, collector));
        }
    }
}

/// One scrape in a line, with what it lacks though it succeeded, and what has changed where that was asked for.
fn said(
    args: &ScrapeArgs,
    clock: &Clock,
    report: &Report,
    collector: &Collector,
    changes: Option<&Changes>,
    lack: Option<&Failure>,
) -> io::Result<()> {
    let now = OffsetDateTime::from(clock.now()).replace_nanosecond(0).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let now = now.format(&Rfc3339).map_err(io::Error::other)?;
    if args.output == Output::Json {
        let mut document = report.document(collector, lack)?;
        document["time"] = now.into();
        document["changes"] = changes.map_or(Value::Null, Changes::json);
        return write(&format!("{document}\n"));
    }
    let paint = Paint::for_stdout();
    let whole = duration(Some(report.phases.total_ms));
    let mut text = match (&report.failure, changes) {
        (Some(failure), _) => format!("{now}  {}  {whole}  {}", paint.bad(&failure.reason), failure.detail),
        (None, None) => format!("{now}  {}  {whole}  {} samples", paint.good("scraped"), report.sample_count),
        (None, Some(changes)) => {
            format!("{now}  {}  {whole}  {} samples: {}", paint.good("scraped"), report.sample_count, changes.counts())
        }
    };
    if let Some(lack) = lack {
        text.push_str(&format!("  {}", lacking(lack, paint)));
    }
    text.push('\n');
    if args.view.diff.is_some()
        && let Some(changes) = changes
    {
        text.push_str(&changes.text(io::stdout().is_terminal(), paint));
    }
    write(&text)
}

/// What a scrape that succeeded lacks, in the words of one that failed.
fn lacking(lack: &Failure, paint: Paint) -> String {
    format!("{} {}", paint.bad(format!("{}:", lack.reason)), lack.detail)
}

/// Whoever watches through a pipe wants each line when it is there.
fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}
