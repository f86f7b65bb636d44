//! Certificates that change, break, vanish and come back under a running watcher.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use meshscrape::identity::IdentitySnapshot;

use super::*;
use crate::support::ca::pem;

#[tokio::test]
async fn files_that_are_missing_at_start_are_waited_for() {
    let (world, ca) = (World::new(), Ca::new("cluster.local"));
    let waiting = world.eventually(|now| now.problems.len() == 2).await;
    assert!(waiting.problems[0].ends_with("cert-chain.pem does not exist (yet)"), "{:?}", waiting.problems);
    assert_eq!(waiting.not_ready.expect("not ready").reason, Reason::NoOwnCertificate);
    let read = world.until(|now| now.is_read()).await;
    assert_eq!(read.generation(), 0, "they have been read, and nothing is loaded");

    world.certs.write(&ca.leaf(OURS), &[&ca]);
    let now = world.until_ready().await;
    assert_eq!(now.trust_domain().expect("from our certificate").as_str(), "cluster.local");
    assert_eq!(now.own().expect("loaded").id(), Some(&id(OURS)));
    let snapshot = world.eventually(|now| now.problems.is_empty()).await;
    assert_eq!((snapshot.own_certificate_untrusted, snapshot.roots.len()), (None, 1));
}

#[tokio::test]
async fn a_change_is_live_within_a_second() {
    let (world, ca) = World::loaded().await;
    let mut waited = Vec::new();
    for _ in 0..5 {
        let (leaf, before) = (ca.leaf(OURS), Instant::now());
        world.certs.write_leaf(&leaf);
        world.until_own(&leaf).await;
        waited.push(before.elapsed());
    }
    waited.sort();
    assert!(waited[2] < Duration::from_secs(1), "{waited:?}");
}

#[tokio::test]
async fn between_key_and_chain_the_old_identity_stays() {
    let (world, ca) = World::loaded().await;
    let before = world.identity.current();
    let next = ca.leaf(OURS);
    world.certs.put("key.pem", next.key_pem().as_bytes());
    world.eventually(|now| now.problems.iter().any(|problem| problem.contains("does not belong"))).await;
    assert_eq!(world.identity.current().generation(), before.generation());
    world.certs.put("cert-chain.pem", next.chain_pem().as_bytes());
    world.until_own(&next).await;
    world.eventually(|now| now.problems.is_empty()).await;
}

#[tokio::test]
async fn half_written_and_foreign_files_change_nothing_and_are_shown() {
    let (world, ca) = World::loaded().await;
    let before = world.identity.current();
    let good = ca.leaf(OURS);
    let chain = good.chain_pem();
    let broken: [(&str, Vec<u8>); 7] = [
        ("cert-chain.pem", chain.as_bytes()[..chain.len() / 2].to_vec()),
        ("cert-chain.pem", Vec::new()),
        ("cert-chain.pem", vec![0; 4096]),
        ("cert-chain.pem", pem("CERTIFICATE", b"no certificate").into_bytes()),
        ("key.pem", b"-----BEGIN PRIVATE KEY-----\n!!!\n-----END PRIVATE KEY-----\n".to_vec()),
        ("key.pem", pem("PRIVATE KEY", b"no key").into_bytes()),
        ("root-cert.pem", b"\xff\xfe-----BEGIN".to_vec()),
    ];
    for (name, bytes) in broken {
        let refusals = world.identity.snapshot().refusals;
        world.certs.put(name, &bytes);
        let shown = world.eventually(|now| now.refusals > refusals).await;
        assert!(!shown.problems.is_empty(), "{name}");
        assert_eq!(world.identity.current().generation(), before.generation(), "{name}: {:?}", shown.problems);
    }
    world.certs.write(&good, &[&ca]);
    world.until_own(&good).await;
}

#[tokio::test]
async fn the_loop_outlives_fifos_directories_devices_and_giants() {
    let (world, ca) = World::loaded().await;
    let path = world.certs.path().to_owned();
    let root = path.join("root-cert.pem");
    let place: [(&str, &dyn Fn()); 5] = [
        ("not a regular file", &|| {
            let made = std::process::Command::new("mkfifo").arg(&root).status().expect("mkfifo");
            assert!(made.success());
        }),
        ("not a regular file", &|| fs::create_dir(&root).expect("a directory")),
        ("not a regular file", &|| symlink("/dev/zero", &root).expect("a link")),
        ("more than 1048576 bytes", &|| {
            fs::File::create(&root).and_then(|file| file.set_len(1 << 30)).expect("a giant");
        }),
        ("more than 100 certificates", &|| fs::write(&root, ca.pem().repeat(101)).expect("many")),
    ];
    for (said, put) in place {
        if root.is_dir() { fs::remove_dir(&root) } else { fs::remove_file(&root) }.expect("removed");
        put();
        world.eventually(|now| now.problems.iter().any(|problem| problem.contains(said))).await;
        // The rest goes on: our own certificate rotates, the roots are the last good ones.
        let leaf = ca.leaf(OURS);
        world.certs.write_leaf(&leaf);
        let now = world.until_own(&leaf).await;
        assert_eq!(now.roots().certificates().count(), 1);
    }
}

#[tokio::test]
async fn a_withdrawn_root_is_gone_at_once_though_our_own_chain_needs_it() {
    let (world, old) = World::loaded().await;
    let new = Ca::new("cluster.local");
    let server = old.leaf(CART).server(&[&old], VERSIONS[1]);
    world.certs.write_roots(&[&new]);
    let now = world.until(|now| now.generation() == 2).await;
    let failure = refusal(handshake(&now, &exactly(CART), &world.clock), &server);
    assert_eq!(failure.reason, Reason::UnknownAuthority);
    let snapshot = world.identity.snapshot();
    assert!(snapshot.own_certificate_untrusted.is_some());
    assert_eq!((snapshot.problems, snapshot.not_ready), (vec![], None));

    // Also while key and chain disagree, and for good once they are the new CA's.
    world.certs.put("key.pem", new.leaf(OURS).key_pem().as_bytes());
    world.certs.write_roots(&[&old, &new]);
    world.until(|now| now.roots().certificates().count() == 2).await;
    let leaf = new.leaf(OURS);
    world.certs.write_leaf(&leaf);
    world.until_own(&leaf).await;
    assert_eq!(world.identity.snapshot().own_certificate_untrusted, None);
}

#[tokio::test]
async fn roots_without_a_valid_one_do_not_replace_the_last_good() {
    let (world, ca) = World::loaded().await;
    let expired = Ca::valid("cluster.local", -2 * HOUR, -HOUR);
    let (early, leaf) = (Ca::valid("cluster.local", HOUR, 2 * HOUR), ca.leaf(OURS));
    for text in [String::new(), expired.pem(), early.pem(), leaf.chain_pem()] {
        let refusals = world.identity.snapshot().refusals;
        world.certs.put("root-cert.pem", text.as_bytes());
        world.eventually(|now| now.refusals > refusals).await;
        assert_eq!(world.identity.current().generation(), 1);
    }
    world.certs.write_roots(&[&expired, &early, &ca]);
    let now = world.until(|now| now.generation() == 2).await;
    let shown = world.eventually(|now| now.problems.len() == 1).await;
    assert!(shown.problems[0].contains("expired at"), "{:?}", shown.problems);
    // The one that is not valid yet vouches from its beginning on.
    assert_eq!(now.roots().certificates().count(), 2);
    let server = early.issue(&LeafSpec::of(CART).valid(0, 2 * HOUR)).server(&[&ca], VERSIONS[1]);
    let too_early = refusal(handshake(&now, &exactly(CART), &world.clock), &server);
    assert_eq!(too_early.reason, Reason::UnknownAuthority, "{too_early}");
}

#[tokio::test]
async fn what_is_good_of_a_root_file_that_stays_broken_counts() {
    let (world, _) = World::loaded().await;
    let new = Ca::new("cluster.local");
    world.certs.put("root-cert.pem", format!("{}-----BEGIN CERTIFICATE-----\nMIIB", new.pem()).as_bytes());
    let now = world.until(|now| now.generation() == 2).await;
    let roots: Vec<_> = now.roots().certificates().map(|facts| facts.fingerprint).collect();
    assert_eq!(roots, [identity::Fingerprint::of(new.certificate())]);
    assert!(world.identity.snapshot().problems[0].contains("broken PEM"));
}

#[tokio::test]
async fn the_same_certificates_in_other_bytes_are_no_change() {
    let (world, ca) = World::loaded().await;
    let other = Ca::new("cluster.local");
    world.certs.write_roots(&[&ca, &other]);
    world.until(|now| now.generation() == 2).await;
    let text = format!("# roots\n{}\n\n{}{}", other.pem().trim_end(), ca.pem(), ca.pem().trim_end());
    world.certs.put("root-cert.pem", text.as_bytes());
    // A later change shows that this one has been read.
    world.certs.write_leaf(&ca.leaf(OURS));
    assert_eq!(world.until(|now| now.generation() > 2).await.generation(), 3);
    let refusals = world.identity.snapshot().refusals;
    world.certs.put("key.pem", b"");
    world.eventually(|now| now.refusals > refusals).await;
    assert_eq!(world.identity.current().generation(), 3);
}

#[tokio::test]
async fn our_id_and_trust_domain_are_those_of_the_first_load() {
    let (world, ca) = World::loaded().await;
    let before = world.identity.current();
    for leaf in [
        ca.leaf("spiffe://evil.example/ns/monitoring/sa/meshscrape"),
        ca.leaf("spiffe://cluster.local/ns/monitoring/sa/other"),
        ca.issue(&LeafSpec::named(vec![Name::dns("meshscrape.monitoring")])),
    ] {
        let refusals = world.identity.snapshot().refusals;
        world.certs.write_leaf(&leaf);
        world
            .eventually(|now| {
                now.refusals > refusals && now.problems.iter().any(|text| text.contains("at first it was"))
            })
            .await;
        assert_eq!(world.identity.current().generation(), before.generation());
    }
}

#[tokio::test]
async fn a_certificate_without_spiffe_id_needs_a_trust_domain() {
    let ca = Ca::new("any issuer");
    let leaf = ca.issue(&LeafSpec::named(vec![Name::dns("meshscrape.monitoring")]));
    let world = World::new();
    world.certs.write(&leaf, &[&ca]);
    let shown = world.eventually(|now| !now.problems.is_empty()).await;
    assert!(shown.problems[0].contains("set tls_config.spiffe.trust_domain"), "{:?}", shown.problems);

    let world = World::with(|settings| settings.trust_domain = TrustDomain::parse("cluster.local").ok());
    world.certs.write(&leaf, &[&ca]);
    let now = world.until_ready().await;
    assert_eq!(now.own().expect("loaded").id(), None);
    assert!(shake(handshake(&now, &exactly(CART), &world.clock), &ca.leaf(CART).server(&[&ca], VERSIONS[1])).is_ok());
}

#[tokio::test]
async fn a_swapped_symbolic_link_is_followed() {
    // Kubernetes: the files are links into `..data`, and `..data` is swapped.
    let (world, ca) = (World::new(), Ca::new("cluster.local"));
    let base = world.certs.path().to_owned();
    let fill = |name: &str, leaf: &Leaf| {
        fs::create_dir(base.join(name)).expect("a directory");
        CertsDir::at(&base.join(name)).write(leaf, &[&ca]);
        symlink(name, base.join("..data_tmp")).expect("a link");
        fs::rename(base.join("..data_tmp"), base.join("..data")).expect("swapped");
    };
    let (first, second) = (ca.leaf(OURS), ca.leaf(OURS));
    fill("..1", &first);
    for name in ["cert-chain.pem", "key.pem", "root-cert.pem"] {
        symlink(format!("..data/{name}"), base.join(name)).expect("a link");
    }
    world.until_own(&first).await;
    fill("..2", &second);
    world.until_own(&second).await;
}

#[tokio::test]
async fn a_directory_behind_a_link_is_followed_and_so_is_one_made_anew() {
    let (home, ca) = (TempDir::new().expect("a directory"), Ca::new("cluster.local"));
    let (link, spare) = (home.path().join("certs"), home.path().join("spare"));
    let fill = |name: &str| {
        let leaf = ca.leaf(OURS);
        fs::create_dir(home.path().join(name)).expect("a directory");
        CertsDir::at(&home.path().join(name)).write(&leaf, &[&ca]);
        leaf
    };
    let first = fill("one");
    symlink("one", &link).expect("a link");
    let world = World::at(&link);
    world.until_own(&first).await;
    let second = fill("two");
    symlink("two", &spare).expect("a link");
    fs::rename(&spare, &link).expect("swapped");
    world.until_own(&second).await;
    let third = ca.leaf(OURS);
    CertsDir::at(&home.path().join("two")).write_leaf(&third);
    world.until_own(&third).await;
    fs::remove_dir_all(home.path().join("two")).expect("removed");
    let fourth = fill("two");
    world.until_own(&fourth).await;
}

#[tokio::test]
async fn a_change_that_inotify_does_not_report_is_found_by_polling() {
    let (world, ca) = World::loaded().await;
    let (far, farther) = (TempDir::new().expect("a directory"), TempDir::new().expect("a directory"));
    let new = Ca::new("cluster.local");
    fs::write(farther.path().join("old"), ca.pem()).expect("roots");
    fs::write(farther.path().join("new"), new.pem()).expect("roots");
    // The second link of a chain lies in a directory that nothing names.
    symlink(farther.path().join("old"), far.path().join("link")).expect("a link");
    fs::remove_file(world.certs.path().join("root-cert.pem")).expect("removed");
    world.eventually(|now| !now.problems.is_empty()).await;
    symlink(far.path().join("link"), world.certs.path().join("root-cert.pem")).expect("a link");
    world.eventually(|now| now.problems.is_empty()).await;
    symlink(farther.path().join("new"), far.path().join("spare")).expect("a link");
    fs::rename(far.path().join("spare"), far.path().join("link")).expect("swapped");
    world.until_root(&new).await;
}

#[test]
fn a_root_is_withdrawn_while_the_pool_of_blocking_threads_hangs() {
    let mut pool = tokio::runtime::Builder::new_current_thread();
    let runtime = pool.enable_all().max_blocking_threads(1).build().expect("a runtime");
    let (release, hung) = std::sync::mpsc::channel::<()>();
    runtime.spawn_blocking(move || hung.recv());
    runtime.block_on(async {
        let (world, _) = World::loaded().await;
        let new = Ca::new("cluster.local");
        world.certs.write_roots(&[&new]);
        world.until_root(&new).await;
    });
    drop(release);
}

#[tokio::test]
async fn files_that_vanish_leave_the_last_good_ones() {
    let (world, ca) = World::loaded().await;
    for name in ["root-cert.pem", "cert-chain.pem", "key.pem"] {
        fs::remove_file(world.certs.path().join(name)).expect("removed");
    }
    let shown = world.eventually(|now| now.problems.len() == 2).await;
    assert_eq!(shown.not_ready, None);
    let leaf = ca.leaf(OURS);
    world.certs.write(&leaf, &[&ca]);
    world.until_own(&leaf).await;
}

#[tokio::test]
async fn every_form_of_key_is_read() {
    let ca = Ca::new("cluster.local");
    let rsa = LeafSpec { algorithm: &rcgen::PKCS_RSA_SHA256, ..LeafSpec::of(OURS) };
    let p384 = LeafSpec { algorithm: &rcgen::PKCS_ECDSA_P384_SHA384, ..LeafSpec::of(OURS) };
    for spec in [LeafSpec::of(OURS), p384, rsa] {
        let leaf = ca.issue(&spec);
        for key in [leaf.key_pem(), leaf.traditional_key_pem()] {
            let dir = TempDir::new().expect("a directory");
            let certs = CertsDir::at(dir.path());
            certs.write(&leaf, &[&ca]);
            certs.put("key.pem", key.as_bytes());
            let (_, snapshot) = identity::load(&settings(dir.path()), &Clock::system());
            assert_eq!((snapshot.problems, snapshot.not_ready), (vec![], None), "{}", &key[..30]);
        }
    }
}

#[tokio::test]
async fn a_certificate_of_tomorrow_is_taken_when_its_time_comes() {
    let (world, ca) = World::loaded().await;
    let next = ca.issue(&LeafSpec::of(OURS).valid(HOUR / 2, 3 * HOUR));
    world.certs.write_leaf(&next);
    world.eventually(|now| now.problems.iter().any(|problem| problem.contains("not now"))).await;
    assert_eq!(world.identity.current().generation(), 1);
    world.clock.shift((HOUR / 2 + 5) * 1000);
    world.until_own(&next).await;
}

// ---- helpers ----

/// A directory that is watched.
struct World {
    clock: Clock,
    certs: CertsDir,
    identity: Identity,
    _home: Option<TempDir>,
    _stop: tokio_util::sync::DropGuard,
}

impl World {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut IdentitySettings)) -> Self {
        let home = TempDir::new().expect("a directory");
        let mut settings = settings(home.path());
        change(&mut settings);
        Self { _home: Some(home), ..Self::watching(settings) }
    }

    fn at(path: &Path) -> Self {
        Self::watching(settings(path))
    }

    fn watching(settings: IdentitySettings) -> Self {
        let (clock, cancel) = (Clock::system(), CancellationToken::new());
        let certs = CertsDir::at(settings.files.key.parent().expect("a directory"));
        let identity = identity::watch(settings, &clock, cancel.clone());
        Self { clock, certs, identity, _home: None, _stop: cancel.drop_guard() }
    }

    /// With good files in it, and read.
    async fn loaded() -> (Self, Ca) {
        let ca = Ca::new("cluster.local");
        let home = TempDir::new().expect("a directory");
        CertsDir::at(home.path()).write(&ca.leaf(OURS), &[&ca]);
        let world = Self::at(home.path());
        let world = Self { _home: Some(home), ..world };
        world.until_ready().await;
        (world, ca)
    }

    async fn until(&self, wanted: impl FnMut(&Arc<Credentials>) -> bool) -> Arc<Credentials> {
        until(&self.identity, wanted).await
    }

    async fn until_ready(&self) -> Arc<Credentials> {
        self.until(|now| now.ready(self.clock.now()).is_ok()).await
    }

    async fn until_own(&self, leaf: &Leaf) -> Arc<Credentials> {
        let fingerprint = identity::Fingerprint::of(&leaf.chain[0]);
        self.until(|now| now.own().is_some_and(|own| own.chain()[0].fingerprint == fingerprint)).await
    }

    /// Waits until this is the only root.
    async fn until_root(&self, ca: &Ca) {
        let fingerprint = identity::Fingerprint::of(ca.certificate());
        self.until(|now| now.roots().certificates().map(|root| root.fingerprint).eq([fingerprint])).await;
    }

    /// Waits for a state that is shown and not published, at most ten seconds.
    async fn eventually(&self, wanted: impl Fn(&IdentitySnapshot) -> bool) -> IdentitySnapshot {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let snapshot = self.identity.snapshot();
            if wanted(&snapshot) {
                return snapshot;
            }
            assert!(Instant::now() < deadline, "{snapshot:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
