#!/usr/bin/env bash
# The project on a live cluster: a node of Kubernetes on this machine, Istio's control plane and agent, and the documents followed
# on it to the letter.
#
#   tests/istio/run.sh           all of it: brings the cluster up, walks, takes the cluster down
#   tests/istio/run.sh up        only the cluster with Istio, to look at; it prints what to export
#   tests/istio/run.sh down      takes it down
#
# Needs root and Linux namespaces (node.sh), Debian or one of its children (images.sh), Go, the project's Rust toolchain, and what
# tests/peers.sh needs. What is real in it, what is not, and what was seen: docs/live-istio.md.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
here=$root/tests/istio
home=$root/target/istio
export KUBECONFIG=$home/kubeconfig

# kubectl and istioctl come from here.
export PATH=$home/bin:$PATH

fail() {
    echo "run: $*" >&2
    exit 2
}

# What would else be missing only after minutes of building, and a node that somebody else looks at.
ready() {
    local program
    [[ $EUID == 0 ]] || fail "a node is made of namespaces, which takes root"
    for program in go cargo python3 apt-get dpkg-deb openssl nsenter unshare; do
        [[ $(type -P "$program") ]] || fail "there is no $program"
    done
    ! "$here/node.sh" run true 2>/dev/null || fail "a node is up already; tests/istio/run.sh down takes it down"
}

up() {
    local version
    "$here/images.sh"
    "$here/node.sh" up
    "$here/node.sh" load "$home"/images/*.tar
    version=$(istioctl version --remote=false --short)
    istioctl install -y -f "$here/istio.yaml" --set hub=docker.io/istio --set tag="${version##* }"
    istioctl version
}

case ${1:-all} in
up)
    ready
    up
    echo "export KUBECONFIG=$KUBECONFIG PATH=$home/bin:\$PATH"
    ;;
down) "$here/node.sh" down ;;
all)
    ready
    mkdir -p "$home"
    walk=$(mktemp -d "$home/walk.XXXXXX")
    trap '"$here/node.sh" down; rm -rf "$walk"' EXIT
    up
    status=0
    # The Envoy is not Istio's, so it counts nothing for Istio.
    NO_ISTIO_METRICS=yes "$here/walk.sh" there "$walk" || status=1
    "$here/patches.sh" || status=1
    "$here/policies.sh" "$here/node.sh" enforce || status=1
    "$here/walk.sh" back "$walk" || status=1
    exit "$status"
    ;;
*)
    echo "usage: $0 [up|down]" >&2
    exit 2
    ;;
esac
