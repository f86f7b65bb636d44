//! A real Envoy with listeners as Istio's bootstrap makes its secure metrics ports.
//!
//! Each listener plays one pod on a loopback address of its own: TLS only, a client certificate of its roots required,
//! its certificate by SDS as `default`, its roots as `ROOTCA`, prefix routes, no ALPN. The secrets are files that Envoy
//! watches, replaced by rename and whole (as an SDS push is), so that they rotate while traffic runs. Many listeners
//! share one process, because a process is what costs time.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::UnixStream;

use super::ca::{Ca, Leaf};
use super::http::{self, Answer};
use super::loopback;
use super::process::Process;

/// What one listener is to be.
#[derive(Clone)]
pub(crate) struct ListenerSpec {
    name: String,
    ip: Ipv4Addr,
    port: u16,
    leaf: Value,
    roots: Value,
    behind: Behind,
    /// The application protocols without which nobody is let in; empty: any or none.
    wants: &'static [&'static str],
    plain: Plain,
    /// It speaks TLS as servers did of which nobody should be left.
    old: bool,
}

/// Whether a listener speaks plain text.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Plain {
    No,
    /// To those who do not greet with TLS.
    Too,
    Only,
    /// Nobody looks whether it is plain text.
    Through,
}

/// What stands behind the TLS of a listener.
#[derive(Clone, Copy)]
enum Behind {
    /// Port 15091: `/stats/prometheus` is Envoy's own.
    Stats,
    /// Port 15092: `/stats/prometheus` and `/metrics` are pilot-agent's, who listens there.
    Agent(SocketAddr),
    /// No secure port: inbound capture under STRICT, which ends the TLS and passes plain bytes on to there.
    Capture(SocketAddr),
    /// No secure port: inbound capture under PERMISSIVE, which passes TLS on to there as it is, and plain HTTP in plain text.
    Hop(SocketAddr),
}

impl ListenerSpec {
    /// The Envoy-only port, 15091 in Istio: prefix `/stats/prometheus`, answered by Envoy itself.
    pub(crate) fn stats(name: &str, leaf: &Leaf, clients: &[&Ca]) -> Self {
        Self::new(name, leaf, clients, Behind::Stats)
    }

    /// The merged port, 15092 in Istio: prefixes `/stats/prometheus` and `/metrics`, answered by `agent`, a plain HTTP
    /// server that stands for pilot-agent.
    pub(crate) fn merged(name: &str, leaf: &Leaf, clients: &[&Ca], agent: SocketAddr) -> Self {
        Self::new(name, leaf, clients, Behind::Agent(agent))
    }

    /// What a sidecar does to a secure port under STRICT when the port is not excluded from inbound capture: a good
    /// handshake, then the plain bytes go to `port`, which speaks TLS only.
    pub(crate) fn capture(name: &str, leaf: &Leaf, clients: &[&Ca], port: SocketAddr) -> Self {
        Self::new(name, leaf, clients, Behind::Capture(port))
    }

    /// What a sidecar does to a secure port under PERMISSIVE: TLS goes through to `port` untouched; plain HTTP is passed on, too,
    /// and `port` speaks TLS only.
    pub(crate) fn permissive(name: &str, leaf: &Leaf, port: SocketAddr) -> Self {
        Self::new(name, leaf, &[], Behind::Hop(port))
    }

    /// What a sidecar does to a port for which mTLS is disabled: whatever comes goes through to `port` untouched.
    pub(crate) fn through(name: &str, leaf: &Leaf, port: SocketAddr) -> Self {
        Self { plain: Plain::Through, ..Self::permissive(name, leaf, port) }
    }

    /// The plaintext port of Envoy's own metrics, 15090 in Istio: prefix `/stats/prometheus`, nobody is asked who he is.
    pub(crate) fn plain_stats(name: &str, leaf: &Leaf) -> Self {
        Self { plain: Plain::Only, ..Self::new(name, leaf, &[], Behind::Stats) }
    }

    /// The same answers in plain text for whoever does not greet with TLS, as PERMISSIVE has it of a listener that a `Sidecar`
    /// resource made.
    pub(crate) fn and_plain(self) -> Self {
        Self { plain: Plain::Too, ..self }
    }

    /// With no newer TLS than 1.2, and of that only a cipher suite that nobody should take any more.
    pub(crate) fn of_old_tls(self) -> Self {
        Self { old: true, ..self }
    }

    /// On this address instead of one that nobody else has.
    pub(crate) fn on_ip(self, ip: Ipv4Addr) -> Self {
        Self { ip, ..self }
    }

    /// What a `Sidecar` resource makes of port 15091 under PERMISSIVE (Istio before 1.31): an ordinary inbound listener,
    /// whose TLS is for those only who offer a protocol of Istio's.
    pub(crate) fn legacy(name: &str, leaf: &Leaf, clients: &[&Ca]) -> Self {
        let wants = &["istio-http/1.0", "istio-http/1.1", "istio-h2"];
        Self { wants, ..Self::new(name, leaf, clients, Behind::Stats) }
    }

    /// On this port instead of a free one.
    pub(crate) fn on_port(self, port: u16) -> Self {
        Self { port, ..self }
    }

    fn new(name: &str, leaf: &Leaf, clients: &[&Ca], behind: Behind) -> Self {
        let (leaf, roots) = (leaf_secret(leaf), roots_secret(clients));
        Self {
            name: name.to_owned(),
            ip: loopback(),
            port: 0,
            leaf,
            roots,
            behind,
            wants: &[],
            plain: Plain::No,
            old: false,
        }
    }

    /// With its secrets in files of `dir`.
    fn with_files(&self, dir: &Path) -> Value {
        let sds = |name: &str, file: &str| {
            let path = dir.join(&self.name).join(file);
            json!({ "name": name, "sds_config": { "path_config_source": { "path": path }, "resource_api_version": "V3" } })
        };
        self.listener(&json!({
            "tls_certificate_sds_secret_configs": [sds("default", LEAF)],
            "combined_validation_context": {
                "default_validation_context": {},
                "validation_context_sds_secret_config": sds("ROOTCA", ROOTS),
            },
        }))
    }

    /// With its secrets inside: each of the files above takes one of the system's watchers, of which there are few.
    fn whole(&self) -> Value {
        let mut listener = self.listener(&json!({
            "tls_certificates": [self.leaf["resources"][0]["tls_certificate"]],
            "validation_context": self.roots["resources"][0]["validation_context"],
        }));
        listener["@type"] = json!("type.googleapis.com/envoy.config.listener.v3.Listener");
        listener
    }

    fn listener(&self, secrets: &Value) -> Value {
        let mut tls = json!({
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "require_client_certificate": true,
            "common_tls_context": secrets,
        });
        if self.old {
            tls["common_tls_context"]["tls_params"] =
                json!({ "tls_maximum_protocol_version": "TLSv1_2", "cipher_suites": ["AES128-SHA"] });
        }
        let mut matched = json!({ "transport_protocol": "tls" });
        if !self.wants.is_empty() {
            matched["application_protocols"] = json!(self.wants);
        }
        let plainly = json!({ "filter_chain_match": { "transport_protocol": "raw_buffer" }, "filters": [self.http()] });
        let secure = json!({
            "filter_chain_match": matched,
            "transport_socket": { "name": "envoy.transport_sockets.tls", "typed_config": tls },
            "filters": [self.filter()],
        });
        let chains = match (self.behind, self.plain) {
            (_, Plain::Through) => json!([{ "filters": [self.tcp()] }]),
            (Behind::Hop(_), _) => {
                json!([{ "filter_chain_match": { "transport_protocol": "tls" }, "filters": [self.tcp()] }, plainly])
            }
            // Whoever greets with TLS is told in plain text that this is no request, as by Istio's port.
            (_, Plain::Only) => json!([{ "filters": [self.http()] }]),
            (_, Plain::Too) => json!([secure, plainly]),
            (_, Plain::No) => json!([secure]),
        };
        json!({
            "name": self.name,
            "stat_prefix": self.name,
            "address": { "socket_address": { "address": self.ip, "port_value": self.port } },
            "listener_filters": [{
                "name": "envoy.filters.listener.tls_inspector",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector",
                },
            }],
            "filter_chains": chains,
        })
    }

    /// The network filter behind the TLS.
    fn filter(&self) -> Value {
        if matches!(self.behind, Behind::Capture(_)) { self.tcp() } else { self.http() }
    }

    fn tcp(&self) -> Value {
        json!({
            "name": "envoy.filters.network.tcp_proxy",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
                "stat_prefix": self.name,
                "cluster": self.name,
            },
        })
    }

    fn http(&self) -> Value {
        let (prefixes, cluster): (&[&str], &str) = match self.behind {
            Behind::Stats => (&["/stats/prometheus"], ADMIN),
            Behind::Agent(_) => (&["/stats/prometheus", "/metrics"], &self.name),
            Behind::Capture(_) | Behind::Hop(_) => (&["/"], &self.name),
        };
        let route = |prefix: &&str| json!({ "match": { "prefix": prefix }, "route": { "cluster": cluster } });
        let routes: Vec<Value> = prefixes.iter().map(route).collect();
        json!({
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                "codec_type": "AUTO",
                "stat_prefix": "stats",
                "route_config": {
                    "virtual_hosts": [{ "name": "backend", "domains": ["*"], "routes": routes }],
                    // Who answers on this connection, for those behind who want to tell.
                    "request_headers_to_add": [
                        added("x-local-ip", "%DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT%"),
                        added("x-local-subject", "%DOWNSTREAM_LOCAL_SUBJECT%"),
                        added("x-local-id", "%DOWNSTREAM_LOCAL_URI_SAN%"),
                    ],
                },
                "http_filters": [{
                    "name": "envoy.filters.http.router",
                    "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" },
                }],
            },
        })
    }

    /// The cluster of its own that it needs.
    fn cluster(&self) -> Option<Value> {
        let (Behind::Agent(address) | Behind::Capture(address) | Behind::Hop(address)) = self.behind else {
            return None;
        };
        Some(cluster(
            &self.name,
            &json!({ "socket_address": { "address": address.ip(), "port_value": address.port() } }),
        ))
    }
}

/// A running Envoy.
pub(crate) struct Envoy {
    addresses: Vec<(String, SocketAddr)>,
    process: Process,
}

impl Envoy {
    /// Starts one with these listeners and waits until all of them take connections.
    pub(crate) async fn start(listeners: &[ListenerSpec]) -> Self {
        let dir = TempDir::new().expect("a directory");
        for listener in listeners {
            let own = dir.path().join(&listener.name);
            std::fs::create_dir(&own).expect("a directory for each name");
            put(&own.join(LEAF), &listener.leaf);
            put(&own.join(ROOTS), &listener.roots);
        }
        let all: Vec<Value> = listeners.iter().map(|listener| listener.with_files(dir.path())).collect();
        Self::launch(dir, listeners, json!({ "static_resources": { "listeners": all } })).await
    }

    /// The same for hundreds of listeners, which only [`Envoy::relist`] changes.
    pub(crate) async fn start_many(listeners: &[ListenerSpec]) -> Self {
        let dir = TempDir::new().expect("a directory");
        let list = dir.path().join(LISTENERS);
        put(&list, &resources(listeners));
        let source = json!({ "path_config_source": { "path": list }, "resource_api_version": "V3" });
        Self::launch(dir, listeners, json!({ "dynamic_resources": { "lds_config": source } })).await
    }

    /// Puts these listeners in the place of those that there are; returns once new connections see them. Connections of
    /// listeners that have changed end soon, as those of a pod that has gone.
    pub(crate) async fn relist(&mut self, listeners: &[ListenerSpec]) {
        let socket = self.socket();
        let updates = "listener_manager.lds.update_success";
        let before = stat(&socket, updates).await;
        put(&self.process.dir().join(LISTENERS), &resources(listeners));
        self.process
            .until("the listeners are those of the list", async || {
                let done = stat(&socket, updates).await > before;
                (done && stat(&socket, "listener_manager.total_listeners_warming").await == 0).then_some(())
            })
            .await;
    }

    async fn launch(dir: TempDir, listeners: &[ListenerSpec], mut bootstrap: Value) -> Self {
        let admin = json!({ "pipe": { "path": dir.path().join(ADMIN) } });
        let mut clusters = vec![cluster(ADMIN, &admin)];
        clusters.extend(listeners.iter().filter_map(ListenerSpec::cluster));
        bootstrap["node"] = json!({ "id": "meshscrape-tests", "cluster": "meshscrape-tests" });
        bootstrap["admin"] = json!({ "address": admin });
        bootstrap["static_resources"]["clusters"] = json!(clusters);
        put(&dir.path().join("bootstrap.json"), &bootstrap);
        let arguments =
            ["--config-path", "bootstrap.json", "--concurrency", "1", "--disable-hot-restart", "--drain-time-s", "1"];
        let mut process = Process::start("envoy", dir, &arguments);
        let socket = process.dir().join(ADMIN);
        process
            .until("/ready is 200", async || ask(&socket, "/ready").await.ok().filter(|answer| answer.status == 200))
            .await;
        // Live is said before the workers listen, so each address is there only once its listener is.
        let addresses = process
            .until("every listener has its address", async || {
                let answer = ask(&socket, "/listeners?format=json").await.ok()?;
                let found = listener_addresses(&answer.json());
                (found.len() == listeners.len() && found.iter().all(|(_, address)| address.port() != 0))
                    .then_some(found)
            })
            .await;
        Self { addresses, process }
    }

    /// Where the listener of this name listens.
    pub(crate) fn address(&self, name: &str) -> SocketAddr {
        let (_, address) = self.addresses.iter().find(|(known, _)| known == name).expect("a listener of this name");
        *address
    }

    /// Gives a listener another certificate; returns once new connections see it. Old ones live on, as in Istio.
    pub(crate) async fn rotate_leaf(&mut self, name: &str, leaf: &Leaf) {
        self.replace(name, LEAF, &leaf_secret(leaf)).await;
    }

    /// Gives a listener other roots for its clients; returns once new connections are judged by them.
    pub(crate) async fn set_roots(&mut self, name: &str, clients: &[&Ca]) {
        self.replace(name, ROOTS, &roots_secret(clients)).await;
    }

    /// A counter or gauge by its full name, such as `listener.NAME.ssl.handshake`; 0 while Envoy has none.
    pub(crate) async fn stat(&self, name: &str) -> u64 {
        stat(&self.socket(), name).await
    }

    /// The socket of its admin interface.
    pub(crate) fn admin_socket(&self) -> PathBuf {
        self.socket()
    }

    async fn replace(&mut self, name: &str, file: &str, secret: &Value) {
        let socket = self.socket();
        let updates = format!("listener.{name}.server_ssl_socket_factory.ssl_context_update_by_sds");
        let before = stat(&socket, &updates).await;
        put(&self.process.dir().join(name).join(file), secret);
        let what = format!("{name} takes {file}");
        self.process.until(&what, async || (stat(&socket, &updates).await > before).then_some(())).await;
    }

    fn socket(&self) -> PathBuf {
        self.process.dir().join(ADMIN)
    }
}

const LEAF: &str = "default.json";
const ROOTS: &str = "ROOTCA.json";
const LISTENERS: &str = "listeners.json";
/// The name of the admin interface's socket and of the cluster that leads to it.
const ADMIN: &str = "prometheus_stats";

fn resources(listeners: &[ListenerSpec]) -> Value {
    json!({ "resources": listeners.iter().map(ListenerSpec::whole).collect::<Vec<_>>() })
}

fn added(name: &str, value: &str) -> Value {
    json!({ "header": { "key": name, "value": value }, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD" })
}

fn cluster(name: &str, address: &Value) -> Value {
    json!({
        "name": name,
        "type": "STATIC",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": address } }] }],
        },
    })
}

fn leaf_secret(leaf: &Leaf) -> Value {
    secret(
        "default",
        "tls_certificate",
        &json!({
            "certificate_chain": { "inline_string": leaf.chain_pem() },
            "private_key": { "inline_string": leaf.key_pem() },
        }),
    )
}

fn roots_secret(roots: &[&Ca]) -> Value {
    let bundle: String = roots.iter().map(|ca| ca.pem()).collect();
    secret("ROOTCA", "validation_context", &json!({ "trusted_ca": { "inline_string": bundle } }))
}

fn secret(name: &str, kind: &str, content: &Value) -> Value {
    let secret = json!({
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
        "name": name,
        kind: content,
    });
    json!({ "resources": [secret] })
}

/// Replaces a file in one step, which is also the only change of it that Envoy looks at.
fn put(path: &Path, content: &Value) {
    let temporary = path.with_extension("new");
    std::fs::write(&temporary, content.to_string()).expect("a temporary file");
    std::fs::rename(&temporary, path).expect("a rename");
}

async fn ask(socket: &Path, path: &str) -> Result<Answer, http::Error> {
    http::exchange(UnixStream::connect(socket).await?, "GET", path, &[], Bytes::new()).await
}

async fn stat(socket: &Path, name: &str) -> u64 {
    let answer = ask(socket, &format!("/stats?filter={name}")).await.expect("Envoy's own counters");
    let value = answer.text().lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    value.map_or(0, |value| value.parse().expect("a whole number"))
}

fn listener_addresses(json: &Value) -> Vec<(String, SocketAddr)> {
    let statuses = json["listener_statuses"].as_array().map_or(&[][..], Vec::as_slice);
    let address = |status: &Value| {
        let socket = &status["local_address"]["socket_address"];
        let ip = socket["address"].as_str()?.parse().ok()?;
        Some((
            status["name"].as_str()?.to_owned(),
            SocketAddr::new(ip, u16::try_from(socket["port_value"].as_u64()?).ok()?),
        ))
    };
    statuses.iter().filter_map(address).collect()
}
