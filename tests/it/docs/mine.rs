//! The folder `mine`, which documents have a reader make, is made by a shell as they say it, and renders what they promise.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::pages::{self, root};
use crate::deploy::rendered::{OVERLAYS, container, folder, kustomization, names, pod};
use crate::support::process;

/// What is written to the folder by all blocks of a document that write to it, in their order.
fn made_by(document: &str) -> Vec<Value> {
    let pages = pages::all();
    let page = pages.iter().find(|page| page.name == document).unwrap_or_else(|| panic!("{document}"));
    let blocks = page.blocks();
    let script: String = blocks
        .iter()
        .filter(|block| block.language == "sh" && block.text.contains("mine/kustomization.yaml"))
        .map(|block| block.text.as_str())
        .collect();
    let dir = tempfile::tempdir().expect("a directory");
    copy(&folder().join("kustomize"), &dir.path().join("deploy/kustomize"));
    let kubectl = process::find("kubectl");
    let beside = kubectl.parent().expect("a directory").display();
    let shell = Command::new("bash")
        .args(["-euc", &script])
        .current_dir(dir.path())
        .env("PATH", format!("{beside}:{}", std::env::var("PATH").expect("PATH")))
        .env("REGISTRY", "registry.example/team")
        .stdin(Stdio::null())
        .output()
        .expect("bash runs");
    assert!(shell.status.success(), "{script}\n{}", String::from_utf8_lossy(&shell.stderr));
    kustomization(&dir.path().join("mine"))
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("a directory") {
        let path = entry.expect("an entry").path();
        let there = to.join(path.file_name().expect("a name"));
        match path.is_dir() {
            true => copy(&path, &there),
            false => drop(std::fs::copy(&path, there).expect("a copy")),
        }
    }
}

#[test]
fn the_folder_of_getting_started_is_the_agents_and_a_prometheus() {
    let objects = made_by("docs/getting-started.md");
    assert_eq!(container(&objects)["image"], "registry.example/team/meshscrape:0.1.0");
    assert_eq!(pod(&objects)["imagePullSecrets"], json!([{ "name": "pull" }]));
    assert!(names(&objects).contains(&"Deployment prometheus".to_owned()));
}

#[test]
fn the_folder_of_the_readme_is_the_default_with_ones_own_image() {
    let objects = made_by("deploy/README.md");
    assert_eq!(container(&objects)["image"], "registry.example/team/meshscrape:0.1.0");
    let default = names(&crate::deploy::rendered::overlay("istio"));
    assert_eq!(names(&objects), default);
}

/// The overlays that documents name are there.
#[test]
fn the_overlays_of_the_documents_are_there() {
    let mut count = 0;
    for page in pages::all() {
        for (at, _) in page.text.match_indices("overlays/") {
            let name: String =
                page.text[at + 9..].chars().take_while(|c| c.is_ascii_lowercase() || *c == '-').collect();
            assert!(OVERLAYS.contains(&&*name), "{}: overlays/{name}", page.name);
            count += 1;
        }
    }
    assert!(count > 20 && root().join("deploy").exists(), "{count} names are all that were found");
}
