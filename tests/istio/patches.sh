#!/usr/bin/env bash
# What deploy/workloads does to workloads and gateways, on the cluster on which walk.sh was: the patches are applied as their
# comments say, and the agent, Prometheus, `meshscrape verify` and `meshscrape audit` must see what the documents say of it.
#
#   tests/istio/patches.sh       KUBECONFIG names the cluster, as for kubectl
#
# It makes the whole mesh STRICT for a while, and httpbin, the ingress gateway and the Gateway API stay as it leaves them: it is for a
# cluster of tests, and begins nothing where the mesh has a PeerAuthentication of its own. A promise that is not kept is printed
# as MISSED; then it ends with 1.
set -uo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$root" || exit 2
kept=0 missed=0
of_mesh=$(kubectl get peerauthentication -n istio-system -o name) || exit 2
[[ ! $of_mesh ]] || { echo "patches: the mesh has $of_mesh, which is somebody's" >&2; exit 2; }
gateway_crds=$(cd tests/istio && go list -m -f '{{.Dir}}' sigs.k8s.io/gateway-api)/config/crd/standard

say() { printf '\n=== %s\n' "$*"; }
agent() { kubectl -n meshscrape exec daemonset/meshscrape -c meshscrape -- meshscrape "$@" 2>&1; }
targets() { agent targets; }
prometheus() { kubectl -n monitoring exec deployment/prometheus -- promtool query instant http://localhost:9090 "$1" 2>&1; }

# Sets `pod` to the newest pod of the namespace $1 that the selector $2 selects.
newest() { pod=$(kubectl get pods -n "$1" -l "$2" --sort-by=.metadata.creationTimestamp -o jsonpath='{.items[-1:].metadata.name}'); }

changed() { kubectl rollout status -n "$1" "$2" --timeout=3m | tail -n 1; }

# Waits at most $1 seconds until the command $3… prints a line like the regular expression $2, whatever it ends with.
within() {
    local limit=$1 line=$2 since=$SECONDS seen
    shift 2
    until seen=$("$@" 2>&1) || true && grep -qE -- "$line" <<<"$seen"; do
        if ((SECONDS - since > limit)); then
            printf '%s\n' "$seen"
            echo "MISSED: a line like $line of: $*"
            ((++missed))
            return
        fi
        sleep 2
    done
    grep -E -- "$line" <<<"$seen"
    ((++kept))
}

# The same at once.
at_once() { within -1 "$@"; }

# A target for the pod $2 of the namespace $1 is in the state $3.
target_is() { within 60 " *$3 +https://.*:15092/stats/prometheus +$1/$2 " targets; }

strict() {
    say 'STRICT: inbound capture ends the TLS of the secure ports'
    kubectl apply -f - <<-END
	apiVersion: security.istio.io/v1
	kind: PeerAuthentication
	metadata: { name: default, namespace: istio-system }
	spec: { mtls: { mode: STRICT } }
	END
    # A connection that was there before lives on; a new pod has none.
    kubectl rollout restart -n try deployment/httpbin
    changed try deployment/httpbin
    newest try app=httpbin
    target_is try "$pod" down
    within 60 'closed_after_handshake' targets
    within 30 '=> 0 @' prometheus "up{pod=\"$pod\"}"
    at_once '15092 answers 200 over mTLS +failed +closed_after_handshake' agent verify "pod/$pod" -n try
    at_once "error +MS009 +try/$pod" agent audit -n try

    say 'strict.peer-authentication.yaml: the ports pass, and no pod starts anew'
    kubectl apply -n try -f deploy/workloads/strict.peer-authentication.yaml
    target_is try "$pod" up
    kubectl delete -n try -f deploy/workloads/strict.peer-authentication.yaml

    say 'strict.patch.yaml'
    kubectl patch deployment httpbin -n try --type=merge --patch-file=deploy/workloads/strict.patch.yaml
    changed try deployment/httpbin
    newest try app=httpbin
    target_is try "$pod" up
    at_once '15092 refuses plain HTTP +ok +closed without a byte' agent verify "pod/$pod" -n try
    at_once '[0-9]+ ok, 0 failed' agent verify "pod/$pod" -n try
}

hardened() {
    local ip
    say 'hardened.patch.yaml: the plain ports are closed to others'
    kubectl patch deployment httpbin -n try --type=merge --patch-file=deploy/workloads/hardened.patch.yaml
    changed try deployment/httpbin
    newest try app=httpbin
    ip=$(kubectl get pod "$pod" -n try -o jsonpath='{.status.podIP}')
    target_is try "$pod" up
    # From a pod without a sidecar.
    kubectl create deployment plain -n default --image=docker.io/curlimages/curl:8.10.1 -- sleep infinity
    changed default deployment/plain
    at_once 'Failed to connect to .* port 15090' kubectl exec -n default deployment/plain -- curl -sSm3 "http://$ip:15090/stats/prometheus"
    at_once '^403$' kubectl exec -n default deployment/plain -- curl -sm3 -o /dev/null -w '%{http_code}\n' "http://$ip:15020/metrics"
    kubectl delete deployment plain -n default
    at_once '[0-9]+ ok, 0 failed' agent verify "pod/$pod" -n try
    at_once '^scraped$' agent scrape "pod/$pod" -n try --port envoy --output summary
}

# Whoever asks pods must not look to Istio's agent like a scrape that fails.
quiet() {
    local said seen
    say 'audit and verify leave no trace in the pods that they ask'
    for _ in 1 2 3 4 5; do
        at_once "^[a-z]+ +MS[0-9]+ +try/" agent audit -n try
    done
    sleep 22 # until the next scrape
    seen=$(targets)
    if ! said=$(kubectl logs -n try "$pod" -c istio-proxy) || ! grep -q "try/$pod" <<<"$seen"; then
        echo "MISSED: neither the log of $pod nor its target could be read"
        ((++missed))
    elif grep -E 'failed.* scraping|broken pipe' <<<"$said" || grep -A1 "try/$pod" <<<"$seen" | grep partial_merge; then
        echo "MISSED: Istio's agent counts failed scrapes"
        ((++missed))
    else
        ((++kept))
    fi
}

classic_gateway() {
    say 'ingress-gateway.patch.yaml: the gateway of istioctl'
    at_once 'error +MS001 +istio-system/istio-ingressgateway' agent audit -n istio-system
    kubectl patch deployment istio-ingressgateway -n istio-system --type=strategic --patch-file=deploy/workloads/ingress-gateway.patch.yaml
    changed istio-system deployment/istio-ingressgateway
    newest istio-system app=istio-ingressgateway
    target_is istio-system "$pod" up
    at_once '15092 is who it must be +ok +spiffe://cluster.local/ns/istio-system/sa/istio-ingressgateway-service-account' agent verify "pod/$pod" -n istio-system
    within 30 '=> 1 @' prometheus "up{pod=\"$pod\"}"

    say 'annotate-running-pods.sh: the same gateway, its ports open and not named'
    kubectl patch deployment istio-ingressgateway -n istio-system --type=json -p '[{"op":"remove","path":"/spec/template/metadata/annotations/prometheus.istio.io~1secure-port"},{"op":"remove","path":"/spec/template/metadata/annotations/prometheus.istio.io~1secure-envoy-port"}]'
    changed istio-system deployment/istio-ingressgateway
    newest istio-system app=istio-ingressgateway
    at_once "warning +MS002 +istio-system/$pod" agent audit -n istio-system
    deploy/workloads/annotate-running-pods.sh istio-system app=istio-ingressgateway
    target_is istio-system "$pod" up
    deploy/workloads/annotate-running-pods.sh istio-system app=istio-ingressgateway --remove
}

api_gateway() {
    local restart
    say 'gateway-api.proxy-config.yaml and gateway-api.patch.yaml: a Gateway of the Gateway API'
    kubectl apply --server-side -f "$gateway_crds" | tail -n 1
    within 60 '^istio +istio.io/gateway-controller +True' kubectl get gatewayclass
    kubectl apply -n try -f - <<-END
	apiVersion: gateway.networking.k8s.io/v1
	kind: Gateway
	metadata: { name: edge }
	spec:
	  gatewayClassName: istio
	  listeners: [{ name: http, port: 80, protocol: HTTP }]
	END
    within 60 '^edge-istio-.* 1/1 +Running' kubectl get pods -n try

    # As Istio's task has it. If this is MISSED one day, the ProxyConfig is no longer needed.
    kubectl patch gateway.gateway.networking.k8s.io edge -n try --type=merge -p '{"spec":{"infrastructure":{"annotations":{
        "proxy.istio.io/config":"proxyMetadata: {ENVOY_SECURE_METRICS_PORT: \"15091\", ENVOY_SECURE_MERGED_METRICS_PORT: \"15092\"}","prometheus.istio.io/secure-port":"15092"}}}}'
    sleep 5
    changed try deployment/edge-istio
    newest try gateway.networking.k8s.io/gateway-name=edge
    target_is try "$pod" down
    at_once 'connect_refused' targets
    at_once "error +MS004 +try/$pod" agent audit -n try

    say 'what audit prints as its fix'
    restart=$(agent audit -n try | tr -s ' \n' ' ' | grep -oE 'kubectl rollout restart deployment/edge-istio -n try' | head -n 1)
    sed 's/NAME/edge/' deploy/workloads/gateway-api.proxy-config.yaml | kubectl apply -n try -f -
    eval "${restart:-echo MISSED: no command that restarts the Gateway is printed}"
    changed try deployment/edge-istio
    newest try gateway.networking.k8s.io/gateway-name=edge
    target_is try "$pod" up
    kubectl delete proxyconfig/edge-secure-metrics -n try
    kubectl patch gateway.gateway.networking.k8s.io edge -n try --type=merge -p '{"spec":{"infrastructure":null}}'
    sleep 5

    sed 's/NAME/edge/' deploy/workloads/gateway-api.proxy-config.yaml | kubectl apply -n try -f -
    kubectl patch gateway.gateway.networking.k8s.io edge -n try --type=merge --patch-file=deploy/workloads/gateway-api.patch.yaml
    sleep 5
    changed try deployment/edge-istio
    newest try gateway.networking.k8s.io/gateway-name=edge
    target_is try "$pod" up
    at_once '15092 is who it must be +ok +spiffe://cluster.local/ns/try/sa/edge-istio' agent verify "pod/$pod" -n try
    at_once '[0-9]+ ok, 0 failed' agent verify "pod/$pod" -n try
    kubectl delete gateway.gateway.networking.k8s.io/edge proxyconfig/edge-secure-metrics -n try
}

strict
quiet
hardened
classic_gateway
api_gateway
kubectl delete peerauthentication default -n istio-system
echo
echo "$kept promises kept, $missed missed"
((missed == 0))
