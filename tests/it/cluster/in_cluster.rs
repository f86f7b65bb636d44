//! The program as it finds itself in a pod: the API server in two variables, token, roots and namespace where the kubelet
//! puts them, and no word of any of it in the configuration.

use std::net::Ipv4Addr;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::agent::eventually;
use crate::support::kubernetes::{Cluster, READ, get, pod};
use crate::support::program::Program;
use crate::support::{http, loopback};

/// Mounts the directory given first where a pod has its service account, and becomes the rest.
const IN_A_POD: &str = "mount -t tmpfs tmpfs /run && d=/run/secrets/kubernetes.io/serviceaccount && mkdir -p $d \
                        && mount --bind \"$0\" $d && exec \"$@\"";

/// Puts the files in place as the kubelet does: all of them at once, by swapping a link.
fn put(volume: &Path, version: &str, files: &[(&str, &[u8])]) {
    let data = volume.join(version);
    std::fs::create_dir(&data).expect("a directory");
    for (name, content) in files {
        std::fs::write(data.join(name), content).expect("a file");
        let visible = volume.join(name);
        if !visible.is_symlink() {
            symlink(format!("..data/{name}"), visible).expect("a link");
        }
    }
    let new = volume.join("..data_tmp");
    symlink(version, &new).expect("a link");
    std::fs::rename(new, volume.join("..data")).expect("it takes the name");
}

async fn instances(api: Ipv4Addr) -> Option<Vec<String>> {
    let answer = http::get((api, 9465).into(), "/api/v1/targets?state=active").await.ok()?;
    let targets = answer.json()["data"]["activeTargets"].as_array().cloned()?;
    let mut found: Vec<String> =
        targets.iter().map(|target: &Value| target["labels"]["instance"].to_string().replace('"', "")).collect();
    found.sort();
    Some(found)
}

#[tokio::test]
async fn a_pod_finds_the_api_server_and_goes_on_when_its_token_is_rotated() {
    let cluster = Cluster::shared().await;
    let shop = cluster.own_namespace("shop").await;
    let account = shop.account("meshscrape").await;
    shop.allow(cluster, &account, json!([{"apiGroups": [""], "resources": ["pods"], "verbs": READ}])).await;
    shop.create_pod(pod("first").running("10.9.1.1").port("m", 80)).await;
    let proxy = cluster.proxy().await;
    let (host, port) = proxy.url().trim_start_matches("https://").rsplit_once(':').map(own).expect("host and port");

    let dir = tempfile::tempdir().expect("a directory");
    let volume = dir.path().join("serviceaccount");
    std::fs::create_dir(&volume).expect("a directory");
    let ca = std::fs::read(cluster.ca_file()).expect("the roots");
    let old = shop.token(&account).await;
    put(&volume, "..1", &[("token", old.as_bytes()), ("ca.crt", &ca), ("namespace", shop.name().as_bytes())]);
    let config = dir.path().join("meshscrape.yaml");
    let text = "scrape_configs: [{job_name: pods, scrape_interval: 1h, \
                kubernetes_sd_configs: [{role: pod, namespaces: {own_namespace: true}}]}]";
    std::fs::write(&config, text).expect("a configuration");

    let api = loopback();
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--mount", "sh", "-c", IN_A_POD]).arg(&volume);
    command.arg(env!("CARGO_BIN_EXE_meshscrape")).arg("run").arg("--config").arg(&config);
    command.args([format!("--listen={api}:9464"), format!("--api-listen={api}:9465")]);
    command.env("KUBERNETES_SERVICE_HOST", host).env("KUBERNETES_SERVICE_PORT", port);
    let program = Program::spawn(command);

    let known = async |wanted: &[&str]| {
        let what = format!("the targets are {wanted:?}");
        eventually(&what, async || instances(api).await.filter(|found| found == wanted)).await;
    };
    known(&["10.9.1.1:80"]).await;

    shop.invalidate_tokens(&account).await;
    let client = cluster.client(&cluster.url(), &old);
    let path = format!("/api/v1/namespaces/{}/pods", shop.name());
    eventually("the old token is refused", async || get(&client, &path).await.is_err().then_some(())).await;
    let new = shop.token(&account).await;
    put(&volume, "..2", &[("token", new.as_bytes()), ("ca.crt", &ca), ("namespace", shop.name().as_bytes())]);
    proxy.cut();
    shop.create_pod(pod("second").running("10.9.1.2").port("m", 80)).await;
    known(&["10.9.1.1:80", "10.9.1.2:80"]).await;

    program.signal("TERM");
    let output = program.end().await;
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

fn own((host, port): (&str, &str)) -> (String, String) {
    (host.to_owned(), port.to_owned())
}
