#!/usr/bin/env bash
# Follows docs/getting-started.md on a cluster with Istio, block after block as a reader would, in one shell, and holds what is
# printed against what the page promises:
#
#   tests/istio/walk.sh there DIR    steps 1 to 4, in the new directory DIR; KUBECONFIG names the cluster, as for kubectl
#   tests/istio/walk.sh back DIR     what takes it all away again
#
# A promise that is not kept is printed as MISSED and the walk goes on; then it ends with 1. The commands are the page's. What
# differs is the least that a cluster without a registry and without an engine for images asks for:
#   - the registry is `localhost`, as the page has it for kind; the images were imported before;
#   - `podman` builds and pushes nothing, and copies the program from where images.sh has laid it out;
#   - blocks for another case than this cluster's (STRICT, Bookinfo, a password of a registry) are left out, and named;
#   - what the page gives a second terminal runs in the background.
set -uo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
page=$root/docs/getting-started.md
ran=0 left_out=0 missed=0
[[ $# == 2 && $1 =~ ^(there|back)$ ]] || { echo "usage: $0 there|back DIR" >&2; exit 2; }

# Prints the shell blocks of the page after the line that begins with $1 and before the one that begins with $2, each ended by a zero byte.
blocks() {
    awk -v from="$1" -v until="$2" '
        index($0, until) == 1 { exit }
        index($0, from) == 1 { on = 1 }
        /^```/ { if (in_block) { printf "%c", 0; in_block = 0 } else if (on && $0 == "```sh") { in_block = 1 }; next }
        in_block' "$page"
}

# The last block must have printed a line like $1 (a regular expression); $2 says what the page promises.
expect() {
    if grep -qE -- "$1" "$output"; then
        echo "    as promised: $2"
    else
        echo "    MISSED: $2 (no line like: $1)"
        ((++missed))
    fi
}

# Prints the block $1 as it is typed.
typed() {
    local line
    while IFS= read -r line; do
        echo "$ $line"
    done <<<"${1%$'\n'}"
}

# Runs the block $1 in this very shell: variables last from one to the next. $2 is the exit code that the page names.
run() {
    local code
    ((++ran))
    typed "$1"
    eval "$1" >"$output" 2>&1 </dev/null
    code=$?
    cat "$output"
    if [[ $code != "${2:-0}" ]]; then
        echo "    MISSED: the last command ended with $code, not ${2:-0}"
        ((++missed))
    fi
}

leave_out() {
    ((++left_out))
    echo "# left out, $1: $(head -n 1 <<<"$2") …"
}

podman() {
    case $1 in
    cp) cp "$root/target/istio/roots/meshscrape/usr/local/bin/meshscrape" "$3" ;;
    esac
}

# Runs the block $1, and looks at what it printed, by a command that no other block has.
step() {
    case $1 in
    *imagePullSecrets*) leave_out 'no registry asks for a password here' "$1" ;;
    *productpage*) leave_out 'Bookinfo does not run here' "$1" ;;
    *strict.patch.yaml*) leave_out 'the mesh is not STRICT' "$1" ;;
    *REGISTRY=registry.example/team*) run "${1/registry.example\/team/localhost}" ;;
    *'kubectl kustomize mine'*)
        run "$1"
        expect "image: localhost/meshscrape:0\.1\.0" 'the image is there under your registry'"'"'s name'
        expect 'image: .*prometheus' 'and that of a Prometheus'
        ;;
    *'podman cp'*)
        run "$1"
        expect '^meshscrape [0-9]' 'the command runs on the workstation'
        ;;
    *'istioctl tag list'*) run "$1" ;;
    *'create namespace try'*)
        run "$1"
        expect '^httpbin-.* 2/2 +Running' 'the pod is READY 2/2'
        ;;
    *'proxy-config listeners'*)
        run "$1"
        expect '^.*15091 +Trans: tls' 'the listener 15091 with Trans: tls'
        expect '^.*15092 +Trans: tls' 'the listener 15092 with Trans: tls'
        expect '^15092$' 'the injector has added the annotation'
        ;;
    *'apply -k mine'*)
        run "$1"
        expect '^meshscrape-.* 2/2 +Running' 'the agent and its sidecar: 2/2 Running'
        grep -i warning "$output" && { echo '    MISSED: a warning' && ((++missed)); }
        ;;
    *'meshscrape scrape pod/'*)
        run "$1"
        expect 'through +port 9465 of pod meshscrape/meshscrape-.*, job istio-secure-merged-metrics$' 'by the agent of the node'
        expect 'identity +spiffe://cluster.local/ns/try/sa/httpbin +is exactly what was expected' 'the peer has proved who it is'
        expect '^scraped$' 'scraped'
        ;;
    *'-- meshscrape targets'*)
        sleep 20 # "until its first scrape, within 20 seconds, a target is `unknown`"
        run "$1"
        expect ' up .*15092' 'the targets of the agent are up'
        expect 'httpbin' 'httpbin is among them'
        ;;
    *"'up{namespace=\"try\"}'"*)
        sleep 20 # "before the first scrape, for up to 20 seconds, there is nothing"
        run "$1"
        expect 'up\{app="httpbin", instance="[0-9.]+:15092", job="istio-secure-merged-metrics", namespace="try", node="[^"]+", pod="httpbin-[^"]+", service_account="httpbin"\} => 1 @' 'it arrived in Prometheus'
        ;;
    *'create deployment client'*)
        run "$1"
        expect '^200$' 'the request is answered'
        if [[ ${NO_ISTIO_METRICS:-} ]]; then
            echo '    not to be had here: istio_requests_total, since the Envoy is not the one of Istio'
        else
            expect 'istio_requests_total\{' 'one series for it'
        fi
        ;;
    *port-forward*)
        forward "$1"
        ;;
    *'meshscrape audit --all'*)
        run "$1" 1
        expect 'exit code 1$' 'the audit ends with exit code 1'
        expect '[0-9]+ ok, 0 failed' 'verify finds httpbin in order'
        expect 'error +MS001 +try/client' 'MS001 for client'
        expect 'MS005 +try/httpbin' 'MS005 for httpbin'
        expect 'MS006 +try/httpbin' 'MS006 for httpbin'
        expect 'MS0(18|07) +try/httpbin' 'MS018, or MS007 where policies are not enforced'
        grep -E 'MS0.. +meshscrape/' "$output" | grep -v MS018 && { echo '    MISSED: the pods of the agents are in order' && ((++missed)); }
        ;;
    *) run "$1" ;;
    esac
}

# What runs until Ctrl-C in a second terminal: the page is fetched meanwhile.
forward() {
    local since=$SECONDS pid
    ((++ran))
    typed "$1"
    eval "exec $1" >"$output" 2>&1 </dev/null &
    pid=$!
    until grep -q 'Forwarding from 127.0.0.1:9465' "$output" || ((SECONDS - since > 20)); do sleep 0.2; done
    cat "$output"
    expect 'Forwarding from 127.0.0.1:9465' 'it says Forwarding from 127.0.0.1:9465'
    curl -sS -o /dev/null -w 'the page: %{http_code} %{content_type}\n' http://127.0.0.1:9465/ 2>&1 | tee "$output"
    expect '200 text/html' 'the status page'
    kill "$pid" 2>/dev/null
    wait "$pid" 2>/dev/null
}

follow() {
    local block
    while IFS= read -r -d '' block; do
        echo
        step "$block"
    done < <(blocks "$1" "$2")
}

there() {
    mkdir -p "$1/home/.local/bin" || exit 2
    cd "$1" || exit 2
    [[ ! -e mine ]] || { echo "$0: $1/mine is there from an earlier walk" >&2; exit 2; }
    ln -sfn "$root/deploy" deploy
    follow '## 1. The image' '## 5. If it does not'
}

back() {
    cd "$1" || exit 2
    follow 'To take it all away again' '## Without a cluster'
    for name in try meshscrape monitoring; do
        kubectl get namespace "$name" >/dev/null 2>&1 && { echo "    MISSED: the namespace $name is gone" && ((++missed)); }
    done
}

output=$(mktemp)
trap 'rm -f "$output"' EXIT
dir=$2
export HOME=$dir/home
export PATH=$HOME/.local/bin:$PATH
"$1" "$dir"
echo
echo "$ran blocks followed, $left_out left out, $missed promises missed"
((missed == 0))
