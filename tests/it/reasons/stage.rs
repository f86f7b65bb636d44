//! What the rows stand on: a mesh, pods behind two real Envoys, and applications behind those.
//!
//! One Envoy has its secrets in files, which are replaced while it runs; each file costs one of the system's watchers, so only
//! who needs another certificate is there. The listeners of the other one are replaced all at once, as pods are that
//! start anew.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use meshscrape::model::Reason;
use tempfile::TempDir;

use super::job::Job;
use crate::support::ca::{Ca, CertsDir, Leaf};
use crate::support::envoy::{Envoy, ListenerSpec};
use crate::support::loopback;
use crate::support::mesh::{CART, SCRAPER};
use crate::support::tls_server::{Reply, Script, Server, Talk, always};

/// What a hint asks to be done.
pub(super) enum Mend {
    /// The configuration is written differently.
    Configuration(Job),
    /// The pod gets another certificate.
    Certificate(Leaf),
    /// The pod's proxy gets these roots for its clients.
    Roots,
    /// The pod starts anew with the listeners of [`Stage::anew`].
    Anew,
    /// A file gets this content.
    File(PathBuf, Vec<u8>),
    /// Our certificate comes.
    OurCertificate(CertsDir),
    /// The root of the other mesh is added to ours.
    OurRoots(CertsDir),
    /// Who stands behind comes to its senses.
    Application(tokio::sync::watch::Sender<bool>),
    /// Somebody takes the connections at last.
    Accepting(TcpListener, Talk),
}

/// One reason on a real part.
pub(super) struct Row {
    pub(super) reason: Reason,
    /// The job that fails for it.
    pub(super) job: Job,
    /// Words of the hint that ask for what mends it.
    pub(super) asks: &'static str,
    pub(super) mend: Mend,
}

impl Row {
    /// A row whose hint asks for another configuration.
    pub(super) fn rewritten(reason: Reason, job: Job, asks: &'static str, after: Job) -> Self {
        Self { reason, job, asks, mend: Mend::Configuration(after) }
    }

    /// The job once the hint was followed.
    pub(super) fn mended(&self) -> &Job {
        match &self.mend {
            Mend::Configuration(job) => job,
            _ => &self.job,
        }
    }
}

/// The mesh, and what is to run in it.
pub(super) struct Stage {
    pub(super) ca: Ca,
    /// Another mesh, whose root has the same name.
    pub(super) other: Ca,
    /// Our certificates.
    pub(super) certs: CertsDir,
    /// A pod that nothing is wrong with.
    pub(super) well: SocketAddr,
    dir: TempDir,
    application: Server,
    /// Pods whose certificates are files.
    rotating: Vec<ListenerSpec>,
    pods: Vec<ListenerSpec>,
    anew: Vec<ListenerSpec>,
    behind: Vec<Server>,
    pub(super) sockets: Vec<std::net::TcpStream>,
}

impl Stage {
    pub(super) fn new() -> Self {
        let (ca, other) = (Ca::new("cluster.local"), Ca::new("cluster.local"));
        let dir = TempDir::new().expect("a directory");
        let certs = directory(dir.path(), "certs");
        certs.write(&ca.leaf(SCRAPER), &[&ca]);
        let application = Server::start(Talk::Plain(always(Reply::ok("beans 1\n"))));
        let mut stage = Self {
            ca,
            other,
            certs,
            well: ([127, 0, 0, 1], 1).into(),
            dir,
            application,
            rotating: Vec::new(),
            pods: Vec::new(),
            anew: Vec::new(),
            behind: Vec::new(),
            sockets: Vec::new(),
        };
        stage.well = stage.pod("well", &stage.ca.leaf(CART));
        stage
    }

    /// The directory for everything.
    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A certificate of the workload that must answer.
    pub(super) fn cart(&self) -> Leaf {
        self.ca.leaf(CART)
    }

    /// A job for a pod, with our certificates.
    pub(super) fn job(&self, address: SocketAddr) -> Job {
        Job::of_mesh(self.certs.path(), address)
    }

    /// A directory for certificates, still empty.
    pub(super) fn directory(&self, name: &str) -> CertsDir {
        directory(self.dir.path(), name)
    }

    /// A directory with certificates of ours.
    pub(super) fn own_certs(&self, name: &str) -> CertsDir {
        let certs = self.directory(name);
        certs.write(&self.ca.leaf(SCRAPER), &[&self.ca]);
        certs
    }

    /// A pod with this certificate and a good application.
    pub(super) fn pod(&mut self, name: &str, leaf: &Leaf) -> SocketAddr {
        let spec = ListenerSpec::merged(name, leaf, &[&self.ca], self.application.socket());
        self.listens(spec)
    }

    /// The job of a pod whose application answers so.
    pub(super) fn application(&mut self, reason: Reason, script: Script) -> Job {
        let server = Server::start(Talk::Plain(script));
        let spec = ListenerSpec::merged(reason.name(), &self.cart(), &[&self.ca], server.socket());
        self.behind.push(server);
        let address = self.listens(spec);
        self.job(address)
    }

    /// The pod of a reason whose certificate, or whose roots, are to be replaced: those of our mesh, or of the other one.
    pub(super) fn rotating(&mut self, reason: Reason, leaf: &Leaf, knows_us: bool) -> SocketAddr {
        let clients = if knows_us { &self.ca } else { &self.other };
        let spec = ListenerSpec::merged(reason.name(), leaf, &[clients], self.application.socket());
        let (spec, address) = placed(spec);
        self.rotating.push(spec);
        address
    }

    /// A listener that stays when others start anew.
    pub(super) fn listens(&mut self, spec: ListenerSpec) -> SocketAddr {
        let (spec, address) = placed(spec);
        self.pods.push(spec.clone());
        self.anew.push(spec);
        address
    }

    /// A listener in whose place another one comes, at the same address.
    pub(super) fn replaced(&mut self, before: ListenerSpec, after: ListenerSpec) -> SocketAddr {
        let (ip, port) = place();
        self.pods.push(before.on_ip(ip).on_port(port));
        self.anew.push(after.on_ip(ip).on_port(port));
        (ip, port).into()
    }

    /// An address at which nobody listens before pods start anew.
    pub(super) fn later(&mut self, spec: ListenerSpec) -> SocketAddr {
        let (spec, address) = placed(spec);
        self.anew.push(spec);
        address
    }

    /// A server that is needed as long as the stage.
    pub(super) fn keep(&mut self, server: Server) -> SocketAddr {
        let address = server.socket();
        self.behind.push(server);
        address
    }

    /// Starts both Envoys.
    pub(super) async fn start(&self) -> Envoys {
        let rotating = Envoy::start(&self.rotating).await;
        Envoys { rotating, pods: Envoy::start_many(&self.pods).await }
    }

    /// Does what the hints of these rows ask for, but for what they ask to be configured.
    pub(super) async fn mend(&mut self, envoys: &mut Envoys, rows: Vec<Row>) {
        let mut anew = false;
        for Row { reason, mend, .. } in rows {
            match mend {
                Mend::Configuration(_) => {}
                Mend::Certificate(leaf) => envoys.rotating.rotate_leaf(reason.name(), &leaf).await,
                Mend::Roots => envoys.rotating.set_roots(reason.name(), &[&self.ca]).await,
                Mend::Anew => anew = true,
                Mend::File(path, content) => std::fs::write(path, content).expect("written"),
                Mend::OurCertificate(certs) => certs.write(&self.ca.leaf(SCRAPER), &[&self.ca]),
                Mend::OurRoots(certs) => certs.write_roots(&[&self.ca, &self.other]),
                Mend::Application(well) => _ = well.send_replace(true),
                Mend::Accepting(socket, talk) => _ = self.keep(Server::on(socket, talk)),
            }
        }
        if anew {
            envoys.pods.relist(&self.anew).await;
        }
    }
}

/// The running Envoys.
pub(super) struct Envoys {
    rotating: Envoy,
    pods: Envoy,
}

fn directory(dir: &Path, name: &str) -> CertsDir {
    let path = dir.join(name);
    std::fs::create_dir(&path).expect("a directory of this name");
    CertsDir::at(&path)
}

/// An address that nobody else has.
fn place() -> (Ipv4Addr, u16) {
    let ip = loopback();
    let socket = TcpListener::bind((ip, 0)).expect("a free port");
    (ip, socket.local_addr().expect("it is bound").port())
}

/// The listener at an address that nobody else has.
pub(crate) fn placed(spec: ListenerSpec) -> (ListenerSpec, SocketAddr) {
    let (ip, port) = place();
    (spec.on_ip(ip).on_port(port), (ip, port).into())
}

/// An application that answers `ill` until it has come to its senses.
pub(super) fn ill(ill: Reply) -> (Script, tokio::sync::watch::Sender<bool>) {
    let (sender, well) = tokio::sync::watch::channel(false);
    let script = move |_: &_| if *well.borrow() { Reply::ok("beans 1\n") } else { ill.clone() };
    (std::sync::Arc::new(script), sender)
}

/// An answer with this body, compressed.
pub(super) fn gzipped(body: &[u8]) -> Reply {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).expect("in memory");
    let body = encoder.finish().expect("in memory");
    typed("text/plain; version=0.0.4\r\nContent-Encoding: gzip", &body)
}

/// An answer of this type.
pub(super) fn typed(kind: &str, body: &[u8]) -> Reply {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nContent-Type: {kind}\r\n\r\n", body.len());
    Reply::raw([head.as_bytes(), body].concat(), crate::support::tls_server::Then::Keep)
}
