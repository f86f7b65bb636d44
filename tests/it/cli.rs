//! The program itself: what it prints, and the exit code it leaves with.

mod exposure;
mod pods;
mod targets;
mod views;

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

use crate::refusals::SCENARIOS;
use crate::support::ca::{Ca, CertsDir};
use crate::support::mesh::{CART, Mesh, ONLY_13, SCRAPER};
use crate::support::program::Program;
use crate::support::tls_server::{Reply, Server, Talk, always, closed_port};

/// Runs the program and waits for it.
async fn meshscrape(arguments: &[&str]) -> Output {
    Program::start(arguments).end().await
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

async fn scrape(certs: &CertsDir, url: &str, more: &[&str]) -> Output {
    let dir = certs.path().display().to_string();
    let mut arguments = vec!["scrape", url, "--certs-dir", &dir];
    arguments.extend(more);
    meshscrape(&arguments).await
}

/// A pod of the mesh with a small exposition.
fn pod(mesh: &Mesh) -> Server {
    let body = "# HELP beans Beans.\n# TYPE beans counter\nbeans_total{kind=\"arabica\"} 3\nh 1 1700000000000\n";
    Server::start(Talk::Tls(mesh.cart(), always(Reply::ok(body))))
}

#[tokio::test(flavor = "multi_thread")]
async fn scrape_prints_the_exposition_and_reports_who_answered() {
    let mesh = Mesh::new(ONLY_13).await;
    let pod = pod(&mesh);
    let output = scrape(&mesh.certs, &format!("https://{}", pod.address()), &["--spiffe-id", CART]).await;
    let report = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{report}");
    assert_eq!(
        text(&output.stdout),
        "# HELP beans Beans.\n# TYPE beans counter\nbeans_total{kind=\"arabica\"} 3\nh 1 1700000000000\n"
    );
    assert_eq!(pod.requests()[0].path(), "/stats/prometheus", "a URL without a path");
    for part in [
        "connect",
        "TLSv1.3 TLS_",
        &format!("{CART}  is exactly what was expected"),
        "first byte",
        "whole",
        "status      200",
        "format      text/plain",
        "samples     2 in 2 families",
        "scraped",
    ] {
        assert!(report.contains(part), "{part:?} is missing in\n{report}");
    }
    assert!(!report.contains('\x1b'), "no colour where nobody looks: {report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn scrape_goes_on_where_one_of_several_roots_has_ended_and_says_so() {
    let mesh = Mesh::new(ONLY_13).await;
    let pod = pod(&mesh);
    mesh.certs.write_roots(&[&mesh.ca, &Ca::valid("cluster.local", -7200, -3600)]);
    let url = format!("https://{}", pod.address());
    let output = scrape(&mesh.certs, &url, &["--spiffe-id", CART]).await;
    let report = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{report}");
    assert!(report.contains("root-cert.pem: certificate 2 is no usable root"), "{report}");
    mesh.certs.write_roots(&[&Ca::valid("cluster.local", -7200, -3600)]);
    let output = scrape(&mesh.certs, &url, &["--spiffe-id", CART]).await;
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains("no root that is valid now"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn scrape_tells_what_the_agent_of_the_pod_has_left_out() {
    let mesh = Mesh::new(ONLY_13).await;
    let body = "istio_agent_scrape_failures_total{type=\"application\"} 12\nistio_agent_scrapes_total 340\na 1\n";
    let pod = Server::start(Talk::Tls(mesh.cart(), always(Reply::ok(body))));
    let arguments = ["--spiffe-id", CART, "--output", "summary"];
    let output = scrape(&mesh.certs, &format!("https://{}", pod.address()), &arguments).await;
    let report = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{report}");
    let told = "\nscraped\npartial_merge: of 340 answers so far, 12 without the part of the application\nhint: look at the port";
    assert!(report.contains(told), "{report}");
    let output =
        scrape(&mesh.certs, &format!("https://{}", pod.address()), &["--spiffe-id", CART, "--output", "json"]).await;
    let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(document["lack"]["reason"], "partial_merge", "{document}");
    assert_eq!(document["lack"]["detail"], document["leftOut"], "{document}");
}

#[tokio::test(flavor = "multi_thread")]
async fn scrape_asks_for_the_path_that_was_written() {
    let mesh = Mesh::new(ONLY_13).await;
    let pod = pod(&mesh);
    for (written, asked) in [
        ("", "/stats/prometheus"),
        ("?a=b", "/stats/prometheus?a=b"),
        ("/", "/"),
        ("/?a=b", "/?a=b"),
        ("?a=b/", "/stats/prometheus?a=b/"),
        ("/x", "/x"),
    ] {
        scrape(&mesh.certs, &format!("https://{}{written}", pod.address()), &["--spiffe-id", CART]).await;
        assert_eq!(pod.requests().last().expect("a request").path(), asked, "{written:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn scrape_offers_the_protocols_that_were_named_and_else_none() {
    let mesh = Mesh::new(ONLY_13).await;
    let pod = pod(&mesh);
    let url = format!("https://{}", pod.address());
    for more in [&[][..], &["--alpn", "istio-http/1.1,istio"]] {
        let output = scrape(&mesh.certs, &url, &[&["--spiffe-id", CART], more].concat()).await;
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    }
    assert_eq!(pod.offered(), [vec![], vec!["istio-http/1.1".to_owned(), "istio".to_owned()]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn scrape_without_an_exact_id_says_so() {
    let mesh = Mesh::new(ONLY_13).await;
    let pod = pod(&mesh);
    let url = format!("https://{}/metrics", pod.address());
    let output = scrape(&mesh.certs, &url, &["--output", "summary"]).await;
    let report = text(&output.stdout);
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""), "{report}");
    assert!(report.contains(&format!("{CART}  identity not pinned")), "{report}");
    let output = scrape(&mesh.certs, &url, &["--trust-domain", "elsewhere.example"]).await;
    assert_eq!(output.status.code(), Some(4));
    assert_eq!(text(&output.stdout), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn scrape_writes_one_json_document() {
    let mesh = Mesh::new(ONLY_13).await;
    let pod = pod(&mesh);
    let url = format!("https://{}/metrics", pod.address());
    let output = scrape(&mesh.certs, &url, &["--spiffe-id", CART, "--output", "json"]).await;
    let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(document["ok"], true);
    assert_eq!(document["identityPinned"], true);
    assert_eq!(document["peer"]["identity"], CART);
    assert_eq!(document["samples"][0]["labels"]["__name__"], "beans_total");
    assert_eq!(document["samples"][1]["timestampMs"], 1_700_000_000_000_i64);

    let wrong = "spiffe://cluster.local/ns/shop/sa/other";
    let output = scrape(&mesh.certs, &url, &["--spiffe-id", wrong, "--output", "json"]).await;
    assert_eq!(output.status.code(), Some(4));
    let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(document["failure"]["reason"], "identity_mismatch");
    assert_eq!((&document["failure"]["expected"], &document["failure"]["presented"]), (&wrong.into(), &CART.into()));
    assert_eq!(document["samples"], Value::Array(Vec::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_to_fail_has_its_sentence_its_hint_and_its_exit_code() {
    for scenario in SCENARIOS {
        let mesh = Mesh::new(ONLY_13).await;
        let stage = (scenario.stage)(&mesh);
        let url = format!("https://{}{}", stage.address, stage.path);
        let timeout = if stage.hangs { "300ms" } else { "20s" };
        let output = scrape(&mesh.certs, &url, &["--spiffe-id", CART, "--timeout", timeout]).await;
        let report = text(&output.stderr);
        let (name, reason) = (scenario.name, scenario.reason);
        assert_eq!(output.status.code(), Some(i32::from(reason.class().code())), "{name}: {report}");
        assert_eq!(text(&output.stdout), "", "{name}: nothing of a failed scrape is printed");
        assert!(report.contains(&format!("\n{reason}: ")), "{name}: {reason} is missing in\n{report}");
        // Two cases have something to be looked at before.
        let first = match name {
            "another trust domain" | "a trust domain that begins alike" => {
                "if the other trust domain is a name of this mesh, give the ID with it by --spiffe-id; else "
            }
            _ => "",
        };
        let hint = report.lines().find_map(|line| line.strip_prefix("hint: ")).unwrap_or_default();
        assert_eq!(hint, format!("{first}{}", reason.hint()), "{name}: {report}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_asked_for_is_a_usage_error() {
    let mesh = Mesh::new(ONLY_13).await;
    let certs = mesh.certs.path().display().to_string();
    for (arguments, says) in [
        (vec!["scrape", "10.0.0.1:15092"], "is no URL"),
        (vec!["scrape", "ftp://10.0.0.1"], "the scheme \"ftp\" is not scraped"),
        (vec!["scrape", "http://10.0.0.1/", "--spiffe-id", CART], "write https://"),
        (vec!["scrape", "https://user:secret@10.0.0.1/", "--certs-dir", &certs], "not supported"),
        (vec!["scrape", "https://10.0.0.1/", "--spiffe-id", "spiffe://TD/x"], "may not stand in a trust domain"),
        (vec!["scrape", "https://10.0.0.1/", "--alpn", "h2"], "means HTTP/2"),
        (vec!["scrape", "http://10.0.0.1/", "--alpn", "istio"], "write https:// and give --certs-dir"),
        (vec!["scrape", "https://10.0.0.1/", "--timeout", "10"], "a duration such as"),
        (vec!["scrape", "https://10.0.0.1/", "--certs-dir", "/nowhere"], "/nowhere"),
        (vec!["run"], "--config"),
        (vec!["run", "--config", "x.yaml", "--api-listen", "0.0.0.0:9465"], "loopback address only"),
        (vec!["run", "--config", "/nowhere/x.yaml"], "/nowhere/x.yaml"),
    ] {
        let output = meshscrape(&arguments).await;
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {error}");
        assert!(error.contains(says), "{arguments:?}: {says:?} is missing in\n{error}");
        assert!(!error.contains("secret"), "{arguments:?}: {error}");
    }
}

/// As into a pipe that nobody reads any more: the exit code still says what happened.
#[tokio::test]
async fn an_error_that_cannot_be_written_is_no_other_error() {
    for (arguments, code) in [
        (vec!["scrape", "nonsense", "--certs-dir", "/nowhere"], 2),
        (vec!["targets", "--config", "/nowhere/meshscrape.yaml"], 2),
        (vec!["check", "config", "/nowhere/meshscrape.yaml"], 1),
    ] {
        let mut command = Command::new("sh");
        command.args(["-c", "exec \"$0\" \"$@\" 2>/dev/full", env!("CARGO_BIN_EXE_meshscrape")]);
        command.args(&arguments);
        assert_eq!(Program::spawn(command).end().await.status.code(), Some(code), "{arguments:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_listening_is_no_connection() {
    let mesh = Mesh::new(ONLY_13).await;
    let (_port, address) = closed_port();
    let output = scrape(&mesh.certs, &format!("https://{address}"), &["--spiffe-id", CART]).await;
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn check_certs_judges_a_directory() {
    let dir = TempDir::new().expect("a directory");
    let certs = CertsDir::at(dir.path());
    let ca = Ca::new("cluster.local");
    certs.write(&ca.leaf(SCRAPER), &[&ca]);
    let path = dir.path().display().to_string();
    let output = meshscrape(&["check", "certs", &path]).await;
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
    assert!(text(&output.stdout).contains(SCRAPER));
    certs.put("key.pem", ca.leaf(SCRAPER).key_pem().as_bytes());
    let output = meshscrape(&["check", "certs", &path]).await;
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));
    assert!(text(&output.stdout).contains("does not belong to"), "{}", text(&output.stdout));
    // None of the usual ones is on a machine that runs tests.
    let output = meshscrape(&["check", "certs"]).await;
    let says = "say which directory: neither /etc/istio-certs nor /var/run/secrets/spiffe.io is there";
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stdout));
    assert!(text(&output.stderr).contains(says), "{}", text(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn check_config_accepts_what_is_shipped() {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let file = shipped.join("meshscrape.yaml").display().to_string();
    let output = meshscrape(&["check", "config", &file]).await;
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let output = meshscrape(&["check", "config", "--print", &file]).await;
    assert!(text(&output.stdout).contains("scrape_configs:"), "{}", text(&output.stdout));
}

#[tokio::test(flavor = "multi_thread")]
async fn shells_and_manuals_get_what_the_command_line_is() {
    let output = meshscrape(&["completions", "bash"]).await;
    let dir = TempDir::new().expect("a directory");
    let script = dir.path().join("meshscrape.bash");
    std::fs::write(&script, &output.stdout).expect("written");
    let asked = "source \"$0\"; COMP_WORDS=(meshscrape scrape --outp); COMP_CWORD=2; _meshscrape meshscrape --outp scrape; echo \"${COMPREPLY[@]}\"";
    let bash = std::process::Command::new("bash").args(["-c", asked]).arg(&script).output().expect("bash");
    assert_eq!(text(&bash.stdout), "--output\n", "{}", text(&bash.stderr));

    let pages = dir.path().join("man");
    let there = pages.to_str().expect("UTF-8");
    let missing = meshscrape(&["man", "--dir", there]).await;
    assert_eq!(missing.status.code(), Some(1));
    assert!(text(&missing.stderr).contains("cannot write manual pages to"), "{}", text(&missing.stderr));
    std::fs::create_dir(&pages).expect("created");
    let output = meshscrape(&["man", "--dir", there]).await;
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    for (page, says) in [
        ("meshscrape.1", "The scraper that checks who answered"),
        ("meshscrape-scrape.1", "\\-\\-spiffe\\-id"),
        ("meshscrape-check-config.1", "secrets are not shown"),
    ] {
        let content = std::fs::read_to_string(pages.join(page)).expect(page);
        assert!(content.contains(".TH") && content.contains(says), "{page}: {content}");
    }
    let mut count = 0;
    for page in std::fs::read_dir(&pages).expect("the pages") {
        let page = page.expect("a page").path();
        let content = std::fs::read_to_string(&page).expect("UTF-8");
        let version = concat!("meshscrape ", env!("CARGO_PKG_VERSION"));
        assert!(content.contains(version), "{}: {content}", page.display());
        let sections: Vec<_> = content.lines().filter_map(|line| line.strip_prefix(".SH ")).collect();
        assert_eq!(sections.last(), Some(&"\"SEE ALSO\""), "{}", page.display());
        assert!(!sections.contains(&"EXTRA"), "{}: {sections:?}", page.display());
        // What a page refers to is there.
        for named in content.replace('\\', "").split([' ', ',', '\n']).filter_map(|word| word.strip_suffix("(1)")) {
            assert!(pages.join(format!("{named}.1")).exists(), "{}: {named}(1)", page.display());
            count += 1;
        }
    }
    assert!(count > 20, "{count} references are all that were found");
    let scrape = std::fs::read_to_string(pages.join("meshscrape-scrape.1")).expect("a page");
    for section in [".SH \"EXIT STATUS\"", ".SH NOTES", ".SH EXAMPLES\n.nf\n  meshscrape scrape https://"] {
        assert!(scrape.contains(section), "{section}: {scrape}");
    }
}

/// An example that is broken in two by the width of a terminal cannot be pasted.
#[tokio::test(flavor = "multi_thread")]
async fn examples_stand_on_one_line() {
    let commands: [&[&str]; 10] = [
        &["run"],
        &["check", "config"],
        &["check", "certs"],
        &["targets"],
        &["scrape"],
        &["audit"],
        &["verify"],
        &["demo"],
        &["completions"],
        &["man"],
    ];
    for command in commands {
        let help = text(&meshscrape(&[command, &["--help"]].concat()).await.stdout);
        let (_, examples) = help.split_once("\nExamples:\n").unwrap_or_else(|| panic!("{command:?} has no examples"));
        let lines: Vec<_> = examples.lines().take_while(|line| !line.is_empty()).collect();
        assert!(lines.len() >= 2, "{command:?}: {examples}");
        for line in lines {
            let begins = ["  meshscrape ", "  kubectl ", "  mkdir ", "  NODE_NAME=any meshscrape "];
            assert!(begins.iter().any(|begin| line.starts_with(begin)), "{command:?}: {line}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_set_of_roots_vouches_for_one_trust_domain_of_those_who_may_ask() {
    let listen = ["run", "--config", "/nowhere.yaml", "--mesh-listen", "127.0.0.1:0"];
    for (more, says) in [
        (
            &["--mesh-allow", "spiffe://a/x", "--mesh-allow", "spiffe://b/x"][..],
            "spiffe://b/x is of another trust domain",
        ),
        (&["--mesh-allow", "https://a/x"], "spiffe://"),
        (&[], "--mesh-allow"),
    ] {
        let output = meshscrape(&[&listen[..], more].concat()).await;
        assert_eq!(output.status.code(), Some(2), "{more:?}");
        assert!(text(&output.stderr).contains(says), "{more:?}: {}", text(&output.stderr));
    }
}
