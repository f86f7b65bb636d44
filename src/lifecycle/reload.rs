//! How the configuration is read again: asked for by anybody, done by one.
//!
//! Whoever asks gets the outcome of a reading that began after he asked. So those who ask while one is under way share the
//! next one, however many they are.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

/// How many may wait to be heard; more wait to ask.
const WAITING: usize = 64;

/// What became of it; if it failed, why.
pub type Outcome = Result<(), String>;

/// Asks for the configuration to be read again. Clones ask the same one.
#[derive(Clone, Debug)]
pub struct Reload(mpsc::Sender<oneshot::Sender<Outcome>>);

/// Hears who asks.
#[derive(Debug)]
pub struct Asked(mpsc::Receiver<oneshot::Sender<Outcome>>);

/// Those who wait for one outcome.
#[derive(Debug)]
#[must_use = "they wait"]
pub struct Waiting(Vec<oneshot::Sender<Outcome>>);

/// A way to ask, and the other end of it.
pub fn reload() -> (Reload, Asked) {
    let (sender, receiver) = mpsc::channel(WAITING);
    (Reload(sender), Asked(receiver))
}

impl Reload {
    /// Asks, and waits for the outcome.
    pub async fn ask(&self) -> Outcome {
        let over = |_| "the agent is stopping".to_owned();
        let (sender, outcome) = oneshot::channel();
        self.0.send(sender).await.map_err(|_| over(()))?;
        outcome.await.map_err(|_| over(()))?
    }
}

impl Asked {
    /// Waits until somebody asks, and takes along all who have asked by then. Never returns once nobody can ask.
    pub async fn next(&mut self) -> Waiting {
        let Some(first) = self.0.recv().await else { return std::future::pending().await };
        let mut waiting = vec![first];
        while let Ok(another) = self.0.try_recv() {
            waiting.push(another);
        }
        Waiting(waiting)
    }
}

impl Waiting {
    /// Tells them all.
    pub fn answer(self, outcome: &Outcome) {
        for waiting in self.0 {
            // Who has gone does not want to know.
            let _ = waiting.send(outcome.clone());
        }
    }
}

/// Asks at every SIGHUP from now on.
///
/// # Errors
/// Where the operating system refuses to install a signal handler.
pub fn reload_on_signal(reload: Reload) -> std::io::Result<()> {
    let mut hangups = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while hangups.recv().await.is_some() {
            tracing::info!(signal = "SIGHUP", "reading the configuration again");
            // The outcome is in the log already. Signals that come meanwhile are one.
            let _ = reload.ask().await;
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_asks_during_a_reading_shares_the_next_one() {
        let (reload, mut asked) = reload();
        let ask = || {
            tokio::spawn({
                let reload = reload.clone();
                async move { reload.ask().await }
            })
        };
        let first = ask();
        let reading = asked.next().await;
        let later: Vec<_> = (0..20).map(|_| ask()).collect();
        tokio::task::yield_now().await;
        reading.answer(&Err("no such file".to_owned()));
        assert_eq!(first.await.expect("no panic"), Err("no such file".to_owned()));
        asked.next().await.answer(&Ok(()));
        for one in later {
            assert_eq!(one.await.expect("no panic"), Ok(()));
        }
        drop(asked);
        assert_eq!(ask().await.expect("no panic"), Err("the agent is stopping".to_owned()));
    }
}
