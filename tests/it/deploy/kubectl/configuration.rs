//! The configurations that are shipped load, with nothing but what their pod gives them.

use std::path::{Path, PathBuf};

use meshscrape::config::{self, Config, JobSecurity};
use meshscrape::model::Labels;
use meshscrape::relabel;
use serde_json::Value;

use crate::deploy::rendered::{OVERLAYS, configuration, container, folder, object, overlay, text};

/// The configuration of an overlay, read with the variables that its container has and no others.
fn load(objects: &[Value]) -> Config {
    load_as(objects, "0")
}

/// The same for the pod with this number.
fn load_as(objects: &[Value], shard: &str) -> Config {
    let variables = container(objects)["env"].as_array().expect("env").clone();
    let variable = |name: &str| {
        let variable = variables.iter().find(|variable| variable["name"] == name)?;
        // What a fieldRef becomes: a number for the shard, a name for the others.
        let of_pod = if name == "SHARD" { shard } else { "a-name" };
        Some(variable["value"].as_str().unwrap_or(of_pod).to_owned())
    };
    let loaded = config::parse(Path::new("meshscrape.yaml"), &configuration(objects), &variable);
    assert!(loaded.warnings.is_empty(), "{:#?}", loaded.warnings);
    loaded.config.unwrap_or_else(|problems| panic!("{problems:#?}"))
}

#[test]
fn every_overlays_configuration_loads_without_a_warning() {
    for name in OVERLAYS {
        let config = load(&overlay(name));
        let jobs: Vec<_> = config.scrape_configs.iter().map(|job| &*job.job_name).collect();
        assert_eq!(jobs, ["istio-secure-merged-metrics", "istio-secure-envoy-metrics"], "{name}");
        assert_eq!(config.remote_write.len(), 1, "{name}");
    }
}

/// The jobs for legacy pods, which documents give, find the pods of this agent's node and no others.
#[test]
fn the_jobs_of_the_documents_load() {
    let mut jobs = 0;
    for (file, head) in [("docs/legacy-listeners.md", "scrape_configs:\n"), ("deploy/README.md", "")] {
        let document = std::fs::read_to_string(folder().join("..").join(file)).expect(file);
        let blocks = document.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
        // What holds rules is for a Prometheus that watches the agents.
        for block in blocks.filter(|block| block.contains("job_name:") && !block.contains("rule_files:")) {
            let text = format!("{head}{block}\nremote_write: [{{ url: 'https://receiver.test/' }}]\n");
            let node = |name: &str| (name == "NODE_NAME").then(|| "a-name".to_owned());
            let loaded = config::parse(Path::new(file), &text, &node);
            assert!(loaded.warnings.is_empty(), "{file}: {:#?}", loaded.warnings);
            let config = loaded.config.unwrap_or_else(|problems| panic!("{problems:#?}"));
            for job in &config.scrape_configs {
                assert_eq!(job.kubernetes_sd_configs[0].selectors.len(), 1, "{file}: {}", job.job_name);
                jobs += 1;
            }
        }
    }
    assert!(jobs >= 4, "{jobs} jobs");
}

#[test]
fn certificates_are_read_from_where_they_are_mounted() {
    for name in OVERLAYS {
        let objects = overlay(name);
        let mounts = container(&objects)["volumeMounts"].as_array().expect("mounts").clone();
        let mounted: Vec<PathBuf> = mounts
            .iter()
            .filter(|mount| mount["name"] == "certificates")
            .map(|mount| PathBuf::from(text(&mount["mountPath"])))
            .collect();
        assert_eq!(mounted.len(), 1, "{name}");
        for job in load(&objects).scrape_configs {
            let JobSecurity::Spiffe(spiffe) = &job.security else { panic!("{name}: {} verifies nobody", job.job_name) };
            for file in [&spiffe.files.chain, &spiffe.files.key, &spiffe.files.root] {
                assert_eq!(file.parent(), Some(&*mounted[0]), "{name}: {}", file.display());
            }
        }
    }
}

#[test]
fn an_agent_of_a_node_asks_for_its_pods_and_the_others_for_all() {
    for name in OVERLAYS {
        let objects = overlay(name);
        let of_node = objects.iter().any(|object| object["kind"] == "DaemonSet");
        for job in load(&objects).scrape_configs {
            let [sd] = &*job.kubernetes_sd_configs else { panic!("{name}: {:?}", job.kubernetes_sd_configs) };
            assert_eq!(sd.selectors.len(), usize::from(of_node), "{name}");
            let namespaces: &[&str] = if name == "namespaced" { &["shop"] } else { &[] };
            assert_eq!(sd.namespaces, namespaces, "{name}: what its Role covers");
        }
    }
    let role = overlay("namespaced");
    assert_eq!(object(&role, "Role", "meshscrape")["metadata"]["namespace"], "shop");
}

/// Of a pair that Mimir deduplicates both send both labels; agents that share the pods out must not be taken for one.
#[test]
fn only_replicas_call_themselves_replicas() {
    for name in OVERLAYS {
        let config = load(&overlay(name));
        let labels = &config.global.external_labels;
        let expected = (name == "mimir-ha").then_some("a-name");
        assert_eq!(labels.get("__replica__"), expected, "{name}");
        assert_eq!(labels.get("cluster").is_some(), name.starts_with("mimir"), "{name}");
        let tenant = config.remote_write[0].headers.iter().any(|(header, _)| header == "x-scope-orgid");
        assert_eq!(tenant, name.starts_with("mimir"), "{name}");
    }
}

#[test]
fn every_pod_is_scraped_by_one_shard_and_every_shard_has_its_share() {
    let objects = overlay("sharded");
    let shards: Vec<_> = (0..3).map(|shard| load_as(&objects, &shard.to_string())).collect();
    let mut shares = [0; 3];
    for pod in 0..300 {
        let pod = Labels::from_iter([
            ("__meta_kubernetes_pod_uid", format!("00000000-0000-0000-0000-{pod:012}").as_str()),
            ("__meta_kubernetes_pod_ip", "10.0.0.7"),
            ("__meta_kubernetes_pod_phase", "Running"),
            ("__meta_kubernetes_pod_host_network", "false"),
            ("__meta_kubernetes_pod_annotation_prometheus_istio_io_secure_port", "15092"),
            ("__meta_kubernetes_pod_annotationpresent_prometheus_istio_io_secure_port", "true"),
        ]);
        let takes = |config: &Config| relabel::apply(&config.scrape_configs[0].relabel, &mut pod.clone());
        let takers: Vec<_> = (0..3).filter(|shard| takes(&shards[*shard])).collect();
        assert_eq!(takers.len(), 1, "{pod:?}");
        shares[takers[0]] += 1;
    }
    assert!(shares.iter().all(|share| (60..140).contains(share)), "{shares:?}");
}
