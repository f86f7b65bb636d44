//! What `meshscrape audit` and `meshscrape verify` refuse before they ask anybody.

use super::{meshscrape, text};
use crate::support::ca::Ca;
use crate::support::mesh::{Mesh, ONLY_13};

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_no_sense_is_a_usage_error() {
    let mesh = Mesh::new(ONLY_13).await;
    let certs = mesh.certs.path().display().to_string();
    let nowhere = ["--kubeconfig", "/nowhere/kubeconfig"];
    for (arguments, says) in [
        (vec!["audit", "--all", "-n", "shop"], "cannot be used with"),
        (vec!["audit", "--rate", "0"], "0 is not in 1..=1000"),
        (vec!["audit", "--fail-on", "bad"], "[possible values: note, warning, error]"),
        (vec!["audit", "--timeout", "0s"], "longer than 0s"),
        (
            vec!["audit", "--all"],
            "give --certs-dir (neither /etc/istio-certs nor /var/run/secrets/spiffe.io is there), or run it in an agent's pod, or give --no-connect",
        ),
        (vec!["audit", "--all", "--certs-dir", "/nowhere"], "run `meshscrape check certs /nowhere`"),
        (vec!["audit", "--all", "--certs-dir", &certs, nowhere[0], nowhere[1]], "/nowhere/kubeconfig"),
        (vec!["audit", "--all", "--no-connect", nowhere[0], nowhere[1]], "/nowhere/kubeconfig"),
        (vec!["verify", "cart-1"], "write pod/NAME"),
        (
            vec!["verify", "pod/cart-1"],
            "give --certs-dir (neither /etc/istio-certs nor /var/run/secrets/spiffe.io is there), or run it in an agent's pod",
        ),
        (vec!["verify", "pod/cart-1", "--certs-dir", &certs, nowhere[0], nowhere[1]], "/nowhere/kubeconfig"),
    ] {
        let output = meshscrape(&arguments).await;
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {error}");
        assert!(error.contains(says), "{arguments:?}: {says:?} is missing in\n{error}");
        assert_eq!(text(&output.stdout), "", "{arguments:?}");
    }
}

/// As `check certs`, which calls it a warning: a root that has ended lies beside a good one.
#[tokio::test(flavor = "multi_thread")]
async fn a_remark_on_the_certificates_is_said_and_stops_nobody() {
    let mesh = Mesh::new(ONLY_13).await;
    mesh.certs.write_roots(&[&mesh.ca, &Ca::valid("cluster.local", -7200, -3600)]);
    let certs = mesh.certs.path().display().to_string();
    let nowhere = ["--certs-dir", &certs, "--kubeconfig", "/nowhere/kubeconfig"];
    for arguments in [&["audit", "--all"][..], &["verify", "pod/cart-1"]] {
        let output = meshscrape(&[arguments, &nowhere].concat()).await;
        let error = text(&output.stderr);
        assert!(error.contains("/nowhere/kubeconfig"), "{arguments:?} goes on: {error}");
        assert!(error.contains("root-cert.pem: certificate 2 is no usable root"), "{arguments:?}: {error}");
    }
    mesh.certs.write_roots(&[&Ca::valid("cluster.local", -7200, -3600)]);
    for arguments in [&["audit", "--all"][..], &["verify", "pod/cart-1"]] {
        let output = meshscrape(&[arguments, &nowhere].concat()).await;
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {error}");
        assert!(error.contains("no root that is valid now") && !error.contains("/nowhere"), "{arguments:?}: {error}");
    }
}
