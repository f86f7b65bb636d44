//! The mesh in miniature: one authority (and the one that succeeds it), a certificate directory for everybody, and the
//! sidecars, brought up together and rotated together.
//!
//! Rotation follows [`RootStage`]: the agent's directory first, then each sidecar's; all have reached a stage when
//! [`Mesh::rotate`] returns, so no caller can take the mesh to the next one too early.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::DemoError;
use super::ca::Authority;
use super::certs::{CertDir, RootStage, Scratch};
use super::sidecar::{CAST, Sidecar};
use crate::clock::Clock;
use crate::model::{SpiffeId, TrustDomain};

/// How long the writer of a set lingers after each of its files: key and leaf disagree for that long.
const LINGER: Duration = Duration::from_millis(20);

/// Everything that the agent meets. Dropping it stops the sidecars and removes the files.
pub(super) struct Mesh {
    domain: TrustDomain,
    old: Authority,
    new: Authority,
    lifetime: Duration,
    rotations: u32,
    agent: (CertDir, SpiffeId),
    sidecars: Vec<Sidecar>,
    scratch: Scratch,
}

impl Mesh {
    /// Brings the mesh up: directories filled, sidecars listening. Every leaf lives for `lifetime`, which has to span
    /// several rotations.
    pub(super) async fn start(lifetime: Duration, clock: Clock) -> Result<Self, DemoError> {
        let domain = TrustDomain::parse("cluster.local").expect("a well-formed name");
        let scratch = Scratch::new().map_err(DemoError::Files)?;
        let own = SpiffeId::of_service_account(&domain, "monitoring", "meshscrape").expect("well-formed names");
        let dir = CertDir::create(scratch.path().join("agent")).await.map_err(DemoError::Files)?;
        let mut mesh = Self {
            old: Authority::new(&domain, clock.clone())?,
            new: Authority::new(&domain, clock)?,
            domain,
            lifetime,
            rotations: 0,
            agent: (dir, own),
            sidecars: Vec::with_capacity(CAST.len()),
            scratch,
        };
        mesh.issue(&mesh.agent.0, &mesh.agent.1).await?;
        for (position, role) in (0..).zip(CAST) {
            let certs = match role.actual(&mesh.domain) {
                Some(id) => {
                    let path = mesh.scratch.path().join(role.name);
                    let dir = CertDir::create(path).await.map_err(DemoError::Files)?;
                    mesh.issue(&dir, &id).await?;
                    Some(dir)
                }
                None => None,
            };
            mesh.sidecars.push(Sidecar::start(role, position, certs).await.map_err(DemoError::Sidecar)?);
        }
        Ok(mesh)
    }

    /// Gives everybody a new key and leaf, and takes the roots one stage on; returns the stage now reached.
    pub(super) async fn rotate(&mut self) -> Result<RootStage, DemoError> {
        self.rotations += 1;
        self.issue(&self.agent.0, &self.agent.1).await?;
        for sidecar in &self.sidecars {
            if let (Some(dir), Some(id)) = (sidecar.certs(), sidecar.role().actual(&self.domain)) {
                self.issue(dir, &id).await?;
                sidecar.reload().await.map_err(DemoError::Sidecar)?;
            }
        }
        Ok(self.stage())
    }

    /// How often everybody was given a new key and leaf.
    pub(super) fn rotations(&self) -> u32 {
        self.rotations
    }

    /// How far the change of roots has come.
    pub(super) fn stage(&self) -> RootStage {
        RootStage::at(self.rotations)
    }

    /// The trust domain of everybody in it.
    pub(super) fn domain(&self) -> &TrustDomain {
        &self.domain
    }

    /// The workloads.
    pub(super) fn sidecars(&self) -> &[Sidecar] {
        &self.sidecars
    }

    /// The agent's certificate directory.
    pub(super) fn agent_certs(&self) -> &Path {
        self.agent.0.path()
    }

    /// A file of this run's own, beside the certificate directories.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    async fn issue(&self, dir: &CertDir, id: &SpiffeId) -> Result<(), DemoError> {
        let (old, new) = (self.old.root_pem(), self.new.root_pem());
        let (signer, bundle) = match self.stage() {
            RootStage::Old => (&self.old, old.to_owned()),
            RootStage::Both => (&self.old, format!("{old}{new}")),
            RootStage::Moved => (&self.new, format!("{old}{new}")),
            RootStage::New => (&self.new, new.to_owned()),
        };
        let issued = signer.issue(id, self.lifetime)?;
        dir.write(&issued, &bundle, LINGER).await.map_err(DemoError::Files)
    }
}
