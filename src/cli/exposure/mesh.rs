//! Which mesh is asked, by the arguments that `audit` and `verify` share: our certificates in it, its cluster, and where its
//! pods may be asked. It must not know what for.

use std::path::PathBuf;

use super::{Asker, Limits, Reach};
use crate::cli::certificates::{self, Following, NOWHERE, Ours};
use crate::cli::cluster::{Cluster, ClusterError};
use crate::cli::scrape::{Stop, parse_domain};
use crate::model::{Cidr, TrustDomain};

/// The arguments that say which mesh it is.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct MeshArgs {
    /// Our certificates: cert-chain.pem, key.pem, root-cert.pem, or tls.crt, tls.key, ca.crt [default: /etc/istio-certs or /var/run/secrets/spiffe.io, if one is there]
    #[arg(long, value_name = "DIR", env = "MESHSCRAPE_CERTS_DIR")]
    certs_dir: Option<PathBuf>,
    /// The trust domain of the pods' service accounts [default: that of our own certificate]
    #[arg(long, value_name = "TD", value_parser = parse_domain)]
    trust_domain: Option<TrustDomain>,
    /// Another name of that trust domain, as trust_domain_aliases of a job; give it again for more [default: none]
    #[arg(long = "trust-domain-alias", value_name = "TD", value_parser = parse_domain)]
    aliases: Vec<TrustDomain>,
    /// A range in which pods are, such as 10.0.0.0/8; give it again for more [default: wherever a pod can be]
    #[arg(long = "pod-cidr", value_name = "RANGE")]
    pod_cidrs: Vec<Cidr>,
    /// A secure port that may be asked beside 15091 and 15092, as ports of istio_sd_configs; give it again for more [default: none]
    #[arg(long = "port", value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    ports: Vec<u16>,
    /// The kubeconfig [default: KUBECONFIG, ~/.kube/config, or the service account of this pod]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The kubeconfig's context
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
}

impl MeshArgs {
    /// Where pods may be asked.
    pub(in crate::cli) fn reach(&self) -> Reach {
        Reach { pod_cidrs: self.pod_cidrs.clone(), ports: self.ports.clone() }
    }

    /// The cluster of the mesh; nothing is connected yet.
    pub(in crate::cli) async fn cluster(&self) -> Result<Cluster, ClusterError> {
        Cluster::of(self.kubeconfig.as_deref(), self.context.as_deref()).await
    }

    /// Whoever asks the ports, with our certificates as they rotate. `otherwise` is what else helps where there are none.
    pub(in crate::cli) async fn asker(&self, limits: Limits, otherwise: &str) -> Result<(Asker, Following), Stop> {
        let dir = certificates::dir(self.certs_dir.as_deref()).ok_or_else(|| {
            Stop::Usage(format!(
                "pods can only be asked with certificates of the mesh: give --certs-dir ({NOWHERE}), or \
                 run it in an agent's pod{otherwise}"
            ))
        })?;
        let ours = Ours::load(&dir, self.trust_domain.clone(), self.aliases.clone()).map_err(Stop::Usage)?;
        for remark in &ours.remarks {
            say!("meshscrape: {remark}");
        }
        let domain = ours.trust_domain.clone().ok_or_else(|| Stop::Usage(certificates::NO_TRUST_DOMAIN.to_owned()))?;
        let (ours, following) = ours.followed().await;
        Ok((Asker::new(ours.credentials, domain, limits), following))
    }
}
