//! What the alerts and dashboards of Prometheus' own mixin ask of an agent has an answer here, in a real Prometheus.
//!
//! The table says of each of its alerts and panels which series it reads and how it joins them; the thresholds are left out, so
//! that an answer is one whether or not something is wrong. What the mixin asks of a server's storage, of rules, of queries and of
//! an Alertmanager no agent has. One panel subtracts the dropped samples, which Prometheus counts by reason so that
//! nothing answers it there either: its parts are asked one by one.

use crate::support::prometheus::Prometheus;

/// The alert or panel, and what it reads.
const ASKED: &[(&str, &str)] = &[
    ("alert on a bad configuration", "max_over_time(prometheus_config_last_reload_successful[5m])"),
    ("alert on lists of targets", "increase(prometheus_sd_refresh_failures_total[1m])"),
    ("alert on duplicate timestamps", "rate(prometheus_target_scrapes_sample_duplicate_timestamp_total[1m])"),
    ("alert on timestamps out of order", "rate(prometheus_target_scrapes_sample_out_of_order_total[1m])"),
    ("panel of timestamps out of bounds", "rate(prometheus_target_scrapes_sample_out_of_bounds_total[1m])"),
    (
        "alert on failed delivery",
        "rate(prometheus_remote_storage_samples_failed_total[1m]) / (rate(prometheus_remote_storage_samples_failed_total[1m]) \
         + rate(prometheus_remote_storage_samples_total[1m]))",
    ),
    (
        "alert on late delivery, as of 3.5",
        "max_over_time(prometheus_remote_storage_highest_timestamp_in_seconds[1m]) - ignoring (remote_name, url) group_right \
         max_over_time(prometheus_remote_storage_queue_highest_sent_timestamp_seconds[1m])",
    ),
    (
        "alert on late delivery, as of 3.14",
        "max_over_time(prometheus_remote_storage_queue_highest_timestamp_seconds[1m]) \
         - max_over_time(prometheus_remote_storage_queue_highest_sent_timestamp_seconds[1m])",
    ),
    (
        "alert on shards",
        "max_over_time(prometheus_remote_storage_shards_desired[1m]) - max_over_time(prometheus_remote_storage_shards_max[1m])",
    ),
    ("alert on target_limit", "increase(prometheus_target_scrape_pool_exceeded_target_limit_total[1m])"),
    ("alert on label limits", "increase(prometheus_target_scrape_pool_exceeded_label_limits_total[1m])"),
    ("alert on body_size_limit", "increase(prometheus_target_scrapes_exceeded_body_size_limit_total[1m])"),
    ("alert on sample_limit", "increase(prometheus_target_scrapes_exceeded_sample_limit_total[1m])"),
    ("alert on targets that cannot be used", "increase(prometheus_target_sync_failed_total[1m])"),
    ("list of instances", "count by (job, instance, version) (prometheus_build_info)"),
    ("panel of uptime", "max by (job, instance) (time() - process_start_time_seconds)"),
    ("panel of target sync", "sum by (scrape_job) (rate(prometheus_target_sync_length_seconds_sum[1m]))"),
    ("panel of targets", "sum(prometheus_sd_discovered_targets)"),
    (
        "panel of scrape intervals",
        "rate(prometheus_target_interval_length_seconds_sum[1m]) / rate(prometheus_target_interval_length_seconds_count[1m])",
    ),
    (
        "panel of samples in and out",
        "rate(prometheus_remote_storage_samples_in_total[1m]) - ignoring (remote_name, url) group_right (instance) \
         rate(prometheus_remote_storage_samples_total[1m])",
    ),
    ("panel of dropped samples", "rate(prometheus_remote_storage_samples_dropped_total[1m])"),
    ("panel of shards", "prometheus_remote_storage_shards"),
    ("panel of fewest shards", "prometheus_remote_storage_shards_min"),
    ("panel of what a shard holds", "prometheus_remote_storage_shard_capacity"),
    ("panel of waiting samples", "prometheus_remote_storage_samples_pending"),
    ("panel of retried samples", "rate(prometheus_remote_storage_samples_retried_total[1m])"),
    ("panel of retries into the queue", "rate(prometheus_remote_storage_enqueue_retries_total[1m])"),
];

/// Evaluates the table; `prometheus` scrapes agents, one of which has every kind of trouble.
pub(super) async fn has_an_answer(prometheus: &Prometheus, at_ms: i64) {
    let mut unanswered = Vec::new();
    for (what, expression) in ASKED {
        if prometheus.instant(expression, at_ms).await.is_empty() {
            unanswered.push(format!("{what}: {expression}"));
        }
    }
    assert!(unanswered.is_empty(), "what the mixin asks and nobody answers:\n{}", unanswered.join("\n"));
}
