//! When a receiver last took something, of which tenant, for as long as that matters.
//!
//! There may be a hundred thousand tenants of which something was taken within a minute, and whoever makes them up is not to
//! have all of them looked at with each request. So what is over is swept out once in a while only, and the two are known who
//! came last: one of them is another than whoever asks. What always holds: nothing that is over is told.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::apart::TOGETHER_FOR;
use crate::model::Tenant;

/// How often what is over is swept out.
const SWEPT_EVERY: Duration = Duration::from_secs(10);

/// Tenants, or nobody where a receiver has none, of which something was taken of late.
pub(super) struct Taken {
    last: HashMap<Option<Tenant>, Instant>,
    newest: Option<(Option<Tenant>, Instant)>,
    /// When something of anybody else was taken last.
    besides: Option<Instant>,
    swept: Instant,
}

impl Taken {
    /// Nothing yet.
    pub(super) fn new() -> Self {
        Self { last: HashMap::new(), newest: None, besides: None, swept: Instant::now() }
    }

    /// Something of this one is taken now.
    pub(super) fn note(&mut self, tenant: Option<Tenant>) {
        let now = Instant::now();
        if now.duration_since(self.swept) >= SWEPT_EVERY {
            self.last.retain(|_, last| matters(*last));
            self.swept = now;
        }
        let before = self.newest.replace((tenant.clone(), now));
        if let Some((_, last)) = before.filter(|(other, _)| *other != tenant) {
            self.besides = Some(last);
        }
        self.last.insert(tenant, now);
    }

    /// Whether something of this one was taken of late.
    pub(super) fn was_of(&self, tenant: &Option<Tenant>) -> bool {
        self.last.get(tenant).is_some_and(|last| matters(*last))
    }

    /// When something of others than this one was taken last, if that was of late.
    pub(super) fn besides(&self, tenant: &Tenant) -> Option<Instant> {
        let (newest, last) = self.newest.as_ref()?;
        let last = if newest.as_ref() == Some(tenant) { self.besides } else { Some(*last) };
        last.filter(|last| matters(*last))
    }

    /// How many are known.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.last.len()
    }
}

fn matters(last: Instant) -> bool {
    last.elapsed() < TOGETHER_FOR
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> Tenant {
        Tenant::parse(name).expect("a tenant")
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_known_when_something_of_others_was_taken() {
        let start = Instant::now();
        let mut taken = Taken::new();
        let since = |taken: &Taken, name| taken.besides(&tenant(name)).map(|last| (last - start).as_secs());
        assert_eq!(since(&taken, "a"), None);
        for (of, besides_a, besides_b) in [
            ("a", None, Some(0)),
            ("a", None, Some(1)),
            ("b", Some(2), Some(1)),
            ("c", Some(3), Some(3)),
            ("a", Some(3), Some(4)),
        ] {
            taken.note(Some(tenant(of)));
            assert_eq!((since(&taken, "a"), since(&taken, "b")), (besides_a, besides_b), "{of}");
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        tokio::time::advance(TOGETHER_FOR - Duration::from_secs(2)).await;
        assert_eq!((since(&taken, "a"), since(&taken, "b")), (None, Some(4)), "c was a minute ago");
        assert!(taken.was_of(&Some(tenant("a"))) && !taken.was_of(&Some(tenant("b"))) && !taken.was_of(&None));
        assert_eq!(taken.len(), 3);
        taken.note(None);
        assert_eq!(taken.len(), 2);
        assert_eq!(since(&taken, "a"), Some(4 + 59));
    }
}
