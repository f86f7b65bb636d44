//! What a kubeconfig may not do: run its programs while a configuration is only checked, switch off verification, or have
//! what its programs print shown to anybody. All of it by the real program, without a cluster.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::agent::eventually;
use crate::support::process;
use crate::support::program::Program;
use crate::support::tls_server::{Reply, Server, Talk, always};
use crate::support::{http, loopback};

/// What a plugin prints, is told, and finds in its environment, in the form that no word of ours has.
const CANARIES: [&str; 4] = ["canary-out", "canary-err", "canary-arg", "canary-env"];

/// A credential that is no good any more, so that the plugin is asked again before it is used.
const EXPIRED: &str = r#"{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": "canary-out", "expirationTimestamp": "2020-01-01T00:00:00Z"}}"#;

/// A directory with a configuration that follows a cluster by a kubeconfig with a plugin, on a server that notes who comes.
struct Place {
    dir: TempDir,
    server: Server,
}

impl Place {
    /// With a plugin that notes that it ran, prints a canary on both outputs, and goes on with `script`.
    fn new(script: &str) -> Self {
        let place = Self {
            dir: TempDir::new().expect("a directory"),
            server: Server::start(Talk::Plain(always(Reply::with("403 Forbidden", &[], "no")))),
        };
        place.kubeconfig(json!({"server": format!("https://{}", place.server.address())}));
        let ran = place.path("ran");
        let plugin = format!("#!/bin/sh\necho >>'{}'\necho canary-err >&2\n{script}\n", ran.display());
        std::fs::write(place.path("plugin"), plugin).expect("a plugin");
        std::fs::set_permissions(place.path("plugin"), PermissionsExt::from_mode(0o755)).expect("it may run");
        let address = place.server.address();
        let config = format!(
            "scrape_configs:
- job_name: pods
  tls_config: {{certs_dir: certs, spiffe: {{}}}}
  kubernetes_sd_configs: [{{role: pod, kubeconfig_file: kubeconfig}}]
- job_name: more
  http_sd_configs: [{{url: 'http://{address}/sd'}}]
  static_configs: [{{targets: ['{address}', 'nobody.invalid:80']}}]
remote_write:
- url: http://{address}/api/v1/write
"
        );
        std::fs::write(place.path("meshscrape.yaml"), config).expect("a configuration");
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn config(&self) -> String {
        self.path("meshscrape.yaml").display().to_string()
    }

    /// Writes the kubeconfig of this cluster.
    fn kubeconfig(&self, cluster: Value) {
        let exec = json!({
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": self.path("plugin"),
            "args": ["canary-arg"],
            "env": [{"name": "SECRET", "value": "canary-env"}],
            "interactiveMode": "IfAvailable",
        });
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": cluster}],
            "users": [{"name": "u", "user": {"exec": exec}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        });
        std::fs::write(self.path("kubeconfig"), config.to_string()).expect("a kubeconfig"); // JSON is YAML
    }

    /// How often the plugin ran.
    fn runs(&self) -> usize {
        std::fs::read_to_string(self.path("ran")).map_or(0, |text| text.lines().count())
    }
}

/// Everything that a program printed.
fn printed(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes)).concat()
}

fn shows_no_canary(what: &str, text: &str) {
    for canary in CANARIES {
        assert!(!text.contains(canary), "{what} shows {canary}:\n{text}");
    }
}

/// The calls of the program with these arguments, and of all that it starts, that open sockets, use them, or run programs.
async fn trace(dir: &Path, arguments: &[&str]) -> (Output, Vec<String>) {
    let file = dir.join("trace");
    let mut command = Command::new(process::find("strace"));
    command.args(["-f", "-qq", "-e", "signal=none", "-e", "trace=%network,execve,execveat", "-o"]).arg(&file);
    command.arg(env!("CARGO_BIN_EXE_meshscrape")).args(arguments);
    let output = Program::spawn(command).end().await;
    let text = std::fs::read_to_string(&file).expect("a trace");
    // Each line begins with the number of the thread.
    let calls = text.lines().filter_map(|line| line.split_once(' ')).map(|(_, call)| call.trim_start().to_owned());
    (output, calls.collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn check_config_opens_no_socket_and_runs_no_program() {
    let place = Place::new("exit 3");
    let names = |calls: &[String]| -> BTreeSet<String> {
        calls.iter().filter_map(|call| call.split_once('(')).map(|(name, _)| name.to_owned()).collect()
    };

    for arguments in [&["check", "config"][..], &["check", "config", "--print"]] {
        let (output, calls) = trace(place.dir.path(), &[arguments, &[&place.config()]].concat()).await;
        assert_eq!(output.status.code(), Some(0), "{}", printed(&output));
        let started = calls.iter().filter(|call| call.starts_with("execve(")).count();
        // The pair of sockets by which signals are noticed leads nowhere.
        let others: Vec<_> = calls
            .iter()
            .filter(|call| !call.starts_with("execve(") && !call.starts_with("socketpair(AF_UNIX"))
            .collect();
        assert!(started == 1 && others.is_empty(), "only the program itself was to start: {calls:#?}");
        assert_eq!((place.runs(), place.server.connections()), (0, 0));
        shows_no_canary("check config", &printed(&output));
    }

    // The same file, used: the trace would have shown it.
    let (_, calls) = trace(place.dir.path(), &["targets", "--config", &place.config(), "--timeout", "2s"]).await;
    let seen = names(&calls);
    assert!(["socket", "connect"].iter().all(|&name| seen.contains(name)), "{seen:?}");
    assert!(calls.iter().any(|call| call.starts_with("execve(") && call.contains("/plugin")), "{calls:#?}");
    assert!(place.runs() > 0 && place.server.connections() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kubeconfig_that_verifies_nobody_is_refused_with_a_sentence() {
    let place = Place::new("exit 3");
    let config = "scrape_configs: [{job_name: pods, tls_config: {certs_dir: certs, spiffe: {}}, \
                  kubernetes_sd_configs: [{role: pod, kubeconfig_file: kubeconfig}]}]";
    std::fs::write(place.path("meshscrape.yaml"), config).expect("a configuration");
    let address = place.server.address();
    for (cluster, says) in [
        (
            json!({"server": format!("https://{address}"), "insecure-skip-tls-verify": true}),
            "says insecure-skip-tls-verify, and nothing is skipped; name the server's CA instead",
        ),
        (
            json!({"server": format!("http://{address}")}),
            "names a server without https, whose word may not decide who is believed; use https",
        ),
    ] {
        place.kubeconfig(cluster.clone());
        let output = Program::start(&["targets", "--config", &place.config(), "--timeout", "2s"]).end().await;
        assert!(printed(&output).contains(says), "{cluster}: {}", printed(&output));
        assert_eq!(output.status.code(), Some(3), "{cluster}: {}", printed(&output));
        assert_eq!((place.runs(), place.server.connections()), (0, 0), "{cluster}: nobody is asked");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_plugin_prints_is_shown_nowhere() {
    let once = format!("[ $(wc -l <\"${{0%/*}}/ran\") -gt 1 ] && exit 3\necho '{EXPIRED}'");
    let failed = "the program that fetches credentials failed (exit status: 3)";
    tokio::join!(
        hides("echo canary-out; exit 3", failed),
        hides("echo canary-out", "is no ExecCredential, and is not shown"),
        // Good when the client is made, and no longer when it asks.
        hides(&once, failed),
    );
}

/// By an agent and by a listing, whose words are to be these.
async fn hides(script: &str, says: &str) {
    let place = Place::new(script);
    let api = loopback();
    let (listen, api_listen) = (format!("--listen={api}:9464"), format!("--api-listen={api}:9465"));
    let config = place.config();
    let program =
        Program::start(&["run", "--config", &config, &listen, &api_listen, "--log-level=trace", "--flush-deadline=0s"]);
    let ready = eventually("readiness says what is wrong", async || {
        let answer = http::get((api, 9464).into(), "/-/ready").await.ok()?;
        answer.text().contains(says).then(|| answer.text().to_owned())
    })
    .await;
    shows_no_canary("readiness", &ready);
    for (port, path) in [(9464, "/metrics"), (9464, "/-/healthy"), (9465, "/api/v1/targets?state=any")] {
        let answer = http::get((api, port).into(), path).await.expect("an answer");
        assert_eq!(answer.status, 200, "{path}");
        shows_no_canary(path, answer.text());
    }
    program.signal("TERM");
    let log = printed(&program.end().await);
    assert!(log.contains(says), "{log}");
    shows_no_canary("the log", &log);

    std::fs::remove_file(place.path("ran")).expect("it ran");
    let output = Program::start(&["targets", "--config", &config, "--timeout", "2s"]).end().await;
    assert!(printed(&output).contains(says), "{}", printed(&output));
    shows_no_canary("the listing", &printed(&output));
    assert!(place.runs() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_at_a_terminal_sees_what_the_plugin_complains_of_and_no_credentials() {
    let place = Place::new("echo canary-out; exit 3");
    let kubeconfig = place.path("kubeconfig").display().to_string();
    let output = Program::start(&["scrape", "pod/cart", "-n", "shop", "--kubeconfig", &kubeconfig]).end().await;
    let said = printed(&output);
    assert!(said.contains("the program that fetches credentials failed (exit status: 3)"), "{said}");
    assert_eq!(said.matches("canary-err").count(), 1, "its own words, as with kubectl, and not again in ours: {said}");
    assert!(["canary-out", "canary-arg", "canary-env"].iter().all(|canary| !said.contains(canary)), "{said}");
}
