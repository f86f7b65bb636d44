//! Would anybody notice if the verifier said yes to everything?
//!
//! A copy of this crate is changed in one place, so that the verifier's answer is always "yes", and built beside
//! this one (the dependencies are shared). There every test of a refusal must fail, each row of its tables by name. A test
//! that still passes there does not test the verifier.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use meshscrape::model::Reason;

use crate::identity::CART;
use crate::refusals::SCENARIOS;
use crate::support::ca::{Ca, refused_leaves};

/// Modules in which every test must fail, and whole-way tests that must, too: the agent's, the command's and the demo's.
const CHAPTERS: [&str; 6] = [
    "identity::refused::",
    "refused::every_way_to_be_refused_over_tls_1_3",
    "refused::every_way_to_be_refused_over_tls_1_2",
    "status::mesh::nobody_else_gets_a_byte",
    "cli::every_way_to_fail_has_its_sentence_its_hint_and_its_exit_code",
    "demo::every_promise_is_kept_and_nothing_is_left_behind",
];

/// The tests of whole connections that are refused for what only the verifier sees.
fn refused_connections() -> impl Iterator<Item = String> {
    use Reason::{
        CertificateExpired, CertificateNotYetValid, IdentityMismatch, InvalidSvid, NoSpiffeId, UnknownAuthority,
    };
    let reasons =
        [CertificateExpired, CertificateNotYetValid, IdentityMismatch, InvalidSvid, NoSpiffeId, UnknownAuthority];
    let rows = SCENARIOS.iter().filter(move |row| reasons.contains(&row.reason));
    rows.map(|row| format!("refusals::{}", row.test))
}

/// What the verifier's decision is, and what it becomes: whoever answers is the one we expect.
const DECISION: &str = "let verdict = self.decide(leaf, intermediates, now);";
const FORCED: &str = "let verdict = self.decide(leaf, intermediates, now).or_else(|_| {
    let wall = UNIX_EPOCH + Duration::from_secs(now.as_secs());
    let anchor = Arc::new(self.credentials.roots.valid_at(wall).remove(0));
    let not_after = wall + Duration::from_secs(3600);
    Ok::<_, Failure>(Verdict { id: self.peer.expected().clone(), exact: true, not_after, anchor })
});";

#[test]
fn with_a_verifier_that_says_yes_every_refusal_fails() {
    let test = std::env::current_exe().expect("this test");
    // target/<profile>/deps/it-…
    let target = test.ancestors().nth(3).expect("the target directory");
    let release = test.parent().and_then(Path::parent).is_some_and(|profile| profile.ends_with("release"));
    let copy = target.join("forced-yes");
    copy_crate(Path::new(env!("CARGO_MANIFEST_DIR")), &copy);
    let verifier = copy.join("src/identity/verify.rs");
    let code = fs::read_to_string(&verifier).expect("the verifier");
    assert_eq!(code.matches(DECISION).count(), 1, "the verifier decides in one place: {DECISION}");
    fs::write(&verifier, code.replace(DECISION, FORCED)).expect("written");
    // Under a version of its own: what is built of the copy must never be taken for the real thing.
    let manifest = fs::read_to_string(copy.join("Cargo.toml")).expect("the manifest");
    let version = concat!("version = \"", env!("CARGO_PKG_VERSION"), "\"");
    assert!(manifest.contains(version), "the manifest names its version: {version}");
    let renamed = manifest.replacen(version, "version = \"0.0.0-says-yes\"", 1);
    fs::write(copy.join("Cargo.toml"), renamed).expect("written");

    // Building takes all the machine gives; what else is tested now, some of it against the clock, goes first.
    let mut cargo = Command::new("nice");
    cargo.args(["-n", "19", env!("CARGO"), "test", "--offline", "--test", "it"]).args(release.then_some("--release"));
    let names: Vec<String> = CHAPTERS.into_iter().map(str::to_owned).chain(refused_connections()).collect();
    cargo.arg("--").args(&names).current_dir(&copy);
    // What is built for both is taken from here; what has a name of its own, such as the program, goes to a place apart.
    cargo.env("CARGO_BUILD_BUILD_DIR", target).env("CARGO_TARGET_DIR", copy.join("target"));
    let output = cargo.output().expect("cargo");
    let (said, told) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));

    let own_name = test.file_name().expect("a name").to_string_lossy();
    assert!(!told.contains(&*own_name), "the copy was built over the real thing, remove the target directory:\n{told}");
    assert!(names.len() >= CHAPTERS.len() + 30, "most of the rows of refusals are the verifier's: {names:?}");
    for chapter in names {
        let results: Vec<_> = said.lines().filter(|line| line.starts_with(&format!("test {chapter}"))).collect();
        assert!(!results.is_empty(), "{chapter} did not run:\n{told}");
        let passed: Vec<_> = results.iter().filter(|line| !line.ends_with("FAILED")).collect();
        assert!(passed.is_empty(), "these do not test the verifier: {passed:?}");
    }
    for (name, _, _) in refused_leaves(&Ca::new("cluster.local"), CART) {
        assert!(said.contains(&format!("[{name}]")), "{name:?} is refused by somebody else than the verifier");
    }
}

/// Everything that is versioned, or could be: all but the target directory and hidden files.
fn copy_crate(from: &Path, to: &Path) {
    for part in ["src", "tests", "benches", "config"] {
        // A file that is gone here must not live on there.
        let _ = fs::remove_dir_all(to.join(part));
    }
    let mut waiting = vec![(from.to_owned(), to.to_owned())];
    while let Some((from, to)) = waiting.pop() {
        fs::create_dir_all(&to).expect("a directory");
        for entry in fs::read_dir(&from).expect("readable") {
            let entry = entry.expect("readable");
            let name: PathBuf = entry.file_name().into();
            if name.starts_with("target") || name.to_string_lossy().starts_with('.') {
                continue;
            }
            if entry.file_type().expect("known").is_dir() {
                waiting.push((entry.path(), to.join(&name)));
            } else {
                fs::copy(entry.path(), to.join(&name)).expect("copied");
            }
        }
    }
}
