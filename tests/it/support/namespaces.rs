//! A corner of the machine of its own for a program under test: file systems or networks that nobody else sees, and that
//! are gone when the value is dropped or the test run dies.
//!
//! They are namespaces of Linux inside a user namespace, so that root is not needed where users may have those. Where they
//! may not, the test fails with a sentence that says so: nothing here skips.

use std::io::{BufRead, BufReader, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tempfile::TempDir;

use super::process::find;

/// Two networks with a cable between them.
const TWO_NETWORKS: &str = r#"
ip=$0
exec 3<&0
unshare --net cat <&3 >/dev/null & far=$!
while [ "$(readlink /proc/$far/ns/net)" = "$(readlink /proc/$$/ns/net)" ]; do kill -0 $far; done
"$ip" link add near type veth peer name far netns $far
"$ip" link set lo up
"$ip" address add 10.0.0.1/24 dev near
"$ip" link set near up
nsenter --target $far --net "$ip" address add 10.0.0.2/24 dev far
nsenter --target $far --net "$ip" link set far up
echo $far
exec cat <&3
"#;

/// Listens in the network that it runs in, and gives the socket to whoever waits behind a path.
const LISTEN: &str = "
import socket, sys
listener = socket.create_server((sys.argv[1], 0))
way = socket.socket(socket.AF_UNIX)
way.connect(sys.argv[2])
socket.send_fds(way, [b'.'], [listener.fileno()])
";

/// Who keeps the namespaces.
struct Keeper {
    child: Child,
    /// What was said when all was there.
    said: String,
}

impl Keeper {
    /// `setup` runs as root inside and ends in the `cat` of its standard input, after a line that is kept.
    fn start(kind: &str, setup: &str, argument: &Path) -> Self {
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", kind, "sh", "-ec", setup]).arg(argument);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("unshare is there: it is of util-linux");
        let mut said = String::new();
        let output = child.stdout.as_mut().expect("it is piped");
        BufReader::new(output).read_line(&mut said).expect("readable");
        if !said.ends_with('\n') {
            let output = child.wait_with_output().expect("it ends");
            panic!(
                "this machine lets us have no namespaces ({kind}), which this test needs; run it as root, or allow users to \
                 have them (sysctl kernel.unprivileged_userns_clone, user.max_user_namespaces): {}",
                String::from_utf8_lossy(&output.stderr).trim_end()
            );
        }
        Self { child, said: said.trim_end().to_owned() }
    }

    /// A command that runs in the namespaces of that process.
    fn inside(pid: &str, kind: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", pid, "--user", "--preserve-credentials", kind]);
        command
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // It ends with its input; an error would mean that it is gone already.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// Runs a command to its good end.
fn run(mut command: Command) {
    let output = command.output().expect("it starts");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A small file system in memory that only programs started through it see.
pub(crate) struct SmallDisk {
    keeper: Keeper,
    path: std::path::PathBuf,
}

impl SmallDisk {
    /// Of so many MiB, at this directory.
    pub(crate) fn at(path: &Path, mib: u32) -> Self {
        std::fs::create_dir_all(path).expect("a directory");
        let setup = format!(r#"mount -t tmpfs -o size={mib}m,mode=0700 none "$0"; echo; exec cat"#);
        Self { keeper: Keeper::start("--mount", &setup, path), path: path.to_owned() }
    }

    /// A command that sees it.
    pub(crate) fn inside(&self) -> Command {
        Keeper::inside(&self.keeper.child.id().to_string(), "--mount")
    }

    /// Where this process, which does not see it, finds what is in it.
    pub(crate) fn outside(&self) -> std::path::PathBuf {
        let root = format!("/proc/{}/root", self.keeper.child.id());
        Path::new(&root).join(self.path.strip_prefix("/").expect("an absolute path"))
    }

    /// Runs a script inside, with the path as `$0`.
    pub(crate) fn sh(&self, script: &str) {
        let mut command = self.inside();
        command.args(["sh", "-ec", script]).arg(&self.path);
        run(command);
    }
}

/// Two networks with a cable between them.
pub(crate) struct TwoNetworks {
    keeper: Keeper,
    dir: TempDir,
}

impl TwoNetworks {
    pub(crate) fn new() -> Self {
        let keeper = Keeper::start("--net", TWO_NETWORKS, &find("ip"));
        Self { keeper, dir: TempDir::new().expect("a directory") }
    }

    /// A command that runs in the first one.
    pub(crate) fn near(&self) -> Command {
        Keeper::inside(&self.keeper.child.id().to_string(), "--net")
    }

    fn far(&self) -> Command {
        Keeper::inside(&self.keeper.said, "--net")
    }

    /// A socket that listens on loopback in the first one, for use in this process.
    pub(crate) fn listen_near(&self) -> TcpListener {
        self.listen(self.near(), "127.0.0.1")
    }

    /// A socket that listens in the second one, reached from the first one over the cable.
    pub(crate) fn listen_far(&self) -> TcpListener {
        self.listen(self.far(), "10.0.0.2")
    }

    fn listen(&self, mut command: Command, host: &str) -> TcpListener {
        let path = self.dir.path().join(host);
        let way = UnixListener::bind(&path).expect("a socket with a name");
        command.args(["python3", "-c", LISTEN, host]).arg(&path);
        // It waits in the backlog with what it has brought.
        run(command);
        let (stream, _) = way.accept().expect("it was there");
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let (mut control, mut byte) = (RecvAncillaryBuffer::new(&mut space), [0]);
        recvmsg(&stream, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC).expect("a message");
        let mut sockets = control.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(sockets) => Some(sockets),
            _ => None,
        });
        let socket = sockets.next().and_then(|mut sockets| sockets.next()).expect("a socket");
        let listener = TcpListener::from(socket);
        let address: SocketAddr = listener.local_addr().expect("it is bound");
        assert_eq!(address.ip().to_string(), host);
        listener
    }

    /// Pulls the cable, so that nothing comes through and nobody is told, or plugs it in again.
    pub(crate) fn cable(&self, plugged: bool) {
        let mut command = self.far();
        command.arg(find("ip")).args(["link", "set", "far", if plugged { "up" } else { "down" }]);
        run(command);
    }
}
