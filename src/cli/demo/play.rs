//! The run from the first directory to the verdict: who starts when, who is asked what, and what is shown meanwhile.
//!
//! Started from the far end (mesh, receiver, agent) and stopped from the near one: the agent stops scraping and delivers
//! what it has while mesh and receiver still stand.

use std::io::{self, IsTerminal, Stdout};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;

use super::certs::RootStage;
use super::configuration::configuration;
use super::mesh::Mesh;
use super::receiver::Receiver;
use super::scene::Scene;
use super::verdict::{Outcome, judge};
use super::view::{self, Line, Screen, Tone};
use super::{DemoArgs, DemoError, Output, api};
use crate::agent::{self, Agent};
use crate::cli::style::terminal_size;
use crate::clock::Clock;
use crate::{config, lifecycle};

/// How long a leaf lives; ten times the longest time between two rotations.
const LEAF_LIFETIME: Duration = Duration::from_secs(30);
/// How often the agent is asked and the table is drawn.
const GLANCE: Duration = Duration::from_millis(250);
/// How long the agent may go on delivering at the end.
const FLUSH: Duration = Duration::from_secs(5);
/// Nothing rotates in the last two seconds, so that the last scrape of everybody is one after the last rotation.
const CALM: Duration = Duration::from_secs(2);

/// Plays the demo and prints it; returns what came of it.
pub(super) async fn play(args: &DemoArgs) -> Result<Outcome, DemoError> {
    let stop = lifecycle::stop_on_signal().map_err(DemoError::Signals)?;
    let mut show = Show::new(args);
    let clock = Clock::system();
    let mut mesh = Mesh::start(LEAF_LIFETIME, clock.clone()).await?;
    let (url, receiver) = match &args.remote_write {
        Some(url) => (url.to_string(), None),
        None => {
            let receiver = Receiver::start().await.map_err(DemoError::Receiver)?;
            (receiver.url(), Some(receiver))
        }
    };
    let path = mesh.file("meshscrape.yaml");
    let text = configuration(&mesh, &url);
    tokio::fs::write(&path, &text).await.map_err(DemoError::Files)?;

    let agent = start_agent(&path, clock).await?;
    let looking = Looking { agent: agent.listen_addr(), api: agent.api_addr(), receiver: receiver.as_ref() };
    let mut scene = Scene::new(mesh.sidecars(), mesh.domain());
    let started = Instant::now();
    let period = period(args.length);
    show.opening(&mesh, &path, &text, period, looking.api)?;

    let (told, rotations) = watch::channel((0, RootStage::at(0)));
    tokio::select! {
        error = rotate(&mut mesh, started, period, args.length, told) => return Err(error),
        ended = follow(&mut show, &mut scene, &looking, rotations, started, args.length, &stop.asked) => ended?,
    }
    looking.look(&mut scene).await?;
    let seconds = started.elapsed().as_secs_f64();
    let stopped = stop.at_once.run_until_cancelled(agent.stop()).await.ok_or(DemoError::Interrupted)?;
    if let Some(receiver) = &receiver {
        scene.receive(receiver.ledger());
    }
    let outcome = judge(&scene, &url, seconds, stopped.undelivered);
    show.ending(&scene, &outcome)?;
    Ok(outcome)
}

/// Starts the agent as `run` does: from a file.
async fn start_agent(config: &Path, clock: Clock) -> Result<Agent, DemoError> {
    let loaded = config::load(config, &|name| std::env::var(name).ok());
    let config = loaded.config.map_err(|problems| {
        let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
        DemoError::Config(problems.join("; "))
    })?;
    let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let options = agent::Options {
        listen: loopback,
        api_listen: Some(loopback),
        mesh: None,
        clock,
        flush_deadline: FLUSH,
        data_dir: None,
        control: None,
        flags: Vec::new(),
    };
    Ok(agent::start(config, options).await?)
}

/// The time between two rotations: three seconds, less in a short run, so that the roots change in any run.
fn period(length: Duration) -> Duration {
    (length.saturating_sub(CALM) / 6).clamp(Duration::from_secs(1), Duration::from_secs(3))
}

/// Rotates every `period`, and tells; ends only if that fails.
async fn rotate(
    mesh: &mut Mesh,
    started: Instant,
    period: Duration,
    length: Duration,
    told: watch::Sender<(u32, RootStage)>,
) -> DemoError {
    let mut at = started + period;
    while at <= started + length - CALM {
        sleep_until(at).await;
        match mesh.rotate().await {
            Ok(stage) => told.send_replace((mesh.rotations(), stage)),
            Err(error) => return error,
        };
        at += period;
    }
    std::future::pending().await
}

/// Looks and shows until the time is over or somebody asks to stop.
async fn follow(
    show: &mut Show,
    scene: &mut Scene,
    looking: &Looking<'_>,
    mut rotations: watch::Receiver<(u32, RootStage)>,
    started: Instant,
    length: Duration,
    stop: &CancellationToken,
) -> Result<(), DemoError> {
    let end = started + length;
    let mut glance = interval(GLANCE);
    glance.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = glance.tick() => {}
            () = sleep_until(end) => return Ok(()),
            () = stop.cancelled() => return Ok(()),
        }
        if rotations.has_changed().unwrap_or(false) {
            (scene.rotations, scene.stage) = *rotations.borrow_and_update();
            show.rotation(scene, started.elapsed())?;
        }
        for change in looking.look(scene).await? {
            show.line(view::change(&change, started.elapsed()))?;
        }
        show.frame(scene, end.saturating_duration_since(Instant::now()))?;
    }
}

/// Where to look.
struct Looking<'a> {
    agent: SocketAddr,
    api: Option<SocketAddr>,
    receiver: Option<&'a Receiver>,
}

impl Looking<'_> {
    /// Brings the scene up to date.
    async fn look(&self, scene: &mut Scene) -> Result<Vec<super::scene::Change>, DemoError> {
        let api = self.api.ok_or_else(|| DemoError::Api(io::Error::from(io::ErrorKind::NotConnected)))?;
        let targets = api::targets(api).await.map_err(DemoError::Api)?;
        let changes = scene.observe(&targets, Instant::now());
        match self.receiver {
            Some(receiver) => scene.receive(receiver.ledger()),
            None => {
                let metrics = api::metrics(self.agent).await.map_err(DemoError::Api)?;
                scene.sent = Some(api::samples_delivered(&metrics));
            }
        }
        Ok(changes)
    }
}

/// How the run is shown.
struct Show {
    screen: Screen<Stdout>,
    mode: Mode,
}

/// What can be done with the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// A terminal: the table is redrawn in place.
    Live,
    /// No terminal, or one too low: a line for each change.
    Lines,
    /// A program reads: nothing until the end.
    Json,
}

impl Show {
    fn new(args: &DemoArgs) -> Self {
        let stdout = io::stdout();
        let plain = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let terminal = stdout.is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        // The table, a blank line, the footer, and the line that the cursor waits in.
        let high_enough = terminal_size().is_some_and(|(_, rows)| rows >= super::sidecar::CAST.len() + 4);
        let mode = match args.output {
            Output::Json => Mode::Json,
            Output::Table if terminal && high_enough => Mode::Live,
            Output::Table => Mode::Lines,
        };
        let colour = terminal && !args.no_color && !plain("NO_COLOR");
        Self { screen: Screen::new(stdout, colour), mode }
    }

    fn opening(
        &mut self,
        mesh: &Mesh,
        path: &Path,
        config: &str,
        period: Duration,
        api: Option<SocketAddr>,
    ) -> Result<(), DemoError> {
        let plain = |text: String| -> Line { vec![(text, Tone::Plain)] };
        let title = "A mesh in this process: six workloads, one of them an impostor and one without TLS.".to_owned();
        let mut lines = vec![
            vec![(title, Tone::Bold)],
            plain(format!(
                "Certificates: {}, rotated every {}s",
                mesh.agent_certs().display(),
                (10.0 * period.as_secs_f64()).round() / 10.0
            )),
        ];
        if let Some(api) = api {
            lines.push(plain(format!("The agent's API: http://{api}/api/v1/targets")));
        }
        lines.push(plain(format!("Its configuration: {}", path.display())));
        lines.extend(config.lines().map(|line| vec![(format!("    {line}"), Tone::Dim)]));
        lines.push(Line::new());
        self.print(&lines)
    }

    /// A line of the log; on a terminal the table says the same.
    fn line(&mut self, line: Line) -> Result<(), DemoError> {
        if self.mode == Mode::Lines { self.print(&[line]) } else { Ok(()) }
    }

    fn rotation(&mut self, scene: &Scene, at: Duration) -> Result<(), DemoError> {
        self.line(view::rotation(scene, at))
    }

    fn frame(&mut self, scene: &Scene, left: Duration) -> Result<(), DemoError> {
        if self.mode != Mode::Live {
            return Ok(());
        }
        let width = width();
        let mut lines = view::table(scene, Instant::now(), width);
        lines.push(Line::new());
        lines.push(view::footer(scene, left, width));
        self.screen.redraw(&lines).map_err(DemoError::Output)
    }

    fn ending(&mut self, scene: &Scene, outcome: &Outcome) -> Result<(), DemoError> {
        if self.mode == Mode::Json {
            let mut text = serde_json::to_string_pretty(outcome).map_err(io::Error::from).map_err(DemoError::Output)?;
            text.push('\n');
            return io::Write::write_all(&mut io::stdout(), text.as_bytes()).map_err(DemoError::Output);
        }
        self.frame(scene, Duration::ZERO)?;
        let mut lines = vec![Line::new()];
        lines.extend(view::summary(outcome, width()));
        self.print(&lines)
    }

    fn print(&mut self, lines: &[Line]) -> Result<(), DemoError> {
        if self.mode == Mode::Json { Ok(()) } else { self.screen.print(lines).map_err(DemoError::Output) }
    }
}

/// How wide lines may be; where nobody knows, what most logs and windows can take.
fn width() -> usize {
    terminal_size().map_or(100, |(columns, _)| columns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_roots_have_changed_at_the_end_of_any_run() {
        for seconds in [6, 8, 12, 20, 60, 3600] {
            let length = Duration::from_secs(seconds);
            let period = period(length);
            let rotations = ((length - CALM).as_nanos() / period.as_nanos()) as u32;
            assert_eq!(RootStage::at(rotations), RootStage::New, "{seconds}s: {rotations} rotations");
            assert!(LEAF_LIFETIME >= 10 * period);
        }
    }
}
