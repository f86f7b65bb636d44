//! The mesh alone, met by a client that is not the agent: rustls with its own chain check, and what it saw of the leaf.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::certs::{CHAIN, KEY, ROOT, RootStage};
use super::exposition::MARKER;
use super::mesh::Mesh;
use super::sidecar::Sidecar;
use crate::clock::Clock;

/// Checks the chain, and remembers the one URI that the leaf names.
#[derive(Debug)]
struct Witness {
    roots: RootCertStore,
    algorithms: WebPkiSupportedAlgorithms,
    seen: Mutex<Option<String>>,
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(leaf)?;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, chain, now, self.algorithms.all)?;
        let (_, leaf) = X509Certificate::from_der(leaf).expect("a certificate");
        let san = leaf.subject_alternative_name().expect("one").expect("there");
        let [GeneralName::URI(uri)] = san.value.general_names[..] else { panic!("one URI: {san:?}") };
        *self.seen.lock().expect("unpoisoned") = Some(uri.to_owned());
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, leaf, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, leaf, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// What the agent holds at one moment.
struct Client {
    roots: Vec<CertificateDer<'static>>,
    identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
}

struct Answer {
    identity: String,
    response: Response<()>,
    body: String,
}

impl Client {
    fn of(mesh: &Mesh) -> Self {
        let read = |name| std::fs::read(mesh.agent_certs().join(name)).expect(name);
        let certificates = |pem: Vec<u8>| CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().expect("pem");
        let key = PrivateKeyDer::from_pem_slice(&read(KEY)).expect("a key");
        Self { roots: certificates(read(ROOT)), identity: Some((certificates(read(CHAIN)), key)) }
    }

    async fn get(&self, address: SocketAddr, path: &str, encoding: &str) -> Result<Answer, String> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(self.roots.clone());
        let algorithms = provider.signature_verification_algorithms;
        let witness = Arc::new(Witness { roots, algorithms, seen: Mutex::new(None) });
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .dangerous()
            .with_custom_certificate_verifier(witness.clone());
        let config = match &self.identity {
            Some((chain, key)) => config.with_client_auth_cert(chain.clone(), key.clone_key()).expect("key and leaf"),
            None => config.with_no_client_auth(),
        };
        let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
        let name = ServerName::IpAddress(address.ip().into());
        let stream =
            TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(|error| error.to_string())?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        let driver = tokio::spawn(connection);
        let request = Request::get(path).header("host", "target").header("accept-encoding", encoding);
        let request = request.body(Empty::<Bytes>::new()).expect("well-formed");
        let (head, body) = match sender.send_request(request).await {
            Ok(response) => response.into_parts(),
            // What the transport said tells more than "connection closed".
            Err(error) => return Err(format!("{error}: {:?}", driver.await)),
        };
        let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes().to_vec();
        let identity = witness.seen.lock().expect("unpoisoned").clone().expect("verified");
        let body = match head.headers.get("content-encoding") {
            Some(_) => std::io::read_to_string(flate2::read::GzDecoder::new(&body[..])).expect("gzip"),
            None => String::from_utf8(body).expect("text"),
        };
        Ok(Answer { identity, response: Response::from_parts(head, ()), body })
    }
}

async fn mesh() -> Mesh {
    Mesh::start(Duration::from_secs(60), Clock::system()).await.expect("a mesh")
}

fn sidecar<'a>(mesh: &'a Mesh, name: &str) -> &'a Sidecar {
    mesh.sidecars().iter().find(|sidecar| sidecar.role().name == name).expect(name)
}

#[tokio::test]
async fn good_sidecars_answer_as_istio_does() {
    let mesh = mesh().await;
    let client = Client::of(&mesh);
    for sidecar in mesh.sidecars().iter().filter(|sidecar| sidecar.role().refusal().is_none()) {
        let name = sidecar.role().name;
        let answer = client.get(sidecar.address(), "/stats/prometheus", "identity").await.expect(name);
        assert_eq!(answer.identity, sidecar.role().expected(mesh.domain()).as_str());
        assert_eq!(answer.response.headers()["content-type"], sidecar.role().shape.content_type(), "{name}");
        assert!(answer.body.contains("istio_requests_total") && !answer.body.contains(MARKER), "{name}");
        let lost = client.get(sidecar.address(), "/", "identity").await.expect(name);
        assert_eq!(lost.response.status(), 404, "{name}");
    }
}

#[tokio::test]
async fn the_merged_port_compresses_and_the_envoy_only_one_does_not() {
    let mesh = mesh().await;
    let client = Client::of(&mesh);
    for (name, compressed) in [("cart", true), ("checkout", true), ("gateway", true), ("search", false)] {
        let answer = client.get(sidecar(&mesh, name).address(), "/stats/prometheus", "gzip").await.expect(name);
        assert_eq!(answer.response.headers().contains_key("content-encoding"), compressed, "{name}");
        assert!(answer.body.contains("istio_requests_total"), "{name}");
    }
}

#[tokio::test]
async fn the_impostor_is_valid_and_somebody_else() {
    let mesh = mesh().await;
    let payments = sidecar(&mesh, "payments");
    let answer = Client::of(&mesh).get(payments.address(), "/stats/prometheus", "identity").await.expect("valid");
    assert_eq!(answer.identity, "spiffe://cluster.local/ns/sandbox/sa/default");
    assert_ne!(answer.identity, payments.role().expected(mesh.domain()).as_str());
    assert!(answer.body.contains(MARKER), "a client that only checks the chain is deceived");
}

#[tokio::test]
async fn the_plaintext_server_speaks_no_tls() {
    let mesh = mesh().await;
    let answer = Client::of(&mesh).get(sidecar(&mesh, "legacy").address(), "/stats/prometheus", "identity").await;
    assert!(answer.as_ref().is_err_and(|error| error.contains("InvalidContentType")), "{:?}", answer.err());
}

#[tokio::test]
async fn a_client_without_a_certificate_is_turned_away() {
    let mesh = mesh().await;
    let client = Client { identity: None, ..Client::of(&mesh) };
    let answer = client.get(sidecar(&mesh, "cart").address(), "/stats/prometheus", "identity").await;
    assert!(answer.as_ref().is_err_and(|error| error.contains("CertificateRequired")), "{:?}", answer.err());
}

#[tokio::test]
async fn roots_change_so_that_the_last_set_is_good_for_one_more_rotation() {
    let mut mesh = mesh().await;
    let first = Client::of(&mesh);
    let mut last = Client::of(&mesh);
    let mut stages = Vec::new();
    for _ in 0..5 {
        stages.push(mesh.rotate().await.expect("rotated"));
        let now = Client::of(&mesh);
        assert_ne!(now.identity.as_ref().map(|(chain, _)| chain), last.identity.as_ref().map(|(chain, _)| chain));
        for client in [&last, &now] {
            let cart = sidecar(&mesh, "cart").address();
            client.get(cart, "/stats/prometheus", "identity").await.expect("neither side is ahead of the other");
        }
        last = now;
    }
    assert_eq!(stages, [RootStage::Old, RootStage::Both, RootStage::Moved, RootStage::New, RootStage::New]);
    assert_eq!(mesh.rotations(), 5);
    let late = first.get(sidecar(&mesh, "cart").address(), "/stats/prometheus", "identity").await;
    assert!(late.is_err(), "a set from before the change is of no use after it");
}

#[tokio::test]
async fn nothing_is_left_behind() {
    let mesh = mesh().await;
    let (files, cart) = (mesh.file(""), sidecar(&mesh, "cart").address());
    assert!(files.exists());
    drop(mesh);
    assert!(!files.exists());
    // The accepting tasks are aborted with the mesh; they are gone once the runtime has been round.
    tokio::task::yield_now().await;
    assert!(TcpStream::connect(cart).await.is_err());
}
