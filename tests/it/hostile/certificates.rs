//! Certificates bent in every byte: reading them harms nobody, and nothing in them steers a terminal or a log.

use std::time::Duration;

use meshscrape::clock::Clock;
use meshscrape::identity::{IdentitySettings, inspect, load};

use crate::support::ca::{Ca, CertsDir, pem};
use crate::support::mesh::{CART, SCRAPER};

/// How many files of each kind; all of them together are some thousand certificates.
const ROUNDS: usize = 40;

/// The same bytes in every run: xorshift.
struct Dice(u64);

impl Dice {
    fn next(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }

    /// `der` with one to three accidents.
    fn bend(&mut self, der: &[u8]) -> Vec<u8> {
        let mut bent = der.to_vec();
        for _ in 0..=self.next(3) {
            let at = self.next(bent.len());
            match self.next(6) {
                0 => bent[at] ^= 1 << self.next(8),
                1 => bent[at] = [0, 0x7f, 0x80, 0xff, 0x30, 0x84][self.next(6)],
                2 => bent.truncate(at.max(1)),
                3 => bent.insert(at, self.next(256) as u8),
                4 => drop(bent.remove(at)),
                _ => {
                    let from = self.next(bent.len());
                    let piece = bent[from..(from + self.next(20)).min(bent.len())].to_vec();
                    bent.splice(at..at, piece);
                }
            }
            if bent.is_empty() {
                bent.push(0x30);
            }
        }
        bent
    }
}

#[test]
fn bent_certificates_are_read_without_harm() {
    let (ca, dir) = (Ca::new("cluster.local"), tempfile::tempdir().expect("a directory"));
    let (leaf, certs, clock) = (ca.leaf(SCRAPER), CertsDir::at(dir.path()), Clock::system());
    let cart = ca.leaf(CART);
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    certs.write(&leaf, &[&ca]);
    let mut readable = 0;
    for _ in 0..ROUNDS {
        let bundle =
            |der: &[u8], dice: &mut Dice| -> String { (0..50).map(|_| pem("CERTIFICATE", &dice.bend(der))).collect() };
        certs.put("root-cert.pem", bundle(ca.certificate(), &mut dice).as_bytes());
        let chain = pem("CERTIFICATE", &dice.bend(&cart.chain[0])) + &bundle(&cart.chain[0], &mut dice);
        certs.put("cert-chain.pem", chain.as_bytes());
        certs.put("key.pem", cart.key_pem().as_bytes());
        let seen = inspect(&certs.files(), clock.now());
        for facts in seen.roots.iter().chain(&seen.chain).flatten().flatten() {
            readable += 1;
            assert!(!facts.to_string().contains(|c: char| c.is_control()), "{facts}");
            let _ = facts.validity_at(clock.now() + Duration::from_secs(1));
        }
        let settings = IdentitySettings { files: certs.files(), trust_domain: None, aliases: Vec::new() };
        let (_credentials, snapshot) = load(&settings, &clock);
        for problem in &snapshot.problems {
            assert!(!problem.contains(|c: char| c.is_control()), "{problem:?}");
        }
    }
    assert!(readable > ROUNDS, "{readable}: nothing of it was read");
}
