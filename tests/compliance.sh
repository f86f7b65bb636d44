#!/usr/bin/env bash
# Makes the agent a sender for the published remote write compliance suite (prometheus/compliance, remotewrite/sender):
#
#   tests/compliance.sh SCRAPE_TARGET RECEIVE_ENDPOINT
#
# scrapes http://SCRAPE_TARGET/metrics each second and writes remote write 2.0 to RECEIVE_ENDPOINT/api/v1/write, until SIGINT
# or SIGTERM. MESHSCRAPE names the program; without it the one on PATH is used. In the suite a sender is one file:
#
#   // targets/meshscrape.go
#   package targets
#
#   func RunMeshscrape(opts TargetOptions) error {
#       target := strings.TrimPrefix(opts.ScrapeTarget, "http://")
#       return runCommand("/path/to/tests/compliance.sh", opts.Timeout, target, opts.ReceiveEndpoint)
#   }
#
# and one line in registeredTargets: "meshscrape": targets.RunMeshscrape. Then:
#
#   PROMETHEUS_RW2_COMPLIANCE_SENDERS=meshscrape go test ./...
#
# The suite runs senders side by side, each in an empty directory: the configuration is written there, and no port is fixed. It stops a sender after five
# seconds and looks at the last request: what waits is flushed then, as one request, because a request waits as long for more.
# One of its receivers never answers: no more than a few seconds are spent on it at the end.
set -euo pipefail

if (($# != 2)); then
    echo "compliance: usage: tests/compliance.sh HOST:PORT http://HOST:PORT" >&2
    exit 2
fi
cat >meshscrape.yaml <<EOF
global: { scrape_interval: 1s }
remote_write:
  - url: $2/api/v1/write
    protobuf_message: io.prometheus.write.v2.Request
    send_exemplars: true
    queue_config: { batch_send_deadline: 5s, split_rejected: false }
scrape_configs:
  - job_name: test
    scrape_protocols: [OpenMetricsText1.0.0, PrometheusText0.0.4]
    static_configs: [{ targets: ['$1'] }]
EOF
# In its place, so that signals reach it and its exit code is ours.
exec "${MESHSCRAPE:-meshscrape}" run --config meshscrape.yaml \
    --listen 127.0.0.1:0 --api-listen 127.0.0.1:0 --flush-deadline 5s
