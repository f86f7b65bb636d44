//! From candidate to target: defaults, relabelling, checks, and the question who may answer.
//!
//! The order is Prometheus's: what the job says fills in what the candidate lacks, the rules run, what is left is
//! checked once. A target that exists can be scraped as it stands: its address was parsed by [`Address::parse`] and is
//! never joined to a URL and read again, its request line is ready, and its [`Verification`] follows from the job. In
//! SPIFFE jobs whatever is wrong with the scheme or the identity does not remove the target: it is listed with the
//! reason and never connected, so that it can be seen.

use std::collections::hash_map::{Entry, HashMap};
use std::collections::{BTreeMap, HashSet};
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use md5::{Digest, Md5};

use super::expected::{self, Filled, Relabelled};
use super::place;
use crate::config::{Histograms, JobSecurity, ScrapeConfig, format_duration, parse_duration};
use crate::model::{
    Address, Alpn, Candidate, DropCause, DroppedTarget, Failure, HistogramReading, JobTargets, Labels, Peer, Pod,
    Reason, Scheme, Target, TargetId, Tenants, TrustDomain, Verification, clean,
};

const ADDRESS: &str = "__address__";
const SCHEME: &str = "__scheme__";
const METRICS_PATH: &str = "__metrics_path__";
const INTERVAL: &str = "__scrape_interval__";
const TIMEOUT: &str = "__scrape_timeout__";
const NATIVE: &str = "__scrape_native_histograms__";
const CLASSIC_TOO: &str = "__always_scrape_classic_histograms__";
const CONVERT: &str = "__convert_classic_histograms_to_nhcb__";
const PARAM_PREFIX: &str = "__param_";
const META_PREFIX: &str = "__meta_";
const ALPN: &str = "__alpn__";
const NAMESPACE: &str = "__meta_kubernetes_namespace";
const POD_NAME: &str = "__meta_kubernetes_pod_name";

/// What becomes of one candidate of a job: a target, or what is shown in its place.
pub type Judged = Result<Arc<Target>, Arc<DroppedTarget>>;

/// What becomes of `candidate` in `job`. `trust_domain` is the one of the job's identity, once it is known; ordinary jobs
/// have none.
pub fn judge(job: &ScrapeConfig, candidate: &Candidate, trust_domain: Option<&TrustDomain>) -> Judged {
    let pod = candidate.pod.as_ref();
    let mut discovered = candidate.labels.clone();
    let filled = fill_defaults(job, &mut discovered, pod, trust_domain);
    let (cause, by_rule, error) = match target_of(job, &discovered, pod, filled, trust_domain) {
        Ok(target) => return Ok(Arc::new(target)),
        Err(Dropped::ByRule(number)) => (DropCause::Rule, Some(number), None),
        Err(Dropped::Malformed(error)) => {
            let named = pod_name(&discovered, pod).map(|name| format!("pod {}: {error}", clean(&name)));
            (DropCause::Malformed, None, Some(named.unwrap_or(error)))
        }
    };
    // It is kept, as one of many, and does not grow any more.
    discovered.shrink_to_fit();
    Err(Arc::new(DroppedTarget { discovered, cause, by_rule, error }))
}

/// The targets of `job` from what became of all its candidates: each target once, and of what is dropped as much as may
/// be remembered. Where two pods come to the same target, it is that of the pod which has the address. What is wrong with
/// a pod is wrong with each port of its containers, and is counted and remembered once.
pub fn assemble<'j>(job: &ScrapeConfig, judged: impl IntoIterator<Item = &'j Judged>) -> JobTargets {
    let mut targets = JobTargets::default();
    let mut seen: HashMap<TargetId, usize> = HashMap::new();
    let mut told: HashSet<(&str, &str, &str)> = HashSet::new();
    let mut may_remember = match usize::try_from(job.limits.keep_dropped_targets) {
        Ok(0) | Err(_) => usize::MAX,
        Ok(limit) => limit,
    };
    for judged in judged {
        let dropped = match judged {
            Ok(target) => {
                match seen.entry(target.id) {
                    Entry::Vacant(place) => {
                        place.insert(targets.active.len());
                        targets.active.push(Arc::clone(target));
                    }
                    Entry::Occupied(place) => {
                        let known = &mut targets.active[*place.get()];
                        if let (Some(pod), Some(other)) = (&target.pod, &known.pod)
                            && pod.supersedes(other)
                        {
                            *known = Arc::clone(target);
                        }
                    }
                }
                continue;
            }
            Err(dropped) => dropped,
        };
        if let (Some(error), Some(pod)) = (&dropped.error, dropped.discovered.get(POD_NAME))
            && !told.insert((error, dropped.discovered.value(NAMESPACE), pod))
        {
            continue;
        }
        targets.dropped_count += 1;
        if let Some(rule) = dropped.by_rule {
            *targets.dropped_by_rule.entry(rule).or_default() += 1;
        }
        // The limit is for what rules drop in great numbers on purpose; what is malformed is always worth seeing.
        if dropped.error.is_some() {
            targets.dropped.push(Arc::clone(dropped));
        } else if may_remember > 0 {
            may_remember -= 1;
            targets.dropped.push(Arc::clone(dropped));
        }
    }
    targets
}

/// The targets of `job` among `candidates`: [`judge`] and [`assemble`] in one.
pub fn targets_of(job: &ScrapeConfig, candidates: &[Candidate], trust_domain: Option<&TrustDomain>) -> JobTargets {
    let judged: Vec<Judged> = candidates.iter().map(|candidate| judge(job, candidate, trust_domain)).collect();
    assemble(job, &judged)
}

/// Sets what the candidate lacks; an empty label counts as lacking, as everywhere. The result is what people see as the
/// discovered labels.
fn fill_defaults(
    job: &ScrapeConfig,
    labels: &mut Labels,
    pod: Option<&Arc<Pod>>,
    trust_domain: Option<&TrustDomain>,
) -> Filled {
    let mut fill = |name: &str, value: &str| {
        if !labels.contains(name) {
            labels.set(name, value);
        }
    };
    fill("job", &job.job_name);
    fill(INTERVAL, &format_duration(job.scrape_interval));
    fill(TIMEOUT, &format_duration(job.scrape_timeout));
    fill(METRICS_PATH, &job.metrics_path);
    fill(SCHEME, job.scheme.as_str());
    fill(NATIVE, word(job.histograms.native));
    fill(CLASSIC_TOO, word(job.histograms.classic_too));
    fill(CONVERT, word(job.histograms.convert));
    for (name, values) in &job.params {
        if let Some(value) = values.first() {
            fill(&format!("{PARAM_PREFIX}{name}"), value);
        }
    }
    match job.security {
        JobSecurity::Spiffe(_) => expected::fill(labels, pod.map(|pod| &**pod), trust_domain),
        JobSecurity::Ordinary(_) => Filled::Done,
    }
}

/// Why labels come to no target.
enum Dropped {
    /// The relabel rule of this number, from 0, drops it.
    ByRule(usize),
    /// This is wrong with it.
    Malformed(String),
}

impl From<String> for Dropped {
    fn from(error: String) -> Self {
        Dropped::Malformed(error)
    }
}

/// The target that the discovered labels come to.
fn target_of(
    job: &ScrapeConfig,
    discovered: &Labels,
    pod: Option<&Arc<Pod>>,
    filled: Filled,
    trust_domain: Option<&TrustDomain>,
) -> Result<Target, Dropped> {
    let mut labels = discovered.clone();
    let intruder = match expected::relabel(job, &mut labels) {
        Relabelled::Kept { intruder } => intruder,
        Relabelled::Dropped { by_rule } => return Err(Dropped::ByRule(by_rule)),
    };
    let address = address(&labels)?;
    let (interval, timeout) = cadence(&labels)?;
    let histograms = histograms(job, &labels)?;
    let path_and_query = path_and_query(job, &labels);
    let (scheme, verification) = match &job.security {
        JobSecurity::Ordinary(_) => ordinary(job, labels.value(SCHEME))?,
        JobSecurity::Spiffe(spiffe) => {
            place::check(job, discovered, pod.map(|pod| &**pod), &address)?;
            let peer = match pod.filter(|pod| pod.finished) {
                None => expected::expected_peer(spiffe, trust_domain, &labels, filled, intruder),
                Some(_) => Err(expected::finished()),
            };
            verified(labels.value(SCHEME), peer)
        }
    };
    let alpn = alpn(job, labels.value(ALPN))?;
    let tenants = Tenants::of(&job.tenants, &labels);
    // How histograms are read makes no other target.
    labels.retain(|name, _| !name.starts_with(META_PREFIX) && ![NATIVE, CLASSIC_TOO, CONVERT].contains(&name));
    if !labels.contains("instance") {
        let instance = labels.value(ADDRESS).to_owned();
        labels.set("instance", &instance);
    }
    let mut target = Target {
        id: TargetId(0),
        pool: job.job_name.clone(),
        address,
        scheme,
        path_and_query: path_and_query.into(),
        labels: labels.public(),
        tenants,
        discovered: discovered.clone(),
        interval,
        timeout,
        histograms,
        verification,
        alpn,
        pod: pod.cloned(),
    };
    target.id = id(&job.job_name, &labels, &target.url());
    Ok(target)
}

fn address(labels: &Labels) -> Result<Address, String> {
    let text = labels.value(ADDRESS);
    Address::parse(text).map_err(|error| match text {
        "" => error.to_string(),
        text => format!("{ADDRESS} {:?}: {error}", clean(text)),
    })
}

/// What the target is offered besides TLS itself; an ordinary job leaves that to its library.
fn alpn(job: &ScrapeConfig, text: &str) -> Result<Alpn, String> {
    match &job.security {
        JobSecurity::Ordinary(_) if !text.is_empty() => {
            Err(format!("{ALPN} {:?} has a meaning in jobs with tls_config.spiffe only", clean(text)))
        }
        JobSecurity::Ordinary(_) => Ok(Alpn::default()),
        JobSecurity::Spiffe(_) => Alpn::parse(text).map_err(|error| format!("{ALPN}: {error}")),
    }
}

fn cadence(labels: &Labels) -> Result<(Duration, Duration), String> {
    let read = |label: &str, word: &str| {
        let text = labels.value(label);
        match parse_duration(text) {
            None => Err(format!("{label} {:?} is not a duration such as 30s or 1m30s", clean(text))),
            Some(Duration::ZERO) => Err(format!("scrape {word} cannot be 0")),
            Some(duration) => Ok(duration),
        }
    };
    let (interval, timeout) = (read(INTERVAL, "interval")?, read(TIMEOUT, "timeout")?);
    if timeout > interval {
        let (interval, timeout) = (format_duration(interval), format_duration(timeout));
        return Err(format!("scrape timeout cannot be greater than scrape interval ({timeout:?} > {interval:?})"));
    }
    Ok((interval, timeout))
}

fn word(switch: bool) -> &'static str {
    if switch { "true" } else { "false" }
}

/// Which histograms are wanted, in the words that Go takes for booleans; what relabelling has removed is as the job says.
fn histograms(job: &ScrapeConfig, labels: &Labels) -> Result<HistogramReading, String> {
    let read = |label: &str, of_job| match labels.value(label) {
        "" => Ok(of_job),
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        other => Err(format!("{label} {:?} is neither \"true\" nor \"false\"", clean(other))),
    };
    let Histograms { native, classic_too, convert, .. } = job.histograms;
    Ok(HistogramReading {
        native: read(NATIVE, native)?,
        classic_too: read(CLASSIC_TOO, classic_too)?,
        convert: read(CONVERT, convert)?,
    })
}

/// An ordinary job: a label may choose `https` where the job says `http`, but not take away what the job says.
fn ordinary(job: &ScrapeConfig, scheme: &str) -> Result<(Scheme, Verification), String> {
    match (scheme, job.scheme) {
        ("https", _) => Ok((Scheme::Https, Verification::HostName)),
        ("http", Scheme::Http) => Ok((Scheme::Http, Verification::None)),
        ("http", Scheme::Https) => {
            let failure = Failure::new(
                Reason::PlaintextRefused,
                format!(
                    "the job says https, and {SCHEME} is \"http\" after relabelling: a label cannot take encryption away"
                ),
            )
            .mended_by(
                "remove the rule that sets __scheme__, or write scheme: http in a job of the targets that have no TLS",
            );
            Ok((Scheme::Http, Verification::Refused(failure)))
        }
        (other, _) => Err(format!("{SCHEME} {:?} is neither \"http\" nor \"https\"", clean(other))),
    }
}

/// A SPIFFE job: `https`, or nobody is asked, whatever else the labels say.
fn verified(scheme: &str, peer: Result<Peer, Failure>) -> (Scheme, Verification) {
    if scheme != "https" {
        let shown = if scheme == "http" { Scheme::Http } else { Scheme::Https };
        let mut failure = Failure::new(
            Reason::PlaintextRefused,
            format!("{SCHEME} is {:?} after relabelling, and a job with spiffe scrapes https only", clean(scheme)),
        );
        if scheme.is_empty() {
            failure = failure.mended_by(
                "a labeldrop, labelkeep or replace rule of relabel_configs takes __scheme__ away: except it from the rule",
            );
        }
        if let Ok(peer) = &peer {
            failure = failure.expecting(peer);
        }
        return (shown, Verification::Refused(failure));
    }
    match peer {
        Ok(peer) => (Scheme::Https, Verification::Spiffe(peer)),
        Err(failure) => (Scheme::Https, Verification::Refused(failure)),
    }
}

/// `namespace/name` of the pod behind a candidate.
fn pod_name(discovered: &Labels, pod: Option<&Arc<Pod>>) -> Option<String> {
    match (pod, discovered.get(POD_NAME)) {
        (Some(pod), _) => Some(pod.name.to_string()),
        (None, Some(name)) => Some(format!("{}/{name}", discovered.value(NAMESPACE))),
        (None, None) => None,
    }
}

/// Path and query of the request line. The path is taken as text, as Go's `url.URL` does: a `?` in it starts no query
/// and a `%` no escape. Parameters are sorted and written in form encoding.
fn path_and_query(job: &ScrapeConfig, labels: &Labels) -> String {
    let path = labels.value(METRICS_PATH);
    let mut out = String::with_capacity(path.len() + 1);
    if !path.starts_with('/') {
        out.push('/');
    }
    escape(path, |byte| matches!(byte, b'$' | b'&' | b'+' | b',' | b'/' | b':' | b';' | b'=' | b'@'), &mut out);

    let mut params: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, values) in &job.params {
        params.entry(name).or_default().extend(values.iter().map(String::as_str));
    }
    for (name, value) in labels.iter() {
        if let Some(name) = name.strip_prefix(PARAM_PREFIX) {
            let values = params.entry(name).or_default();
            match values.first_mut() {
                Some(first) => *first = value,
                None => values.push(value),
            }
        }
    }
    let mut separator = '?';
    for (name, values) in params {
        for value in values {
            out.push(separator);
            form_encode(name, &mut out);
            out.push('=');
            form_encode(value, &mut out);
            separator = '&';
        }
    }
    out
}

fn form_encode(text: &str, out: &mut String) {
    for (at, part) in text.split(' ').enumerate() {
        if at > 0 {
            out.push('+');
        }
        escape(part, |_| false, out);
    }
}

/// Percent-encodes all bytes but the unreserved ones of RFC 3986 and those that `allowed` names.
fn escape(text: &str, allowed: impl Fn(u8) -> bool, out: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') || allowed(byte) {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").expect("writing to a string cannot fail");
        }
    }
}

/// The name of a target: a hash of its pool, all labels that remain (internal ones among them), and the URL. Each text
/// ends in a byte that UTF-8 never contains.
fn id(pool: &str, labels: &Labels, url: &str) -> TargetId {
    let mut hash = Md5::new();
    hash.update(pool);
    hash.update([0xff]);
    for (name, value) in labels.iter() {
        for text in [name, value] {
            hash.update(text);
            hash.update([0xff]);
        }
    }
    hash.update(url);
    let digest: [u8; 16] = hash.finalize().into();
    let (first, _) = digest.split_at(8);
    TargetId(u64::from_be_bytes(first.try_into().expect("the first 8 of 16 bytes")))
}
