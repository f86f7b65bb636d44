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
