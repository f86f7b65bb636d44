//! Where Prometheus 3.14 and 3.5 differ we do as 3.14. The Prometheus beside us is a 3.5, so what differs is listed: here the
//! keys, with what the real 3.5 says of each; what the same key or body does otherwise is among the differences on purpose.
//! What 3.5 does behind a flag is compared like anything else (native histograms, the additional series of a scrape).

use std::path::Path;
use std::process::Command;

use meshscrape::config;
use tempfile::TempDir;

use crate::support::process::find;

/// A key of 3.14, and what the real 3.5 says of it.
struct Newer {
    key: &'static str,
    /// A line of a job.
    line: &'static str,
    of_3_5: &'static str,
}

const NEWER: &[Newer] = &[
    Newer {
        key: "extra_scrape_metrics, a flag in 3.5",
        line: "  extra_scrape_metrics: true",
        of_3_5: "field extra_scrape_metrics not found",
    },
    Newer {
        key: "scrape_native_histograms, a flag in 3.5",
        line: "  scrape_native_histograms: true",
        of_3_5: "field scrape_native_histograms not found",
    },
    Newer {
        key: "legacy names alone are escaped with underscores",
        line: "  metric_name_validation_scheme: legacy",
        of_3_5: "utf8 metric names requested but validation scheme is not set to UTF8",
    },
    Newer {
        key: "attach_metadata.namespace",
        line: "  kubernetes_sd_configs: [{role: pod, attach_metadata: {namespace: true}}]",
        of_3_5: "field namespace not found",
    },
    Newer {
        key: "attach_metadata.deployment, job and cronjob",
        line: "  kubernetes_sd_configs: [{role: pod, attach_metadata: {deployment: true, job: true, cronjob: true}}]",
        of_3_5: "field deployment not found",
    },
];

/// A job with this line.
fn job(line: &str) -> String {
    format!("scrape_configs:\n- job_name: j\n{line}\n")
}

#[test]
fn keys_of_3_14_are_ours_and_not_those_of_3_5() {
    let dir = TempDir::new().expect("a directory");
    for Newer { key, line, of_3_5 } in NEWER {
        let file = dir.path().join("prometheus.yml");
        std::fs::write(&file, job(line)).expect("written");
        let said = Command::new(find("promtool")).args(["check", "config", "--agent"]).arg(&file).output();
        let said = said.expect("promtool runs");
        let words = [said.stdout, said.stderr].concat();
        let words = String::from_utf8_lossy(&words);
        assert!(!said.status.success() && words.contains(of_3_5), "{key}: {words}");
        let ours = config::load(&file, &|_| None).config;
        assert!(ours.is_ok(), "{key}: {ours:#?}");
    }
}

#[test]
fn a_job_with_legacy_names_alone_escapes_them_with_underscores() {
    let escaping = |line: &str| {
        let parsed = config::parse(Path::new("meshscrape.yaml"), &job(line), &|_| None).config;
        parsed.expect("a good configuration").scrape_configs[0].escaping
    };
    let both = "  metric_name_validation_scheme: legacy\n  metric_name_escaping_scheme: underscores";
    assert_eq!(escaping("  metric_name_validation_scheme: legacy"), escaping(both));
    assert_ne!(escaping(both), escaping(""));
}
