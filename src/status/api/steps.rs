//! `GET /api/v1/targets/relabel_steps?scrapePool=JOB&labels={…}`: what each rule of a job makes of a label set, as
//! Prometheus 3.14 tells it.
//!
//! It answers the question why a pod is no target: from its labels before relabelling, which `/api/v1/targets` shows, to the
//! rule that dropped it.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;

use super::parameters::Parameters;
use super::{bad_data, found, map};
use crate::relabel::{DEFAULT_REGEX, DEFAULT_REPLACEMENT, DEFAULT_SEPARATOR, RuleSpec};
use crate::status::Sources;
use crate::status::relabelled::{Step, steps};

#[derive(Serialize)]
struct Steps {
    steps: Vec<StepShown>,
}

#[derive(Serialize)]
struct StepShown {
    rule: RuleShown,
    output: BTreeMap<String, String>,
    keep: bool,
}

/// A rule with its defaults.
#[derive(Serialize)]
struct RuleShown {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    source_labels: Vec<String>,
    separator: String,
    regex: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    modulus: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_label: Option<String>,
    replacement: String,
    action: &'static str,
}

impl From<&RuleSpec> for RuleShown {
    fn from(spec: &RuleSpec) -> Self {
        let or = |given: &Option<String>, default: &str| given.clone().unwrap_or_else(|| default.to_owned());
        Self {
            source_labels: spec.source_labels.clone(),
            separator: or(&spec.separator, DEFAULT_SEPARATOR),
            regex: or(&spec.regex, DEFAULT_REGEX),
            modulus: spec.modulus,
            target_label: spec.target_label.clone(),
            replacement: or(&spec.replacement, DEFAULT_REPLACEMENT),
            action: spec.action.as_str(),
        }
    }
}

pub(super) async fn relabel_steps(State(sources): State<Sources>, parameters: Parameters) -> Response {
    let (job, labels) = (parameters.get("scrapePool"), parameters.get("labels"));
    if job.is_empty() {
        return bad_data("no scrapePool parameter provided");
    }
    if labels.is_empty() {
        return bad_data("no labels parameter provided");
    }
    let labels: BTreeMap<String, String> = match serde_json::from_str(labels) {
        Ok(labels) => labels,
        Err(error) => return bad_data(&format!("labels parameter is not valid JSON: {error}")),
    };
    let pools = sources.scrape.snapshot();
    let Some(pool) = pools.iter().find(|pool| *pool.pool == *job) else {
        let error = format!("error retrieving scrape config: scrape pool {job:?} not found");
        return bad_data(&error);
    };
    let labels = labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let step = |step: Step<'_>| StepShown { rule: step.rule.spec().into(), output: map(&step.labels), keep: step.keep };
    found(Steps { steps: steps(&pool.config.relabel, labels).into_iter().map(step).collect() })
}
