//! The same troubles for meshscrape, a real Prometheus in agent mode and a real vmagent, side by side: what each of them loses,
//! sends twice or out of order. What is ours is a promise; of the others is only told what they did.

use std::process::Command;

use super::*;
use crate::support::process::find;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    Meshscrape,
    Prometheus,
    Vmagent,
}

/// One of them, with a target and a receiver of its own.
pub(super) struct Contestant {
    who: Who,
    dir: TempDir,
    target: Numbered,
    receiver: Receiver,
    rule: Switch,
    message: String,
}

/// How the receiver answers at the moment.
pub(super) type Switch = Arc<Mutex<Answer>>;

impl Contestant {
    /// With a receiver that answers so.
    pub(super) async fn new(who: Who, answer: Answer) -> Self {
        let rule: Switch = Arc::new(Mutex::new(answer));
        let current = Arc::clone(&rule);
        let answer =
            move |request: &Recorded| current.lock().expect("no panic while it is held").clone().confirming(request);
        let receiver = Receiver::start(Box::new(answer)).await;
        let (dir, message) = (TempDir::new().expect("a directory"), "prometheus.WriteRequest".to_owned());
        Self { who, dir, target: Numbered::start(0), receiver, rule, message }
    }

    /// The same that sends this message.
    pub(super) fn speaking(self, message: &str) -> Self {
        Self { message: message.to_owned(), ..self }
    }

    pub(super) fn answers_are(&self, answer: Answer) {
        *self.rule.lock().expect("no panic while it is held") = answer;
    }

    pub(super) fn start(&self) -> Program {
        let (url, message) = (self.receiver.url(), &self.message);
        let scraping = format!("scrape_configs:\n{}", self.target.job("plain", Duration::from_millis(500)));
        let receiving = format!(
            "remote_write: [{{url: '{url}', protobuf_message: {message}, remote_timeout: 2s, queue_config: {{batch_send_deadline: 200ms}}}}]\n"
        );
        let (program, text, arguments) = match self.who {
            Who::Meshscrape => (
                env!("CARGO_BIN_EXE_meshscrape").into(),
                scraping + &receiving,
                vec![
                    "run",
                    "--config=config.yml",
                    "--data-dir=data",
                    "--listen=127.0.0.1:0",
                    "--api-listen=127.0.0.1:0",
                ],
            ),
            Who::Prometheus => (
                find("prometheus"),
                scraping + &receiving,
                vec![
                    "--agent",
                    "--config.file=config.yml",
                    "--storage.agent.path=data",
                    "--web.listen-address=127.0.0.1:0",
                ],
            ),
            Who::Vmagent => (
                find("vmagent"),
                scraping,
                vec![
                    "-promscrape.config=config.yml",
                    "-remoteWrite.tmpDataPath=data",
                    "-httpListenAddr=127.0.0.1:0",
                    "-remoteWrite.forcePromProto",
                    "-remoteWrite.flushInterval=200ms",
                    "-remoteWrite.url",
                    &url,
                ],
            ),
        };
        std::fs::write(self.dir.path().join("config.yml"), text).expect("a configuration");
        let mut command = Command::new(program);
        command.args(arguments).current_dir(self.dir.path());
        Program::spawn(command)
    }

    pub(super) fn answers(&self) -> usize {
        self.target.answers()
    }

    pub(super) async fn scrapes(&self, more: usize) {
        self.target.scrapes(more).await;
    }

    /// Waits until what is scraped now has come, and says what became of the answers behind `before` that were finished at
    /// `moment`.
    pub(super) async fn losses(&self, before: usize, moment: Instant) -> Losses {
        self.scrapes(3).await;
        let enough = self.answers() as u64;
        let newest = |recorded: &[Recorded]| taken(recorded).iter().any(|number| *number >= enough);
        self.receiver.until("what is scraped now is delivered", newest).await;
        // Who is behind with the rest has time to come.
        tokio::time::sleep(scale(Duration::from_secs(3), Duration::from_secs(30))).await;
        Losses::of(&self.target.finished(before, moment), &self.receiver.recorded())
    }

    /// Killed with a backlog, and then a receiver that is overloaded for a while.
    async fn suffer(self, trouble: Duration) -> (Who, Losses, Losses) {
        let program = self.start();
        self.scrapes(4).await;
        tokio::time::sleep(trouble).await;
        program.signal("KILL");
        let killed = Instant::now();
        program.end().await;
        let _program = self.start();
        self.scrapes(1).await;
        self.answers_are(Answer::ok());
        let after_kill = self.losses(0, killed).await;

        let before = self.answers();
        self.answers_are(Answer::status(429));
        tokio::time::sleep(trouble).await;
        self.answers_are(Answer::ok());
        let after_overload = self.losses(before, Instant::now()).await;
        (self.who, after_kill, after_overload)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_loses_less() {
    let trouble = scale(Duration::from_secs(4), Duration::from_secs(60));
    let suffer = async |who| Contestant::new(who, Answer::status(503)).await.suffer(trouble).await;
    let (ours, prometheus, vmagent) =
        tokio::join!(suffer(Who::Meshscrape), suffer(Who::Prometheus), suffer(Who::Vmagent));
    for (who, kill, overload) in [&ours, &prometheus, &vmagent] {
        println!("{who:?}: killed with a backlog: {kill}; {trouble:?} of 429: {overload}");
        assert!(kill.finished > 2 && overload.finished > 2, "{who:?} was not put to the test");
    }
    let (_, kill, overload) = ours;
    for losses in [kill, overload] {
        losses.assert_none("what is ours");
    }
}
