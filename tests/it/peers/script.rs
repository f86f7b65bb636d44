//! `tests/peers.sh`: where it looks for a program, and what it says of one that is not there.

use std::borrow::BorrowMut;
use std::ffi::OsStr;
use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers.sh");

#[test]
fn a_peer_that_is_missing_or_not_one_is_said_in_a_sentence() {
    let find = |name: &str, variable: &str, value: &str| {
        refusal(Command::new(SCRIPT).args(["find", name]).env(variable, value))
    };
    assert_eq!(
        find("envoy", "MESHSCRAPE_ENVOY", "/bin/sh"),
        "peers: MESHSCRAPE_ENVOY names /bin/sh, which is not envoy 1.40 or newer, or does not tell its version\n"
    );
    assert_eq!(
        find("gateway", "PATH", "/usr/bin:/bin"),
        "peers: no peer is called 'gateway'; there are: envoy prometheus promtool victoria-metrics vmagent etcd \
         kube-apiserver kubectl strace ip libfaketime helm chromium playwright cargo-deny \
         kube-controller-manager kube-scheduler kubelet kube-proxy containerd cni runc nft \
         xtables-nft-multi ipset\n"
    );
}

#[test]
fn an_own_program_goes_before_the_kubebuilder_assets_and_these_before_the_path() {
    let tree = Tree::new();
    let [own, assets, path] =
        ["own", "assets", "bin"].map(|dir| tree.program(dir, "kubectl", "Client Version: v1.99.1"));
    let find = |variables: &[(&str, &Path)]| {
        let output = tree.script(&["find", "kubectl"]).envs(variables.iter().copied()).output().expect("it runs");
        String::from_utf8(output.stdout).expect("a path").trim_end().to_owned()
    };
    let assets_dir = assets.parent().expect("a directory");
    assert_eq!(find(&[]), path.display().to_string());
    assert_eq!(find(&[("KUBEBUILDER_ASSETS", assets_dir)]), assets.display().to_string());
    assert_eq!(find(&[("KUBEBUILDER_ASSETS", assets_dir), ("MESHSCRAPE_KUBECTL", &own)]), own.display().to_string());
    tree.program("assets", "kubectl", "Client Version: v1.5.0");
    assert_eq!(find(&[("KUBEBUILDER_ASSETS", assets_dir)]), path.display().to_string(), "too old to be taken");
}

#[test]
fn what_cannot_be_had_is_left_out_and_said_at_the_end() {
    let tree = Tree::new();
    let why = "is not here and building it needs Go 1.25 or newer, which is not here; put";
    let wish = tree.script(&["find", "helm"]);
    assert_eq!(
        refusal(wish),
        "peers: helm 3.17 or newer is missing, and building it needs Go 1.25 or newer, which is not here; \
         put helm 3.17 or newer on PATH, or name one in MESHSCRAPE_HELM\n"
    );

    let run = |program: &str| {
        let output = tree.script(&["test", "sh", "-c", program, "sh"]).output().expect("it runs");
        (output.status.code(), String::from_utf8(output.stdout).expect("text"))
    };
    tree.program("bin", "kubectl", "Client Version: v1.99.1");
    let (status, said) = run("echo \"$@\"; exit 3");
    assert_eq!(status, Some(3), "the run's own end counts");
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[0], "-- --skip cluster:: --skip helm:: --skip page::browser::");
    assert!(
        lines[1]
            .starts_with(&format!("not run: the tests named cluster::, because kube-apiserver 1.34 or newer {why}"))
    );
    assert!(lines[2].starts_with(&format!("not run: the tests named helm::, because helm 3.17 or newer {why}")));
    assert_eq!(
        lines[3],
        "not run: the tests named page::browser::, because playwright 1.65 or newer is not here and running it needs \
         Node.js 20 or newer with npm, which is not here; name one in MESHSCRAPE_PLAYWRIGHT"
    );
    assert_eq!(lines.len(), 4);

    tree.program("bin", "npm", "1");
    tree.program("bin", "node", "v18.20.1");
    assert!(run("echo \"$@\"").1.contains("running it needs Node.js 20 or newer, and this is v18.20.1"));
    tree.program("bin", "node", "v20.0.0");
    tree.program("bin", "kube-apiserver", "Kubernetes v1.99.1");
    tree.program("bin", "helm", "version.BuildInfo{Version:\"v3.99.1\"}");
    assert_eq!(run("echo $#"), (Some(0), "0\n".to_owned()));

    tree.program("bin", "kube-apiserver", "Kubernetes v1.2.3");
    tree.program("bin", "go", "off");
    assert!(run("echo \"$@\"").1.contains("GOPROXY=off forbids"));
    tree.program("bin", "go", "elsewhere");
    assert_eq!(run("echo $#"), (Some(0), "0\n".to_owned()), "it could be built, so a run without it must fail");
    let missing = refusal(tree.script(&["find", "kube-apiserver"]));
    assert!(missing.contains("is missing: run 'tests/peers.sh install kube-apiserver'"), "{missing}");
}

/// What is left out without an API server are the modules `cluster`, so whatever uses one must stand in one.
#[test]
fn only_the_chapters_named_cluster_need_an_api_server() {
    let chapters = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it");
    let mut outside = Vec::new();
    let mut folders = vec![chapters.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let inside = path.strip_prefix(&chapters).expect("below it");
            let named = |part: &OsStr| part == "cluster" || part == "cluster.rs";
            if inside.starts_with("support") || inside.iter().any(named) {
                continue;
            } else if path.is_dir() {
                folders.push(path);
            } else if std::fs::read_to_string(&path).expect("text").contains(concat!("support::", "kubernetes")) {
                outside.push(inside.display().to_string());
            }
        }
    }
    assert_eq!(outside, Vec::<String>::new());
}

/// What the script says on standard error when it fails without a path.
fn refusal(mut command: impl BorrowMut<Command>) -> String {
    let output = command.borrow_mut().output().expect("it runs");
    assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
    String::from_utf8(output.stderr).expect("text")
}

/// A source tree in which nothing has been fetched yet, on a machine that has only what the script itself needs.
struct Tree(TempDir);

impl Tree {
    fn new() -> Self {
        let tree = Self(TempDir::new().expect("a directory"));
        let root = tree.0.path();
        std::fs::create_dir_all(root.join("tests/peers")).expect("a directory");
        std::fs::copy(SCRIPT, root.join("tests/peers.sh")).expect("the script");
        std::fs::create_dir(root.join("bin")).expect("a directory");
        let path = std::env::var_os("PATH").expect("a path");
        for tool in ["bash", "cat", "dirname", "grep", "head", "readlink", "sh", "sort"] {
            let real = std::env::split_paths(&path).map(|dir| dir.join(tool)).find(|file| file.is_file());
            symlink(real.expect("an ordinary machine"), root.join("bin").join(tool)).expect("a link");
        }
        tree
    }

    /// A program in a directory of the tree that says something, whatever it is asked.
    fn program(&self, dir: &str, name: &str, says: &str) -> PathBuf {
        let file = self.0.path().join(dir).join(name);
        std::fs::create_dir_all(file.parent().expect("a directory")).expect("a directory");
        std::fs::write(&file, format!("#!/bin/sh\necho '{says}'\n")).expect("a program");
        std::fs::set_permissions(&file, Permissions::from_mode(0o755)).expect("it may run");
        file
    }

    fn script(&self, arguments: &[&str]) -> Command {
        let root = self.0.path();
        let mut command = Command::new(root.join("tests/peers.sh"));
        command.args(arguments).env_clear().env("PATH", root.join("bin"));
        command
    }
}
