#!/bin/sh
# Names the secure metric ports on pods that have them and were not annotated: gateways, or pods injected by an Istio that
# does not annotate yet. The annotation opens nothing, it says where to scrape; a new pod does not have it, so put it into
# the template as well.
#
# Apply    deploy/workloads/annotate-running-pods.sh NAMESPACE SELECTOR        such as istio-system app=istio-ingressgateway
# Verify   kubectl get pods -n NAMESPACE -l SELECTOR -o yaml | grep -E 'secure(-envoy)?-port'
#          meshscrape targets                            the pods are listed within a second
# Clean up deploy/workloads/annotate-running-pods.sh NAMESPACE SELECTOR --remove
set -eu
[ $# -ge 2 ] || { echo "usage: $0 NAMESPACE SELECTOR [--remove]" >&2; exit 2; }
case ${3:-} in
--remove) set -- "$1" "$2" prometheus.istio.io/secure-port- prometheus.istio.io/secure-envoy-port- ;;
'') set -- "$1" "$2" --overwrite prometheus.istio.io/secure-port=15092 prometheus.istio.io/secure-envoy-port=15091 ;;
*) echo "$0: $3 is not known; --remove takes the annotations off" >&2; exit 2 ;;
esac
namespace=$1 selector=$2
shift 2
exec kubectl annotate pods -n "$namespace" -l "$selector" "$@"
