//! How a pod of the mesh exposes its metrics: what the API server says of it, and what its ports do when they are asked.
//!
//! [`Facts`] come from the pod object alone, [`Seen`] from connections alone; neither judges. What is asked, and only this:
//! the pod's own address on the two plaintext ports, the two secure ones of Istio's convention, and those that whoever runs the command
//! allows, whatever the pod's owner wrote.

mod facts;
mod look;
mod mesh;
mod silence;

pub(super) use facts::{Announced, Facts, Kind, Opening, Reach, Role, Sighting, Whereabouts};
pub(super) use look::{Asker, Limits, Plainly, Securely, Seen, elsewhere, is_namesake};
pub(super) use mesh::MeshArgs;
pub(super) use silence::ENOUGH;
