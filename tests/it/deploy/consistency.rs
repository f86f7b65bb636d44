//! One version, one configuration, one table: what stands in several places is the same in all.

use super::rendered::{documents, folder, text};

fn read(path: &str) -> String {
    std::fs::read_to_string(folder().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn every_place_names_this_version() {
    let version = env!("CARGO_PKG_VERSION");
    let base = &documents(&read("kustomize/base/kustomization.yaml"))[0];
    assert_eq!(base["images"][0]["newTag"], version);
    assert_eq!(base["labels"][0]["pairs"]["app.kubernetes.io/version"], version);
    let chart = &documents(&read("chart/meshscrape/Chart.yaml"))[0];
    assert_eq!(chart["version"], version);
    assert_eq!(chart["appVersion"], version);
    let recipe = read("image/Containerfile");
    assert!(recipe.contains(&format!("org.opencontainers.image.version={version}")));
    assert!(recipe.contains(&format!("meshscrape:{version} ")), "the command in its comment");
    let values = &documents(&read("chart/meshscrape/values.yaml"))[0];
    assert_eq!(text(&values["image"]["tag"]), "", "that of the chart");
}

#[test]
fn the_base_holds_the_configuration_of_the_repository() {
    let ours = std::fs::read_to_string(folder().join("../config/meshscrape.yaml")).expect("the configuration");
    assert_eq!(read("kustomize/base/meshscrape.yaml"), ours);
}

/// The compiler of the image is one that builds this crate.
#[test]
fn the_image_is_built_with_the_compiler_of_the_manifest() {
    let version = concat!("FROM docker.io/library/rust:", env!("CARGO_PKG_RUST_VERSION"), "-");
    assert!(read("image/Containerfile").contains(version), "{version}");
}

#[test]
fn both_engines_leave_the_same_out_of_the_build() {
    let [ours, theirs] = ["container", "docker"].map(|engine| read(&format!("image/Containerfile.{engine}ignore")));
    assert_eq!(ours, theirs);
}

#[test]
fn every_overlay_and_every_patch_is_in_the_table_of_the_readme() {
    let readme = read("README.md");
    for name in super::rendered::OVERLAYS {
        assert!(readme.contains(&format!("`overlays/{name}`")), "{name}");
    }
    for file in std::fs::read_dir(folder().join("workloads")).expect("the patches") {
        let name = file.expect("a file").file_name().into_string().expect("UTF-8");
        assert!(readme.contains(&format!("(workloads/{name})")), "{name}");
    }
}
