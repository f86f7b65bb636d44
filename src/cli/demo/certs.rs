//! Certificate directories as Istio's OUTPUT_CERTS leaves them, and the plan by which they rotate.
//!
//! A set is three files, written one after the other in Istio's order (`key.pem`, `cert-chain.pem`, `root-cert.pem`),
//! each under a temporary name and renamed: each file is whole at every moment, the *set* is not, and between the first
//! and the second rename key and leaf do not belong together. A reader has to live with that; the demo lingers there on
//! purpose. The roots change once, in the order that never breaks a mesh: old, old and new, new.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::fs;
use tokio::io::AsyncWriteExt;

use super::ca::Issued;

/// The private key's file.
pub(super) const KEY: &str = "key.pem";
/// The leaf's file, with whatever leads from it to a root.
pub(super) const CHAIN: &str = "cert-chain.pem";
/// The file of the roots that are trusted.
pub(super) const ROOT: &str = "root-cert.pem";

/// A directory of our own under the system's temporary one, readable by nobody else and gone with this value.
#[derive(Debug)]
pub(super) struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// Makes the directory. Its name is random and it must not exist yet, so that nobody can have prepared it.
    pub(super) fn new() -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("meshscrape-demo-{:08x}", rand::random::<u32>()));
        let mut builder = std::fs::DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(&path)?;
        Ok(Self { path })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Nothing useful can be done here if it fails, and the system clears its temporary directory by itself.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// One OUTPUT_CERTS directory.
#[derive(Clone, Debug)]
pub(super) struct CertDir {
    path: PathBuf,
}

impl CertDir {
    /// Makes an empty one at `path`.
    pub(super) async fn create(path: PathBuf) -> io::Result<Self> {
        fs::create_dir(&path).await?;
        Ok(Self { path })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a set in Istio's order, lingering for `pause` after each file.
    pub(super) async fn write(&self, issued: &Issued, bundle: &str, pause: Duration) -> io::Result<()> {
        for (name, text) in [(KEY, issued.key_pem.as_str()), (CHAIN, &issued.chain_pem), (ROOT, bundle)] {
            self.replace(name, text).await?;
            tokio::time::sleep(pause).await;
        }
        Ok(())
    }

    async fn replace(&self, name: &str, text: &str) -> io::Result<()> {
        let temporary = self.path.join(format!("{name}.tmp.{:08x}", rand::random::<u32>()));
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        options.mode(0o600);
        let mut file = options.open(&temporary).await?;
        file.write_all(text.as_bytes()).await?;
        file.flush().await?;
        drop(file);
        fs::rename(&temporary, self.path.join(name)).await
    }
}

/// How far the change of roots has come. Every workload has to reach a stage before any may enter the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RootStage {
    /// The old root signs and is the only one trusted.
    Old,
    /// Both are trusted, the old one still signs.
    Both,
    /// Both are trusted, the new one signs.
    Moved,
    /// The new root signs and is the only one trusted; who kept an old leaf is out.
    New,
}

impl RootStage {
    /// The stage of the `number`th rotation; 0 is the set at the start.
    pub(super) fn at(number: u32) -> Self {
        match number {
            0..=1 => RootStage::Old,
            2 => RootStage::Both,
            3 => RootStage::Moved,
            _ => RootStage::New,
        }
    }

    /// The roots that are trusted, in words.
    pub(super) fn trusted(self) -> &'static str {
        match self {
            RootStage::Old => "old",
            RootStage::Both | RootStage::Moved => "old+new",
            RootStage::New => "new",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn set(tag: &str) -> Issued {
        Issued { key_pem: format!("key {tag}"), chain_pem: format!("chain {tag}") }
    }

    fn names(dir: &Path) -> BTreeSet<String> {
        std::fs::read_dir(dir)
            .expect("dir")
            .map(|e| e.expect("entry").file_name().into_string().expect("utf-8"))
            .collect()
    }

    #[tokio::test]
    async fn a_set_replaces_the_one_before_and_leaves_nothing_else() {
        let scratch = Scratch::new().expect("scratch");
        let dir = CertDir::create(scratch.path().join("agent")).await.expect("dir");
        for tag in ["a", "b"] {
            dir.write(&set(tag), &format!("root {tag}"), Duration::ZERO).await.expect("written");
        }
        assert_eq!(names(dir.path()), BTreeSet::from([CHAIN, KEY, ROOT].map(String::from)));
        for (name, text) in [(KEY, "key b"), (CHAIN, "chain b"), (ROOT, "root b")] {
            assert_eq!(std::fs::read_to_string(dir.path().join(name)).expect(name), text);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_key_changes_first_and_the_root_last() {
        let scratch = Scratch::new().expect("scratch");
        let dir = CertDir::create(scratch.path().join("agent")).await.expect("dir");
        dir.write(&set("a"), "root a", Duration::ZERO).await.expect("written");

        let read = |name| std::fs::read_to_string(dir.path().join(name)).expect(name);
        let next = set("b");
        let write = dir.write(&next, "root b", Duration::from_secs(10));
        let watch = async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            assert_eq!([read(KEY), read(CHAIN), read(ROOT)], ["key b", "chain a", "root a"]);
            tokio::time::sleep(Duration::from_secs(10)).await;
            assert_eq!([read(KEY), read(CHAIN), read(ROOT)], ["key b", "chain b", "root a"]);
        };
        let (written, ()) = tokio::join!(write, watch);
        written.expect("written");
        assert_eq!(read(ROOT), "root b");
    }

    #[test]
    fn a_scratch_directory_is_private_and_goes_with_its_owner() {
        let scratch = Scratch::new().expect("scratch");
        let path = scratch.path().to_owned();
        std::fs::write(path.join("file"), "x").expect("written");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o700);
        }
        drop(scratch);
        assert!(!path.exists());
    }

    #[test]
    fn roots_change_without_a_gap() {
        let trusted: Vec<_> = (0..6).map(|number| RootStage::at(number).trusted()).collect();
        assert_eq!(trusted, ["old", "old", "old+new", "old+new", "new", "new"]);
    }
}
