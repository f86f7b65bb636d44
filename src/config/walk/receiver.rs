//! One of `remote_write`.

use std::time::Duration;

use http::HeaderName;
use md5::{Digest, Md5};
use url::Url;

use super::fields::{Fields, Item, Valued};
use super::tables::{METADATA, QUEUE, REMOTE_WRITE};
use super::tenant::{self, Tenancy};
use super::unique::Place;
use super::{Scalar, Walk, auth, headers, oauth2, proxy, relabel, tls, urls};
use crate::config::problem::Wrong;
use crate::config::shown::Shown;
use crate::config::{CatchUp, MetadataConfig, QueueConfig, ReceiverSecurity, RemoteWrite, Secret, units};
use crate::model::{WriteFormat, names_tenant};
use crate::relabel::NameScheme;

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// The smallest queue that can still hold a few requests.
const MIN_MEMORY: u64 = 1024 * 1024;
/// More at a time no agent needs: a node has some hundreds of targets.
const MAX_IN_FLIGHT: u64 = 256;

/// The smallest queue on disk that can still drop a part of what it has and keep the rest.
const MIN_DISK: u64 = 16 * 1024 * 1024;

/// Reads the receiver `item`, and where its name stands.
pub(super) fn read<'w>(
    walk: &'w Walk<'w>,
    item: &Item<'w>,
    names: NameScheme,
    tenancy: &mut Tenancy,
) -> Option<(RemoteWrite, Place, Shown)> {
    let mut fields = Fields::open(walk, item, &REMOTE_WRITE)?;
    let url = read_url(&mut fields);
    let security = tls::of_receiver(&mut fields);
    let auth = auth::read(&mut fields);
    let oauth2 = oauth2::read(&mut fields);
    let http_headers = headers::read(&mut fields);
    let tls = match &security {
        ReceiverSecurity::Ordinary(tls) => Some(tls),
        ReceiverSecurity::Spiffe(_) => None,
    };
    let proxies = proxy::read(&mut fields, tls);
    if let Some((url, _)) = &url
        && url.scheme() == "http"
        && matches!(security, ReceiverSecurity::Spiffe(_))
    {
        let message = "the receiver's SPIFFE ID is to be verified, and nobody is verified over http";
        fields.wrong("url", Wrong::new(message, "write a URL that begins with https://"));
    }
    let message = read_message(&mut fields);
    let send_native_histograms = fields.flag("send_native_histograms", false);
    let send_exemplars = fields.flag("send_exemplars", false);
    let own_headers = read_headers(&mut fields);
    // Those that say whose the samples are prove nothing.
    let proves = own_headers.iter().any(|(name, _)| !names_tenant(name.as_str()));
    if let Some((url, written)) = &url
        && (auth.is_some() || oauth2.is_some() || proves || http_headers.iter().any(|header| header.secret))
    {
        urls::check_credentials(&fields, "url", url, written, "this receiver");
    }
    let set: Vec<_> = own_headers
        .iter()
        .map(|(name, _)| name)
        .chain(http_headers.iter().map(|header| &header.name))
        .cloned()
        .collect();
    let tenant = tenant::read(&mut fields, &set, tenancy);
    let remote_timeout = fields.some_duration("remote_timeout", DEFAULT_TIMEOUT);
    let follow_redirects = fields.flag("follow_redirects", true);
    let enable_http2 = fields.flag("enable_http2", false);
    let write_relabel = relabel::read(&mut fields, "write_relabel_configs", names);
    let metadata = read_metadata(&mut fields);
    let queue = read_queue(&mut fields);
    let (name, place) = read_name(&mut fields);

    let (Some((url, _)), shown) = (url, fields.close()) else { return None };
    let (name, shown) = match (name, shown) {
        (Some(name), shown) => (name, shown),
        // Like Prometheus: six digits of a hash of what the block says.
        (None, shown) => {
            let digest = Md5::digest(shown.to_yaml());
            let name: String = digest[..3].iter().map(|byte| format!("{byte:02x}")).collect();
            (name.clone(), with_name(shown, name))
        }
    };
    let receiver = RemoteWrite {
        name,
        url,
        headers: own_headers,
        http_headers,
        tenant,
        proxies,
        remote_timeout,
        auth,
        oauth2,
        message,
        security,
        follow_redirects,
        enable_http2,
        write_relabel,
        send_native_histograms,
        send_exemplars,
        metadata,
        queue,
    };
    Some((receiver, place, shown))
}

fn with_name(shown: Shown, name: String) -> Shown {
    let Shown::Map(mut pairs) = shown else { return shown };
    // Behind the URL, where the table of keys has it.
    pairs.insert(1, ("name".to_owned(), Shown::Text(name)));
    Shown::Map(pairs)
}

fn read_name(fields: &mut Fields<'_>) -> (Option<String>, Place) {
    let mut place = Place { pos: fields.pos, key: fields.path.clone(), shown: None };
    let Some(scalar) = fields.text("name") else { return (None, place) };
    if scalar.value.is_empty() {
        fields.wrong("name", Wrong::new("the name is empty", "write a name, or remove it"));
    }
    place = Place { pos: scalar.pos, key: scalar.key.clone(), shown: Some(scalar.to_string()) };
    (Some(scalar.value.into_owned()), place)
}

fn read_url<'w>(fields: &mut Fields<'w>) -> Option<(Url, Scalar<'w>)> {
    const EXAMPLE: &str = "https://host/api/v1/write";
    fields.need("url", &format!("write url: {EXAMPLE}"));
    let url = urls::read(fields, "url", EXAMPLE, urls::without_user_info);
    if url.is_none() && is_of_another_scheme(fields) {
        fields.walk.unreachable.update(|count| count + 1);
    }
    url
}

/// Whether the URL would be one, if it did not begin with something that we cannot speak.
fn is_of_another_scheme(fields: &Fields<'_>) -> bool {
    let url = fields.scalar("url").and_then(|scalar| Url::parse(&scalar.value).ok());
    url.is_some_and(|url| !matches!(url.scheme(), "http" | "https") && url.has_host())
}

fn read_message(fields: &mut Fields<'_>) -> WriteFormat {
    const V1: &str = "prometheus.WriteRequest";
    const V2: &str = "io.prometheus.write.v2.Request";
    let message = fields.valued("protobuf_message", Valued::new(WriteFormat::V1, V1), |text| match text {
        V1 => Ok(WriteFormat::V1),
        V2 => Ok(WriteFormat::V2),
        _ => Err(super::file::one_of(text, &[V1, V2])),
    });
    message.value
}

fn read_catch_up(queue: &mut Fields<'_>) -> CatchUp {
    const OLDEST: &str = "oldest_first";
    const NEWEST: &str = "newest_first";
    let catch_up = queue.valued("catch_up", Valued::new(CatchUp::default(), OLDEST), |text| match text {
        OLDEST => Ok(CatchUp::OldestFirst),
        NEWEST => Ok(CatchUp::NewestFirst),
        _ => Err(super::file::one_of(text, &[OLDEST, NEWEST])),
    });
    catch_up.value
}

fn read_headers(fields: &mut Fields<'_>) -> Vec<(HeaderName, Secret)> {
    const KEY: &str = "headers";
    let mut headers: Vec<(HeaderName, Secret)> = Vec::new();
    let mut shown = Vec::new();
    for named in fields.names(KEY) {
        let walk = fields.walk;
        let others: Vec<_> = headers.iter().map(|(name, _)| name.clone()).collect();
        let Some(name) = headers::name(walk, &named, &others) else { continue };
        let Some(scalar) = walk.scalar(&named.item) else { continue };
        headers::check_value(walk, &scalar);
        shown.push((named.name.to_owned(), Shown::Text(walk.hide(&scalar))));
        headers.push((name, Secret::new(scalar.value)));
    }
    fields.show(KEY, Shown::Map(shown));
    headers
}

fn read_metadata(fields: &mut Fields<'_>) -> MetadataConfig {
    const KEY: &str = "metadata_config";
    let default = MetadataConfig::default();
    let mut metadata = fields.section_or_defaults(KEY, &METADATA);
    let families = metadata.count("max_samples_per_send", default.max_samples_per_send as u64);
    if families == 0 {
        metadata
            .wrong("max_samples_per_send", Wrong::new("a request without families sends nothing", "write at least 1"));
    }
    let config = MetadataConfig {
        send: metadata.flag("send", default.send),
        send_interval: metadata.some_duration("send_interval", default.send_interval),
        max_samples_per_send: usize::try_from(families).unwrap_or(usize::MAX),
    };
    fields.show(KEY, metadata.close());
    config
}

fn read_queue(fields: &mut Fields<'_>) -> QueueConfig {
    const KEY: &str = "queue_config";
    let default = QueueConfig::default();
    let mut queue = fields.section_or_defaults(KEY, &QUEUE);
    let memory = queue.valued("max_memory", Valued::new(default.max_memory, "64MiB"), units::size).value;
    if memory < MIN_MEMORY {
        queue.wrong("max_memory", Wrong::new("this holds hardly one request", "write at least 1MiB"));
    }
    let disk = queue.valued("max_disk", Valued::new(default.max_disk, "1GiB"), units::size).value;
    if disk < MIN_DISK {
        queue.wrong("max_disk", Wrong::new("this holds hardly one scrape of a node", "write at least 16MiB"));
    }
    let max_disk_age = queue.some_duration("max_disk_age", default.max_disk_age);
    for (key, usual, instead) in [
        ("capacity", 10_000, "write max_memory to bound it"),
        ("min_shards", 1, "write max_requests_in_flight to bound what is sent at a time"),
        ("max_shards", 50, "write max_requests_in_flight to bound what is sent at a time"),
    ] {
        if queue.count(key, usual) != usual {
            let message = "this has no effect: there is one queue for each receiver, bounded by its bytes";
            queue.warn(key, Wrong::new(message, instead));
        }
    }
    let in_flight = queue.count("max_requests_in_flight", default.max_requests_in_flight as u64);
    if !(1..=MAX_IN_FLIGHT).contains(&in_flight) {
        let wrong = match in_flight {
            0 => Wrong::new("without a request nothing is sent", "write at least 1"),
            _ => Wrong::new("no receiver needs so many from one agent", format!("write at most {MAX_IN_FLIGHT}")),
        };
        queue.wrong("max_requests_in_flight", wrong);
    }
    let samples = queue.count("max_samples_per_send", default.max_samples_per_send as u64);
    if samples == 0 {
        queue.wrong("max_samples_per_send", Wrong::new("a request without samples sends nothing", "write at least 1"));
    }
    let min_backoff = queue.some_duration("min_backoff", default.min_backoff);
    let max_backoff = queue.some_duration("max_backoff", default.max_backoff);
    if min_backoff > max_backoff {
        let key = if queue.has("min_backoff") { "min_backoff" } else { "max_backoff" };
        let shown = units::format_duration(if key == "min_backoff" { max_backoff } else { min_backoff });
        let wrong = match key {
            "min_backoff" => {
                Wrong::new(format!("this is longer than the max_backoff of {shown}"), format!("write at most {shown}"))
            }
            _ => Wrong::new(
                format!("this is shorter than the min_backoff of {shown}"),
                format!("write at least {shown}"),
            ),
        };
        queue.wrong(key, wrong);
    }
    let config = QueueConfig {
        max_memory: memory,
        max_disk: disk,
        max_disk_age,
        max_samples_per_send: usize::try_from(samples).unwrap_or(usize::MAX),
        batch_send_deadline: queue.some_duration("batch_send_deadline", default.batch_send_deadline),
        min_backoff,
        max_backoff,
        retry_on_http_429: queue.flag("retry_on_http_429", default.retry_on_http_429),
        sample_age_limit: queue.duration("sample_age_limit", default.sample_age_limit),
        max_requests_in_flight: usize::try_from(in_flight).unwrap_or(usize::MAX),
        max_samples_per_second: queue.count("max_samples_per_second", default.max_samples_per_second),
        split_rejected: queue.flag("split_rejected", default.split_rejected),
        catch_up: read_catch_up(&mut queue),
    };
    fields.show(KEY, queue.close());
    config
}
