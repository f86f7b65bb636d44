//! `GET /api/v1/targets/metadata` and `GET /api/v1/metadata`: how targets describe their metric families.
//!
//! What is listed is what the last scrapes of active targets announced, whether or not a series of it is kept; the order is by
//! job, target and family, which Prometheus leaves open.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::{Serialize, Serializer};

use super::parameters::Parameters;
use super::{bad_data, found, map};
use crate::model::Metadata;
use crate::relabel::Selector;
use crate::status::Sources;

#[derive(Serialize)]
struct OfTarget {
    #[serde(serialize_with = "labels")]
    target: Arc<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metric: Option<String>,
    #[serde(rename = "type")]
    kind: &'static str,
    help: String,
    unit: String,
}

/// What all families of a target have in common.
fn labels<S: Serializer>(labels: &BTreeMap<String, String>, serializer: S) -> Result<S::Ok, S::Error> {
    labels.serialize(serializer)
}

pub(super) async fn of_targets(State(sources): State<Sources>, parameters: Parameters) -> Response {
    let limit = match limit(&parameters, "limit") {
        Ok(limit) => limit,
        Err(why) => return bad_data(&why),
    };
    let selector = match Selector::parse(parameters.get("match_target")) {
        Ok(selector) => selector,
        Err(why) => return bad_data(&format!("match_target: {why}")),
    };
    let metric = parameters.get("metric");
    let wanted = |metadata: &Arc<Metadata>| metric.is_empty() || *metadata.family == *metric;
    let pools = sources.scrape.snapshot();
    let active = pools.iter().flat_map(|pool| &pool.active).filter(|active| selector.matches(&active.target.labels));
    let mut listed = Vec::new();
    for active in active {
        // As in Prometheus, whoever is within the limit is told of whole.
        if listed.len() >= limit {
            break;
        }
        let described = active.status.families.iter().filter(|family| wanted(family));
        let target = Arc::new(map(&active.target.labels));
        listed.extend(described.map(|family| OfTarget {
            target: Arc::clone(&target),
            metric: metric.is_empty().then(|| family.family.to_string()),
            kind: family.kind.as_str(),
            help: family.help.to_string(),
            unit: family.unit.to_string(),
        }));
    }
    found(listed)
}

#[derive(Serialize, PartialEq, Eq, PartialOrd, Ord)]
struct OfFamily {
    #[serde(rename = "type")]
    kind: &'static str,
    unit: String,
    help: String,
}

pub(super) async fn by_family(State(sources): State<Sources>, parameters: Parameters) -> Response {
    let limits = limit(&parameters, "limit").and_then(|all| Ok((all, limit(&parameters, "limit_per_metric")?)));
    let (all, each) = match limits {
        Ok(limits) => limits,
        Err(why) => return bad_data(&why),
    };
    let metric = parameters.get("metric");
    let mut families: BTreeMap<String, BTreeSet<OfFamily>> = BTreeMap::new();
    // Targets that say the same hold the same description.
    let mut seen = HashSet::new();
    for metadata in sources.scrape.snapshot().iter().flat_map(|pool| &pool.active).flat_map(|one| &*one.status.families)
    {
        let wanted = metric.is_empty() || *metadata.family == *metric;
        if wanted && seen.insert(Arc::as_ptr(metadata)) {
            let Metadata { family, kind, help, unit } = &**metadata;
            let said = OfFamily { kind: kind.as_str(), unit: unit.to_string(), help: help.to_string() };
            families.entry(family.to_string()).or_default().insert(said);
        }
    }
    // As in Prometheus, none at all is no limit here.
    let each = if each == 0 { usize::MAX } else { each };
    let told = families.into_iter().take(all);
    found(told.map(|(family, said)| (family, said.into_iter().take(each).collect())).collect::<BTreeMap<_, Vec<_>>>())
}

/// How many are wanted; nothing, or less than none, is all.
fn limit(parameters: &Parameters, name: &str) -> Result<usize, String> {
    let text = parameters.get(name);
    if text.is_empty() {
        return Ok(usize::MAX);
    }
    let number: i64 = text.parse().map_err(|_| format!("{name} must be a number"))?;
    Ok(usize::try_from(number).unwrap_or(usize::MAX))
}
