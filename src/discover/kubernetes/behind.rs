//! The pods behind the addresses of a service: what they add to the targets of `endpoints` and `endpointslice`.
//!
//! A target whose address refers to a known pod gets that pod's labels, and those of the container that declares its
//! port. Each pod that is met in an object also gives a target for each of its declared ports that the object does not
//! cover; which ports are covered is counted by object and pod.

use std::collections::HashMap;
use std::sync::Arc;

use super::meta::{self, Draft, with_port};
use super::object::{ObjectKey, ObjectReference, Pod};
use super::pod;
use super::surroundings::Surroundings;
use crate::model::{self, Candidate};

/// The pods that were met in one object.
pub(super) struct Behind<'a> {
    around: &'a Surroundings<'a>,
    numbers: HashMap<ObjectKey, usize>,
    /// In the order in which they were met.
    met: Vec<Met<'a>>,
}

struct Met<'a> {
    pod: &'a Pod,
    known_as: Arc<model::Pod>,
    /// The ports that have a target already.
    covered: Vec<i32>,
}

/// A port that an address is dialled on.
pub(super) struct Port<'p> {
    /// Its number.
    pub(super) number: i32,
    /// What is said of its protocol on the target; `None`: what the container says.
    pub(super) protocol: Option<&'p Arc<str>>,
}

impl<'a> Behind<'a> {
    /// Nobody was met yet.
    pub(super) fn new(around: &'a Surroundings<'a>) -> Self {
        Self { around, numbers: HashMap::new(), met: Vec::new() }
    }

    /// Sets the labels of the pod that an address refers to, and of its container with this port.
    pub(super) fn set_pod(
        &mut self,
        draft: &mut Draft<'_>,
        reference: Option<&ObjectReference>,
        port: Option<&Port<'_>>,
    ) -> Option<Arc<model::Pod>> {
        let reference = reference.filter(|reference| reference.kind.as_str() == "Pod")?;
        let pod = self.around.pod(&reference.namespace, &reference.name)?;
        pod::set_labels(draft, pod, self.around);
        let met = self.meet(pod);
        if let Some(port) = port {
            met.covered.push(port.number);
            for (container, init) in pod::containers(pod) {
                let Some(declared) = container.ports.iter().find(|own| own.container_port == port.number) else {
                    continue;
                };
                pod::set_container(draft, container, init);
                pod::set_container_port(draft, declared, port.protocol.unwrap_or(&declared.protocol));
            }
        }
        Some(Arc::clone(&met.known_as))
    }

    fn meet(&mut self, pod: &'a Pod) -> &mut Met<'a> {
        let number = *self.numbers.entry(pod.metadata.key()).or_insert_with(|| {
            self.met.push(Met { pod, known_as: Arc::new(pod::known_as(pod)), covered: Vec::new() });
            self.met.len() - 1
        });
        &mut self.met[number]
    }

    /// The targets of declared ports that are not covered, with the labels of `group`.
    pub(super) fn uncovered(self, group: &Draft<'_>, source: &Arc<str>) -> Vec<Candidate> {
        let mut candidates = Vec::new();
        for met in self.met.iter().filter(|met| !met.pod.status.pod_ip.is_empty()) {
            for (container, init) in pod::containers(met.pod) {
                for port in container.ports.iter().filter(|port| !met.covered.contains(&port.container_port)) {
                    let mut own = group.clone();
                    pod::set_labels(&mut own, met.pod, self.around);
                    pod::set_container(&mut own, container, init);
                    pod::set_container_port(&mut own, port, &port.protocol);
                    let address = with_port(&met.pod.status.pod_ip, port.container_port);
                    candidates.push(own.into_candidate(&address, source, Some(&met.known_as)));
                }
            }
        }
        candidates
    }
}

/// Sets the labels of the node of this name, if nodes are attached and it is known.
pub(super) fn attach_node(draft: &mut Draft<'_>, around: &Surroundings<'_>, name: &Arc<str>) {
    if around.attach.node
        && let Some(node) = around.node(name)
    {
        draft.set_metadata(&meta::NODE, &node.metadata);
    }
}

/// The name of the node that an address refers to.
pub(super) fn node_referred_to(reference: Option<&ObjectReference>) -> Option<&Arc<str>> {
    reference.filter(|reference| reference.kind.as_str() == "Node").map(|reference| &*reference.name)
}
