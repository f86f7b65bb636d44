//! The pod behind a target: what decides who may answer on an address that pods take over from each other.

use std::net::IpAddr;
use std::sync::Arc;

/// What the API server says of a pod, as far as scraping depends on it. The labels of a target may be changed by relabel
/// rules; this may not.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pod {
    /// `namespace/name`.
    pub name: Arc<str>,
    /// Which of all pods that ever had this name: connections and series belong to it alone.
    pub uid: Arc<str>,
    /// `status.podIP`, if it is an address.
    pub ip: Option<IpAddr>,
    /// When it was created, in seconds since 1970: of several pods with one address the newest has it.
    pub created: i64,
    /// It shares the node's addresses with others.
    pub host_network: bool,
    /// It has ended (`Succeeded` or `Failed`): its address may belong to another pod.
    pub finished: bool,
    /// Its deletion has begun; it is scraped until it is gone, and that it stops answering is no surprise.
    pub terminating: bool,
}

impl Pod {
    /// The namespace.
    pub fn namespace(&self) -> &str {
        self.name.split('/').next().unwrap_or_default()
    }

    /// Whether this pod, and not `other`, has an address that both are said to have: it has not ended, and it was created
    /// later. The UID decides between pods of one second, so that everybody comes to the same answer.
    pub fn supersedes(&self, other: &Pod) -> bool {
        self.rank() > other.rank()
    }

    fn rank(&self) -> (bool, i64, &str) {
        (!self.finished, self.created, &self.uid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(uid: &str, created: i64, finished: bool) -> Pod {
        Pod {
            name: "shop/cart".into(),
            uid: uid.into(),
            ip: None,
            created,
            host_network: false,
            finished,
            terminating: false,
        }
    }

    #[test]
    fn the_newest_that_lives_has_the_address() {
        for (wins, loses) in [
            (pod("a", 2, false), pod("b", 1, false)),
            (pod("b", 1, false), pod("a", 1, false)),
            (pod("a", 1, false), pod("b", 2, true)),
        ] {
            assert!(wins.supersedes(&loses) && !loses.supersedes(&wins), "{wins:?} {loses:?}");
            assert!(!wins.supersedes(&wins));
        }
        assert_eq!(pod("a", 1, false).namespace(), "shop");
    }
}
