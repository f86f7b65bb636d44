//! A cluster of realistic pods, of which one node's answer on their secure ports, and a receiver that takes everything.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use futures_util::{StreamExt, stream};
use http::{Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::version::TLS13;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::pods;
use crate::support::ca::{Ca, CertsDir};
use crate::support::kubernetes::{Cluster, Namespace, get};
use crate::support::mesh::SCRAPER;
use crate::support::tls_server::{Reply, Server, Talk, always};

/// The node whose pods answer, as the program is told of its own (`NODE_NAME`).
pub(super) const NODE: &str = "node-1";
/// Namespaces that the pods are spread over; in the whole of a cluster a namespace may have 2,000 targets.
const NAMESPACES: usize = 10;
/// How many pods are changed at a time.
const AT_ONCE: usize = 16;

/// How much of everything.
#[derive(Clone, Copy)]
pub(super) struct Size {
    /// Pods of [`NODE`].
    pub(super) on_node: usize,
    /// Pods of the cluster, with those.
    pub(super) pods: usize,
    /// Series that a pod answers with.
    pub(super) series: usize,
}

pub(super) struct Town {
    pub(super) cluster: Cluster,
    pub(super) size: Size,
    pub(super) home: Namespace,
    pub(super) certs: CertsDir,
    pub(super) receiver: SocketAddr,
    namespaces: Vec<Namespace>,
    _servers: Vec<Server>,
    _receiving: DropGuard,
    _dir: tempfile::TempDir,
}

impl Town {
    pub(super) async fn new(size: Size) -> Self {
        let cluster = Cluster::start().await;
        let home = cluster.namespace("monitoring").await;
        let mut namespaces = Vec::new();
        for number in 0..NAMESPACES {
            namespaces.push(cluster.namespace(&format!("shop-{number}")).await);
        }
        let dir = tempfile::tempdir().expect("a directory");
        let ca = Ca::new("cluster.local");
        let certs = CertsDir::at(dir.path());
        certs.write(&ca.leaf(SCRAPER), &[&ca]);
        let answer = always(Reply::ok(&exposition(size.series)));
        let servers = (0..size.on_node).map(|number| {
            let id = format!("spiffe://cluster.local/ns/shop-{}/sa/{}", number % NAMESPACES, pods::account(number));
            let tls = ca.leaf(&id).server(&[&ca], &[&TLS13]);
            Server::start_at((address(number), 15092).into(), Talk::Tls(tls, Arc::clone(&answer)))
        });
        let _servers = servers.collect();
        let (receiver, _receiving) = swallow().await;
        let town = Self { cluster, size, home, certs, receiver, namespaces, _servers, _receiving, _dir: dir };
        for (at, namespace) in town.namespaces.iter().enumerate() {
            let own = (at..size.pods).step_by(NAMESPACES);
            namespace.create_pods(own.map(|number| town.manifest(number))).await;
        }
        town
    }

    fn manifest(&self, number: usize) -> crate::support::kubernetes::PodManifest {
        let node = match number.checked_sub(self.size.on_node) {
            None => NODE.to_owned(),
            Some(elsewhere) => format!("node-{}", 2 + elsewhere / self.size.on_node),
        };
        let pod = pods::realistic(number, &node, address(number));
        if node == NODE { pod.annotation(pods::SECURE, "15092") } else { pod }
    }

    /// The name of pod `number`, and where it lives.
    fn place(&self, number: usize) -> (&Namespace, String) {
        let manifest: serde_json::Value = self.manifest(number).into();
        (&self.namespaces[number % NAMESPACES], manifest["metadata"]["name"].as_str().expect("a name").to_owned())
    }

    /// Gives pod `number` a label of this value; returns what the pod weighs then, in bytes of JSON.
    pub(super) async fn touch(&self, number: usize, value: &str) -> usize {
        let (namespace, name) = self.place(number);
        namespace.change_pod(&name, json!({"metadata": {"labels": {"touched": value}}})).await;
        let path = format!("/api/v1/namespaces/{}/pods/{name}", namespace.name());
        get(&self.cluster.admin(), &path).await.expect("the pod").len()
    }

    /// Opens the secure port of all pods; nobody answers there but on [`NODE`].
    pub(super) async fn annotate_all(&self) {
        let change = json!({"metadata": {"annotations": {pods::SECURE: "15092"}}});
        let annotate = async |number| {
            let (namespace, name) = self.place(number);
            namespace.change_pod(&name, change.clone()).await;
        };
        stream::iter(self.size.on_node..self.size.pods).for_each_concurrent(AT_ONCE, annotate).await;
    }

    /// What the pods weigh, in bytes of JSON: those of a node, or all.
    pub(super) async fn weight(&self, node: Option<&str>) -> usize {
        let selector = node.map(|node| format!("?fieldSelector=spec.nodeName%3D{node}")).unwrap_or_default();
        get(&self.cluster.admin(), &format!("/api/v1/pods{selector}")).await.expect("a list").len()
    }
}

/// An address of 127.96.0.0/12, which nothing else in the tests uses.
fn address(number: usize) -> Ipv4Addr {
    Ipv4Addr::from(0x7f60_0001 + u32::try_from(number).expect("not that many"))
}

/// What a sidecar tells of the requests it has seen, with the labels that Istio gives by default.
fn exposition(series: usize) -> String {
    let mut text = String::from("# TYPE istio_requests_total counter\n");
    for number in 0..series {
        text.push_str(&format!(
            "istio_requests_total{{reporter=\"destination\",source_workload=\"client-{client}\",\
             source_canonical_service=\"client-{client}\",source_canonical_revision=\"latest\",\
             source_workload_namespace=\"shop-1\",source_principal=\"spiffe://cluster.local/ns/shop-1/sa/client-{client}\",\
             source_app=\"client-{client}\",source_version=\"1.42.0\",source_cluster=\"Kubernetes\",\
             destination_workload=\"workload\",destination_workload_namespace=\"shop-0\",\
             destination_principal=\"spiffe://cluster.local/ns/shop-0/sa/workload\",destination_app=\"workload\",\
             destination_version=\"1.42.0\",destination_service=\"workload.shop-0.svc.cluster.local\",\
             destination_service_name=\"workload\",destination_service_namespace=\"shop-0\",\
             destination_canonical_service=\"workload\",destination_canonical_revision=\"1.42.0\",\
             destination_cluster=\"Kubernetes\",request_protocol=\"http\",response_code=\"{code}\",\
             grpc_response_status=\"\",response_flags=\"-\",connection_security_policy=\"mutual_tls\"}} {number}\n",
            client = number / 5,
            code = 200 + number % 5,
        ));
    }
    text
}

/// A receiver of remote write that remembers nothing.
async fn swallow() -> (SocketAddr, DropGuard) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let end = CancellationToken::new();
    tokio::spawn(end.clone().run_until_cancelled_owned(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(async |request: http::Request<Incoming>| {
                let mut body = request.into_body();
                while let Some(Ok(_)) = body.frame().await {}
                let mut answer = Response::new(Empty::<Bytes>::new());
                *answer.status_mut() = StatusCode::NO_CONTENT;
                Ok::<_, Infallible>(answer)
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    }));
    (address, end.drop_guard())
}
