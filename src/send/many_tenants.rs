//! A hundred thousand tenants at one receiver: what is known of each is forgotten.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;

use super::delivery::Delivery;
use super::*;
use crate::clock::Clock;
use crate::config;
use crate::spool::{self, QueueSettings, Spool};

const TENANTS: usize = 100_000;

/// To a receiver with tenants, which nobody asks.
fn delivery() -> Arc<Delivery> {
    let text = "remote_write: [{url: 'http://receiver.example/push', tenant: {template: '{a}'}}]";
    let config = config::parse(Path::new("test.yaml"), text, &|_| None).config.expect("it can be used");
    let remote = Arc::clone(&config.remote_write[0]);
    let mut registry = Registry::default();
    let spool = Spool::new(spool::Metrics::new(&mut registry));
    let settings = QueueSettings { name: "one".into(), labels: labels(&remote), capacity_bytes: 1 << 20, disk: None };
    let sender = Prepared::new(remote).expect("usable").sender(
        spool.open(0, settings),
        |_| unreachable!("it is not verified by SPIFFE ID"),
        Clock::system(),
        &Metrics::new(&mut registry),
        Arc::new(Vec::new),
        HistogramsDropped::default(),
    );
    sender.delivery
}

/// How many tenants are known to have been refused, to have had all rejected, and to have had something taken.
fn known(delivery: &Delivery) -> [usize; 3] {
    let state = delivery.state();
    [delivery.tenants.len(), state.all_rejected.len(), state.taken.len()]
}

/// One lease of a tenant, and what becomes of it.
fn deliver(delivery: &Delivery, number: usize) {
    let tenant = Tenant::parse(&format!("tenant-{number}")).expect("a tenant");
    let _lease = delivery.tenants.enter(&tenant, 0);
    match number % 4 {
        0 => {
            let gate = delivery.tenants.gate_of(&tenant).expect("he has a lease");
            gate.failed(gate.try_enter().expect("it is open"), None);
            delivery.tenants.refuses(&tenant, "no");
            assert!(!delivery.fails_alone(&tenant), "nothing was taken since");
        }
        1 => delivery.all_rejected(Some(tenant)),
        _ => delivery.has_taken_of(Some(tenant)),
    }
}

#[tokio::test(start_paused = true)]
async fn of_a_hundred_thousand_tenants_no_more_is_known_than_what_matters_now() {
    let delivery = delivery();
    // A hundred a second.
    for number in 0..TENANTS {
        deliver(&delivery, number);
        tokio::time::advance(Duration::from_millis(10)).await;
        if number % 1_000 == 0 {
            // A quarter of those of eleven minutes, and half of those of seventy seconds.
            let [refused, rejected, taken] = known(&delivery);
            assert!(refused <= 1_024 && rejected <= 16_500 && taken <= 3_500, "{number}: {:?}", known(&delivery));
        }
    }
    assert!(known(&delivery).iter().all(|count| *count > 0), "{:?}", known(&delivery));
    tokio::time::advance(Duration::from_secs(11 * 60)).await;
    (TENANTS + 1..TENANTS + 4).for_each(|number| deliver(&delivery, number));
    let [_, rejected, taken] = known(&delivery);
    assert_eq!((rejected, taken), (1, 2));
}
