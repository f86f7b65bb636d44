#!/usr/bin/env bash
# The NetworkPolicies of the manifests, where somebody enforces them: the agents still do all that they must, and strangers do not
# get at them. On the cluster on which walk.sh was.
#
#   tests/istio/policies.sh COMMAND…     KUBECONFIG names the cluster, as for kubectl; the command begins to enforce them
#
# A promise that is not kept is printed as MISSED; then it ends with 1.
set -uo pipefail

missed=0
(($#)) || { echo "usage: $0 COMMAND…, which begins to enforce NetworkPolicies" >&2; exit 2; }

# The command $2… must print a line like the regular expression $1.
prints() {
    local line=$1 seen
    shift
    seen=$("$@" 2>&1)
    if ! grep -E -- "$line" <<<"$seen"; then
        printf '%s\nMISSED: a line like %s of: %s\n' "$seen" "$line" "$*"
        ((++missed))
    fi
}

agent() { kubectl -n meshscrape exec daemonset/meshscrape -c meshscrape -- meshscrape "$@"; }
address() { kubectl -n meshscrape get pods -l app.kubernetes.io/name=meshscrape -o jsonpath='{.items[0].status.podIP}'; }
stranger() { kubectl exec -n default deployment/stranger -- curl -sSm3 "$@"; }

kubectl create deployment stranger -n default --image=docker.io/curlimages/curl:8.10.1 -- sleep infinity
kubectl rollout status deployment/stranger -n default --timeout=3m

# What keeps the stranger out later must be the policies.
prints '^meshscrape_build_info' stranger "http://$(address):9464/metrics"
prints 'Prometheus Server is Ready' stranger http://prometheus.monitoring:9090/-/ready
"$@" || exit 2

# All of it from the beginning: API server, istiod, targets, receiver.
kubectl -n meshscrape rollout restart daemonset/meshscrape
kubectl -n meshscrape rollout status daemonset/meshscrape --timeout=3m
sleep 40 # the first scrape, and its delivery
prints ' up +https://.*:15092/stats/prometheus +try/httpbin-' agent targets
prints '=> 1 @' kubectl -n monitoring exec deployment/prometheus -- promtool query instant http://localhost:9090 'up{namespace="try"}'
prints 'note +MS008 +try/client-' agent audit -n try

prints 'Failed to connect|timed out' stranger "http://$(address):9464/metrics"
prints 'Failed to connect|timed out' stranger http://prometheus.monitoring:9090/-/ready
kubectl delete deployment stranger -n default

echo "$missed promises missed"
((missed == 0))
