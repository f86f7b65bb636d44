//! What the image holds runs, in a root that holds nothing else.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;

use meshscrape::identity::crypto_provider;
use rustls::ServerConfig;

use crate::support::ca::{Ca, CertsDir, Leaf, LeafSpec, Name};
use crate::support::mesh::{CART, SCRAPER};
use crate::support::program::Program;
use crate::support::receiver::{Receiver, script};
use crate::support::tls_server::{Reply, Server, Talk, always};
use crate::support::{loopback, scale};

/// The user of the manifests.
const USER: &str = "65532:65532";

/// All that is shipped.
const SHIPPED: [&str; 5] =
    ["LICENSE", "etc/group", "etc/passwd", "etc/ssl/certs/ca-certificates.crt", "usr/local/bin/meshscrape"];

/// The program of an ordinary run is the static one without optimisation; in `make soak` it is the shipped one.
///
/// As root it runs as the manifests' user and asks DNS for the receiver's name. Without root it runs in a user
/// namespace, and the name stands in a file: nobody else may serve DNS.
#[tokio::test(flavor = "multi_thread")]
async fn the_image_runs_in_an_empty_root_with_nothing_but_what_it_ships() {
    let dir = tempfile::tempdir().expect("a directory");
    let root = dir.path().join("root");
    lay_out(&root);
    assert_eq!(files(&root), SHIPPED.map(PathBuf::from));

    let (mesh, public) = (Ca::new("cluster.local"), Ca::new("public"));
    let cart = mesh.leaf(CART).server(&[&mesh], rustls::ALL_VERSIONS);
    let target = Server::start(Talk::Tls(cart, always(Reply::ok("requests_total 42\n"))));
    let receiver =
        Receiver::start_tls(open(&public.issue(&LeafSpec::named(vec![Name::dns("receiver.test")]))), script([])).await;

    // What a pod's mounts bring.
    let (certs, etc) = (root.join("etc/istio-certs"), root.join("etc"));
    for mounted in [&certs, &etc.join("meshscrape")] {
        std::fs::create_dir(mounted).expect("a directory");
    }
    CertsDir::at(&certs).write(&mesh.leaf(SCRAPER), &[&mesh]);
    for file in std::fs::read_dir(&certs).expect("the certificates") {
        let open = std::fs::Permissions::from_mode(0o644); // as Istio's agent leaves them
        std::fs::set_permissions(file.expect("a file").path(), open).expect("permissions");
    }
    let config = format!(
        "global: {{ scrape_interval: 1s, scrape_timeout: 1s }}
scrape_configs:
  - job_name: mesh
    tls_config: {{ certs_dir: /etc/istio-certs, spiffe: {{}} }}
    static_configs: [{{ targets: ['{}'], labels: {{ __spiffe_id__: '{CART}' }} }}]
remote_write:
  - url: https://receiver.test:{}/api/v1/write
    queue_config: {{ batch_send_deadline: 100ms }}
",
        target.socket(),
        receiver.address().port(),
    );
    std::fs::write(etc.join("meshscrape/meshscrape.yaml"), config).expect("a configuration");
    let names = name_server();
    match names {
        Some(server) => std::fs::write(etc.join("resolv.conf"), format!("nameserver {server}\n")),
        None => std::fs::write(etc.join("hosts"), "127.0.0.1 receiver.test\n"),
    }
    .expect("a file");
    // One root more in the bundle: that of the receiver.
    let bundle = etc.join("ssl/certs/ca-certificates.crt");
    let roots = std::fs::read_to_string(&bundle).expect("the bundle");
    std::fs::write(&bundle, format!("{roots}\n{}", public.pem())).expect("the bundle");

    let program = Program::spawn(inside(&root, "/usr/local/bin/meshscrape"));
    let recorded = receiver
        .until("a verified scrape", |requests| {
            requests.iter().flat_map(|request| &request.samples).any(|(labels, sample)| {
                labels.get("__name__") == Some("requests_total") && sample.value.to_bits() == 42f64.to_bits()
            })
        })
        .await;
    assert!(!recorded.is_empty());
    program.signal("TERM");
    let output = program.end().await;
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

/// TLS that asks for no client certificate.
fn open(leaf: &Leaf) -> Arc<ServerConfig> {
    let config = ServerConfig::builder_with_provider(crypto_provider())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(leaf.chain.clone(), leaf.key())
        .expect("a certificate and its key");
    Arc::new(config)
}

/// Runs the script that the image's recipe runs.
fn lay_out(root: &Path) {
    // target/<profile>/deps/it-…
    let test = std::env::current_exe().expect("this test");
    let target = test.ancestors().nth(3).expect("the target directory");
    let output = Command::new("nice")
        .args(["-n", "19", concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/image/root.sh")])
        .arg(root)
        .arg("--offline")
        .args(scale::<&[&str]>(&[], &["--release", "--no-default-features"]))
        .env("CARGO_BUILD_BUILD_DIR", target)
        .output()
        .expect("the script runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The files under `root`, sorted.
fn files(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(dir).expect("a directory") {
            let path = entry.expect("an entry").path();
            match path.is_dir() {
                true => open.push(path),
                false => found.push(path.strip_prefix(root).expect("below it").to_owned()),
            }
        }
    }
    found.sort();
    found
}

/// The command that runs `program` with `root` as its root.
fn inside(root: &Path, program: &str) -> Command {
    let is_root = std::fs::metadata("/proc/self").expect("this process").uid() == 0;
    let mut command = Command::new(if is_root { "chroot" } else { "unshare" });
    match is_root {
        true => command.arg(format!("--userspec={USER}")),
        false => command.args(["--map-root-user", "chroot"]),
    };
    command.arg(root).args([program, "run", "--config=/etc/meshscrape/meshscrape.yaml", "--log-format=json"]);
    command.args(["--listen=127.0.0.1:0", "--api-listen=127.0.0.1:0"]).env_clear();
    // For chroot or unshare themselves.
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command
}

/// Serves DNS on an address of its own: every name is 127.0.0.1, and none has an IPv6 address. `None` if this user may not.
fn name_server() -> Option<Ipv4Addr> {
    let address = loopback();
    let socket = UdpSocket::bind(SocketAddr::from((address, 53))).ok()?;
    thread::spawn(move || {
        let mut query = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut query) {
            // Nobody waits for an answer that cannot be sent.
            let _ = socket.send_to(&answer(&query[..length]), from);
        }
    });
    Some(address)
}

/// The answer to a query with one question: its header is 12 bytes, its question ends in type and class.
fn answer(query: &[u8]) -> Vec<u8> {
    let name = query[12..].iter().position(|byte| *byte == 0).expect("a name") + 13;
    let (question, is_a) = (&query[12..name + 4], query[name..name + 2] == [0, 1]);
    let mut answer = query[..2].to_vec();
    answer.extend([0x81, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
    answer.extend(question);
    if is_a {
        // The name of the question, A, IN, one minute, four bytes.
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
    }
    answer
}
