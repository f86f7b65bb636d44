//! How the process is asked to stop, and to read its configuration again (`reload`).
//!
//! The first SIGTERM or SIGINT asks for a clean end, the second for an end at once, because whoever sends it twice does
//! not want to wait. What "at once" means is decided where the process began: nothing here ends it.

mod reload;

pub use reload::{Asked, Outcome, Reload, reload, reload_on_signal};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// What others than signals may ask for.
#[derive(Clone, Debug)]
pub struct Control {
    /// Reads the configuration again.
    pub reload: Reload,
    /// Ends the process cleanly.
    pub stop: CancellationToken,
}

/// What the signals ask for.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    /// Cancelled by the first signal.
    pub asked: CancellationToken,
    /// Cancelled by the second.
    pub at_once: CancellationToken,
}

/// Listens for signals from now on.
///
/// # Errors
/// Where the operating system refuses to install a signal handler.
pub fn stop_on_signal() -> std::io::Result<Stop> {
    let stop = Stop::default();
    let told = stop.clone();
    let mut signals = Signals::install()?;
    tokio::spawn(async move {
        let name = signals.next().await;
        tracing::info!(signal = name, "stopping; a second signal ends the process at once");
        told.asked.cancel();
        let name = signals.next().await;
        tracing::warn!(signal = name, "ending at once: what was not delivered is lost");
        told.at_once.cancel();
    });
    Ok(stop)
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn install() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
