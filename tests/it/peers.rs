//! The real peers do what the other chapters rely on, with none of the product's own network code between.

mod script;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use bytes::Bytes;
use meshscrape::clock::Clock;
use meshscrape::identity::crypto_provider;
use prost::Message;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::ca::{Ca, Leaf};
use crate::support::envoy::{Envoy, ListenerSpec};
use crate::support::http::{self, Answer};
use crate::support::prometheus::Prometheus;
use crate::support::scale;
use crate::support::stored::{Point, Stored, labels};
use crate::support::victoria::Victoria;

const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";
const AGENT: &str = "spiffe://cluster.local/ns/monitoring/sa/meshscrape";
const STALE: u64 = 0x7ff0_0000_0000_0002;

#[tokio::test]
async fn envoy_serves_a_client_of_the_mesh_on_its_prefixes_only() {
    let ca = Ca::new("cluster.local");
    let (cart, client) = (ca.leaf(CART), ca.leaf(AGENT));
    let pilot_agent = serve(
        Router::new()
            .route("/metrics", get(async || "app_up 1\n"))
            .route("/stats/prometheus", get(async || "merged_up 1\n")),
    )
    .await;
    let envoy = Envoy::start(&[
        ListenerSpec::stats("stats", &cart, &[&ca]),
        ListenerSpec::merged("merged", &cart, &[&ca], pilot_agent),
    ])
    .await;
    let (stats, merged) = (envoy.address("stats"), envoy.address("merged"));
    assert_ne!(stats.ip(), merged.ip(), "each pod has an address of its own");

    let answer = request(stats, &client, "/stats/prometheus").await.expect("Envoy's stats");
    assert_eq!((answer.status, answer.header("content-type")), (200, "text/plain; charset=UTF-8"));
    assert!(answer.text().contains("# TYPE envoy_server_live gauge\n"), "{}", answer.text());
    assert_eq!(request(stats, &client, "/metrics").await.expect("an answer").status, 404);
    assert_eq!(request(stats, &client, "/").await.expect("an answer").status, 404);

    assert_eq!(request(merged, &client, "/metrics").await.expect("an answer").text(), "app_up 1\n");
    assert_eq!(request(merged, &client, "/stats/prometheus").await.expect("an answer").text(), "merged_up 1\n");
    assert_eq!(request(merged, &client, "/").await.expect("an answer").status, 404);

    assert_eq!(envoy.stat("listener.stats.ssl.handshake").await, 3, "traffic makes the counters move");
    assert_eq!(envoy.stat("listener.merged.ssl.handshake").await, 3);
}

#[tokio::test]
async fn envoy_gives_no_byte_to_a_client_that_is_not_of_the_mesh() {
    let (ca, other) = (Ca::new("cluster.local"), Ca::new("cluster.local"));
    let envoy = Envoy::start(&[ListenerSpec::stats("cart", &ca.leaf(CART), &[&ca])]).await;
    let cart = envoy.address("cart");

    let stranger = other.leaf(AGENT);
    for versions in [&[&rustls::version::TLS12], &[&rustls::version::TLS13]] {
        for (who, certificate) in [("no certificate", None), ("another CA's", Some(&stranger))] {
            let refused = match connect(cart, config(certificate, versions)).await {
                Ok(stream) => http::exchange(stream, "GET", "/stats/prometheus", &[], Bytes::new()).await,
                Err(error) => Err(error.into()),
            };
            assert!(refused.is_err(), "{who} over {versions:?}: {refused:?}");
        }
    }
    let plain = http::get(cart, "/stats/prometheus").await;
    assert!(plain.is_err(), "plain text: {plain:?}");

    assert_eq!(envoy.stat("http.stats.downstream_rq_total").await, 0, "no request came through");
}

#[tokio::test]
async fn envoy_takes_rotated_leaves_and_roots_while_it_runs() {
    let (old, new) = (Ca::new("cluster.local"), Ca::new("cluster.local"));
    let mut envoy = Envoy::start(&[
        ListenerSpec::stats("cart", &old.leaf(CART), &[&old]),
        ListenerSpec::stats("web", &old.leaf(CART), &[&old]),
    ])
    .await;
    let (cart, web) = (envoy.address("cart"), envoy.address("web"));
    let (old_client, new_client) = (old.leaf(AGENT), new.leaf(AGENT));
    let of_web = presented(web, &old_client).await;

    for _ in 0..scale(3, 100) {
        let leaf = old.leaf(CART);
        envoy.rotate_leaf("cart", &leaf).await;
        assert_eq!(presented(cart, &old_client).await, leaf.chain[0]);
    }
    assert_eq!(presented(web, &old_client).await, of_web, "the other listener keeps its own");

    assert!(request(cart, &new_client, "/stats/prometheus").await.is_err());
    envoy.set_roots("cart", &[&old, &new]).await;
    for client in [&old_client, &new_client] {
        assert_eq!(request(cart, client, "/stats/prometheus").await.expect("an answer").status, 200);
    }
    envoy.set_roots("cart", &[&new]).await;
    assert!(request(cart, &old_client, "/stats/prometheus").await.is_err());
    assert_eq!(request(cart, &new_client, "/stats/prometheus").await.expect("an answer").status, 200);
}

#[tokio::test]
async fn a_captured_secure_port_ends_after_a_good_handshake_without_a_byte() {
    let ca = Ca::new("cluster.local");
    let (cart, client) = (ca.leaf(CART), ca.leaf(AGENT));
    let secure = Envoy::start(&[ListenerSpec::stats("secure", &cart, &[&ca])]).await;
    let capture =
        Envoy::start(&[ListenerSpec::capture("captured", &cart, &[&ca], secure.address("secure")).on_port(15092)])
            .await;
    assert_eq!(capture.address("captured").port(), 15092);

    let mut stream = connect(capture.address("captured"), config(Some(&client), rustls::ALL_VERSIONS))
        .await
        .expect("a good handshake");
    assert_eq!(peer_leaf(&stream), cart.chain[0]);
    stream.write_all(b"GET /stats/prometheus HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("it is sent");
    let mut bytes = Vec::new();
    let end = stream.read_to_end(&mut bytes).await;
    assert!(bytes.is_empty(), "{end:?} after {bytes:?}");
}

#[tokio::test]
async fn prometheus_gives_back_every_bit_of_what_was_written() {
    let prometheus = Prometheus::start().await;
    let now = Clock::system().now_ms();
    let odd = [0.0, 0.1 + 0.2, f64::MIN_POSITIVE / 2.0, f64::MAX, f64::INFINITY, f64::NAN, f64::from_bits(STALE)];
    let written = vec![
        series(&[("__name__", "odd"), ("path", "a\\b \"c\"\nü")], now, &odd),
        series(&[("__name__", "up"), ("job", "mesh")], now, &[1.0]),
    ];
    assert_eq!(write(prometheus.address(), &written).await.status, 204);

    assert_eq!(prometheus.raw(&[("__name__", "odd")], 0, now + 1000).await, written[..1]);
    assert_eq!(prometheus.raw(&[("job", "mesh")], 0, now + 1000).await, written[1..]);
    assert_eq!(
        prometheus.series("{__name__=~\".+\"}").await,
        [&written[0].labels, &written[1].labels].map(Clone::clone)
    );
    assert_eq!(prometheus.instant("up[5m]", now + 1).await, written[1..]);
    let at = |at_ms| Point { at_ms, value: 1.0 };
    let up = Stored { labels: written[1].labels.clone(), samples: vec![at(now), at(now + 60_000)] };
    assert_eq!(prometheus.range("up", now, now + 60_000, 60_000).await, [up]);

    let late = [series(&[("__name__", "up"), ("job", "mesh")], now - 1000, &[0.0])];
    let refused = write(prometheus.address(), &late).await;
    assert_eq!(refused.status, 400, "out of order is off: {}", refused.text());
    assert_eq!(prometheus.write_url(), format!("http://{}/api/v1/write", prometheus.address()));
}

#[tokio::test]
async fn victoria_metrics_gives_back_what_was_written() {
    let victoria = Victoria::start().await;
    let now = Clock::system().now_ms();
    let written = vec![
        series(
            &[("__name__", "odd"), ("path", "a\\b \"c\"\nü \"values\":[7]")],
            now,
            &[0.5, 1e9, 123_456_789.25, -3.0],
        ),
        series(&[("__name__", "up"), ("job", "mesh")], now, &[1.0, 0.0]),
    ];
    assert_eq!(write(victoria.address(), &written).await.status, 204);
    assert_eq!(victoria.raw("{__name__!=\"\"}").await, written);
    assert_eq!(victoria.raw("{job=\"mesh\"}").await, written[1..]);

    let ended = [series(&[("__name__", "ended")], now, &[f64::from_bits(STALE), f64::INFINITY])];
    assert_eq!(write(victoria.address(), &ended).await.status, 204);
    let samples = &victoria.raw("ended").await[0].samples;
    assert!(samples[0].value.is_nan() && samples[1].value == f64::INFINITY, "{samples:?}");
    assert_eq!(victoria.write_url(), format!("http://{}/api/v1/write", victoria.address()));
}

#[tokio::test]
async fn a_peer_ends_with_its_value() {
    let prometheus = Prometheus::start().await;
    let address = prometheus.address();
    drop(prometheus);
    assert!(TcpStream::connect(address).await.is_err());
}

/// Serves `router` on a free port until the test ends.
async fn serve(router: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async { axum::serve(listener, router).await });
    address
}

/// `GET` over a fresh TLS connection of this client.
async fn request(address: SocketAddr, client: &Leaf, path: &str) -> Result<Answer, http::Error> {
    let stream = connect(address, config(Some(client), rustls::ALL_VERSIONS)).await?;
    http::exchange(stream, "GET", path, &[], Bytes::new()).await
}

/// The certificate that new connections see.
async fn presented(address: SocketAddr, client: &Leaf) -> CertificateDer<'static> {
    peer_leaf(&connect(address, config(Some(client), rustls::ALL_VERSIONS)).await.expect("a handshake"))
}

fn peer_leaf(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().expect("a verified peer")[0].clone().into_owned()
}

async fn connect(address: SocketAddr, config: ClientConfig) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    TlsConnector::from(Arc::new(config)).connect(ServerName::from(address.ip()), stream).await
}

/// A client that believes everybody: these tests judge Envoy, and compare the certificate themselves.
fn config(client: Option<&Leaf>, versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(crypto_provider())
        .with_protocol_versions(versions)
        .expect("versions of the provider")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody));
    match client {
        Some(leaf) => builder.with_client_auth_cert(leaf.chain.clone(), leaf.key()).expect("a certificate and its key"),
        None => builder.with_no_client_auth(),
    }
}

#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &crypto_provider().signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &crypto_provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        crypto_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// A series with one value a millisecond.
fn series(pairs: &[(&str, &str)], from_ms: i64, values: &[f64]) -> Stored {
    let samples = (from_ms..).zip(values).map(|(at_ms, &value)| Point { at_ms, value });
    Stored { labels: labels(pairs), samples: samples.collect() }
}

/// Sends series in one remote_write 1.0 request.
async fn write(address: SocketAddr, series: &[Stored]) -> Answer {
    let series = series.iter().map(|stored| TimeSeries {
        labels: stored.labels.iter().map(|(name, value)| Label { name: name.clone(), value: value.clone() }).collect(),
        samples: stored.samples.iter().map(|point| Sample { value: point.value, at_ms: point.at_ms }).collect(),
    });
    let request = WriteRequest { series: series.collect() }.encode_to_vec();
    let body = snap::raw::Encoder::new().compress_vec(&request).expect("a small request");
    let headers = [
        ("content-type", "application/x-protobuf"),
        ("content-encoding", "snappy"),
        ("x-prometheus-remote-write-version", "0.1.0"),
    ];
    http::post(address, "/api/v1/write", &headers, body).await.expect("an answer")
}

#[derive(Clone, PartialEq, Message)]
struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    series: Vec<TimeSeries>,
}

#[derive(Clone, PartialEq, Message)]
struct TimeSeries {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
}

#[derive(Clone, PartialEq, Message)]
struct Label {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct Sample {
    #[prost(double, tag = "1")]
    value: f64,
    #[prost(int64, tag = "2")]
    at_ms: i64,
}
