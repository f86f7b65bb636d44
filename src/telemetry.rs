//! Logs: how they look and how much of them there is.
//!
//! Lines go to standard error, so that standard output stays free for data. Colour is used on terminals only. Whoever
//! logs foreign text passes it through [`crate::model::clean`] first. What cannot be written is lost, and nothing else is for it.

use std::io::IsTerminal;
use std::time::Duration;

use tokio::time::Instant;
use tracing_subscriber::EnvFilter;

/// The shape of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// The least important lines that are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogLevel {
    /// Only what is broken.
    Error,
    /// Also what is about to break.
    Warn,
    /// Also what changed.
    #[default]
    Info,
    /// Also why.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    fn as_str(self) -> &'static str {
        match self {
            LogLevel::Error => "error",
            LogLevel::Warn => "warn",
            LogLevel::Info => "info",
            LogLevel::Debug => "debug",
            LogLevel::Trace => "trace",
        }
    }
}

/// Installs the logger of this process; the libraries underneath speak only from `warn` upwards. A second call does
/// nothing, so that tests may run many agents in one process.
pub fn init(format: LogFormat, level: LogLevel) {
    // rustls says of each refused handshake, and kube of each refused request, what our own line says better.
    let quiet = "rustls=off,rustls_platform_verifier=off,kube_client=off";
    let filter = EnvFilter::new(format!("warn,{quiet},meshscrape={}", level.as_str()));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // That a line cannot be written it would say on standard error, and panic for that.
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal());
    let _ = match format {
        LogFormat::Text => lines.with_target(false).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).with_target(false).try_init(),
    };
}

/// Lets a repeated message through now and then and counts what it held back.
#[derive(Debug)]
pub struct Repeated {
    every: Duration,
    spoke: Option<Instant>,
    held_back: u64,
}

impl Repeated {
    /// At most one message in `every`.
    pub fn new(every: Duration) -> Self {
        Self { every, spoke: None, held_back: 0 }
    }

    /// Whether to speak now: `Some(n)` if so, with the number of messages held back since the last one.
    pub fn speak(&mut self) -> Option<u64> {
        let now = Instant::now();
        if self.spoke.is_some_and(|last| now.duration_since(last) < self.every) {
            self.held_back += 1;
            return None;
        }
        self.spoke = Some(now);
        Some(std::mem::take(&mut self.held_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn repeated_messages_are_held_back_and_counted() {
        let mut repeated = Repeated::new(Duration::from_secs(60));
        assert_eq!(repeated.speak(), Some(0));
        assert_eq!(repeated.speak(), None);
        assert_eq!(repeated.speak(), None);
        tokio::time::advance(Duration::from_secs(61)).await;
        assert_eq!(repeated.speak(), Some(2));
    }
}
