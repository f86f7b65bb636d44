#!/usr/bin/env bash
# A Kubernetes cluster of one node on this machine, for tests that want Istio as it is: real kubelet, containerd and pods.
#
#   tests/istio/node.sh up           brings it up and says where its kubeconfig lies
#   tests/istio/node.sh load TAR…    makes the images in these files known to it; there is no registry
#   tests/istio/node.sh run COMMAND… runs a command in the node, as `ssh` would on a machine
#   tests/istio/node.sh enforce      from now on NetworkPolicies are enforced, by kube-router, which refuses
#                                    what is not allowed; before, they are only kept
#   tests/istio/node.sh down         ends it; nothing is left but the programs, for the next time
#
# It wants Linux and root. The node is a set of namespaces (processes, mounts, network, cgroups) with node/inside.sh as its first process: when
# that ends, the kernel ends every process in it and drops its mounts, bridges and rules. Outside remain a folder
# of cgroups and target/istio/node, which `down` removes, the kernel's module br_netfilter, and with cgroups of version 2 the
# controllers cpu, memory and pids for the children of the root. The two ends of one cable, 10.97.0.1 here and 10.97.0.2 there,
# are all that leads in or out: pods reach nothing outside the node. It has been run with
# cgroups of version 1. Of version 2, giving the node a subtree of its own has been tried, a kubelet in it not yet.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
home=$root/target/istio
state=$home/node
kubeconfig=$home/kubeconfig
cable=msnode0 # this machine's end
outer='' first='' # the processes of the node, once they are found

fail() {
    echo "node: $*" >&2
    exit 1
}

# Sets outer to the process that waits for the node's first one, and first to that, if the node is up.
find_processes() {
    outer='' first=''
    outer=$(cat "$state/pid" 2>/dev/null) && grep -qz inside.sh "/proc/$outer/cmdline" 2>/dev/null &&
        first=$(tr -d ' ' <"/proc/$outer/task/$outer/children") && [[ $first ]]
}

in_node() {
    find_processes || fail "it is not up"
    nsenter --target "$first" --mount --net --pid --uts --ipc --cgroup -- env PATH="$home/bin:$PATH" "$@"
}

k() { "$home/bin/kubectl" --kubeconfig "$kubeconfig" "$@"; }

# --- what it is made of ---------------------------------------------------------------------------------------------

programs='etcd kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl containerd runc nft ip'

# Brings the programs into target/istio/bin and the images that the node itself needs into target/istio/built.
fetch() {
    local name path images=$here/node/images
    # shellcheck disable=SC2086 # a list of words
    "$root/tests/peers.sh" install $programs cni >&2
    mkdir -p "$home/bin"
    for name in $programs; do
        path=$("$root/tests/peers.sh" find "$name")
        ln -sf "$(readlink -f "$path")" "$home/bin/$name"
    done
    path=$(dirname "$(readlink -f "$home/bin/containerd")")
    ln -sf "$path"/{ctr,containerd-shim-runc-v2} "$home/bin"
    ln -sfn "$(dirname "$(readlink -f "$("$root/tests/peers.sh" find cni)")")" "$home/bin/cni"

    for name in pause:3.10 coredns/coredns:v1.14.3; do
        path=$home/built/${name%%[/:]*}
        build "$images" "./${path##*/}" "$path/"
        "$here/image.py" "registry.k8s.io/$name" "$path.tar" --layer "$path" --entrypoint "[\"/${path##*/}\"]"
    done
}

# Brings kube-router into target/istio/bin, and what it works with into target/istio/firewall: elsewhere, so that the kubelet
# of every node finds the same.
fetch_enforcer() {
    local name path extensions
    "$root/tests/peers.sh" install xtables-nft-multi ipset >&2
    mkdir -p "$home/firewall"
    path=$(readlink -f "$("$root/tests/peers.sh" find xtables-nft-multi)")
    extensions=$(find "${path%/sbin/*}/lib/" -type d -name xtables -print -quit)
    for name in {iptables,ip6tables}{,-save,-restore}; do
        printf '#!/bin/sh\nXTABLES_LIBDIR=%q exec %q %s "$@"\n' "$extensions" "$path" "$name" >"$home/firewall/$name"
        chmod +x "$home/firewall/$name"
    done
    ln -sf "$(readlink -f "$("$root/tests/peers.sh" find ipset)")" "$home/firewall/ipset"
    build "$here/node/enforcer" github.com/cloudnativelabs/kube-router/v2/cmd/kube-router "$home/bin/kube-router"
}

# Builds the package $2 of the module in $1 as $3.
build() { CGO_ENABLED=0 GOWORK=off go build -C "$1" -mod=readonly -trimpath -ldflags '-s -w' -o "$3" "$2" >&2; }

# --- up -------------------------------------------------------------------------------------------------------------

# Signs a certificate: issue NAME SUBJECT [NAMES]
issue() {
    local pki=$state/pki
    openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout "$pki/$1.key" -subj "$2" 2>/dev/null |
        openssl x509 -req -CA "$pki/ca.crt" -CAkey "$pki/ca.key" -days 30 -out "$pki/$1.crt" -extfile <(
            echo 'extendedKeyUsage=serverAuth,clientAuth'
            [[ ! ${3:-} ]] || echo "subjectAltName=$3"
        ) 2>/dev/null
}

# Writes NAME.conf, with which the bearer of NAME.crt speaks to the API server.
write_kubeconfig() {
    local pki=$state/pki
    cat >"$pki/$1.conf" <<-END
	apiVersion: v1
	kind: Config
	current-context: node
	contexts: [{ name: node, context: { cluster: node, user: $1 } }]
	clusters:
	  - name: node
	    cluster:
	      server: https://10.97.0.2:6443
	      certificate-authority-data: $(base64 -w0 <"$pki/ca.crt")
	users:
	  - name: $1
	    user:
	      client-certificate-data: $(base64 -w0 <"$pki/$1.crt")
	      client-key-data: $(base64 -w0 <"$pki/$1.key")
	END
}

make_pki() {
    local pki=$state/pki name
    mkdir -m 700 "$pki"
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj /CN=kubernetes \
        -keyout "$pki/ca.key" -out "$pki/ca.crt" 2>/dev/null
    openssl genrsa -out "$pki/service-accounts.key" 2048 2>/dev/null
    openssl rsa -in "$pki/service-accounts.key" -pubout -out "$pki/service-accounts.pub" 2>/dev/null
    issue kube-apiserver /CN=kube-apiserver \
        DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local,IP:10.96.0.1,IP:10.97.0.2,IP:127.0.0.1
    issue kubelet-client /O=system:masters/CN=kube-apiserver-kubelet-client
    issue admin /O=system:masters/CN=admin
    issue kubelet /O=system:nodes/CN=system:node:node DNS:node,IP:10.97.0.2
    for name in kube-controller-manager kube-scheduler kube-proxy; do
        issue $name /CN=system:$name
    done
    for name in admin kubelet kube-controller-manager kube-scheduler kube-proxy; do
        write_kubeconfig $name
    done
}

# Puts this shell into a cgroup of the node's own in every hierarchy, and notes which they are. Of version 1 they lie below
# those that it is in; version 2 allows that only below one without processes, which the root alone is sure to be.
join_cgroups() {
    local hierarchies line controllers path mount folder
    if grep -q ' /sys/fs/cgroup .* - cgroup2 ' /proc/self/mountinfo; then
        folder=/sys/fs/cgroup/meshscrape-node
        mkdir -p $folder/first
        echo $folder >"$state/cgroups"
        echo '+cpu +memory +pids' >/sys/fs/cgroup/cgroup.subtree_control
        echo "$BASHPID" >$folder/cgroup.procs
        return
    fi
    mapfile -t hierarchies </proc/self/cgroup # all at once: it changes with every step below
    for line in "${hierarchies[@]}"; do
        IFS=: read -r _ controllers path <<<"$line"
        [[ $controllers ]] || continue
        mount=$(awk -v wanted=",$controllers," '{
            for (i = 7; $i != "-"; i++);
            if ($(i + 1) == "cgroup" && index("," $(i + 3) ",", wanted)) { print $5; exit }
        }' /proc/self/mountinfo)
        [[ $mount ]] || fail "the cgroups of $controllers are not mounted"
        folder=${mount}${path%/}/meshscrape-node
        mkdir -p "$folder"
        echo "$folder" >>"$state/cgroups"
        if [[ $controllers == *cpuset* ]]; then
            cat "${folder%/*}/cpuset.cpus" >"$folder/cpuset.cpus"
            cat "${folder%/*}/cpuset.mems" >"$folder/cpuset.mems"
        fi
        echo "$BASHPID" >"$folder/cgroup.procs"
    done
}

await() {
    local what=$1 seconds=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        find_processes || fail "the node ended: $(cat "$state/log")"
        ((seconds-- > 0)) || fail "$what; the logs are in $state/logs"
        sleep 1
    done
}

up() {
    ((EUID == 0)) || fail "only root can make a node"
    ! find_processes || fail "it is up already, and its kubeconfig is $kubeconfig"
    ! ip link show $cable >/dev/null 2>&1 || fail "another node is up on this machine: it has the cable $cable"
    [[ -e /proc/sys/net/bridge ]] || modprobe br_netfilter ||
        fail "this kernel has no br_netfilter, without which an answer that crosses the pods' bridge is not translated back"
    down
    fetch
    mkdir -p "$state"/{config,cni}
    make_pki
    install -m 600 "$state/pki/admin.conf" "$kubeconfig"
    (
        join_cgroups
        exec setsid unshare --mount --net --pid --uts --ipc --cgroup --fork --kill-child \
            "$here/node/inside.sh" "$state" "$here/node" "$home/bin" >"$state/log" 2>&1 </dev/null
    ) &
    echo $! >"$state/pid"
    local tries
    for ((tries = 0; tries < 50; tries++)); do
        ! find_processes || break
        sleep 0.1
    done
    [[ $first ]] || fail "no namespaces could be made: $(cat "$state/log")"
    # Of version 2, only what has no processes of its own can give its children controllers.
    [[ ! -d /sys/fs/cgroup/meshscrape-node/first ]] || for tries in $outer $first; do
        echo "$tries" >/sys/fs/cgroup/meshscrape-node/first/cgroup.procs
    done
    ip link add $cable type veth peer name eth0 netns "$first" || fail "no cable could be laid"
    ip addr add 10.97.0.1/30 dev $cable
    ip link set $cable up

    await "the API server did not come up" 120 k get --raw /readyz
    load "$home"/built/*.tar
    k apply -f "$here/node/dns.yaml"
    await "the node was not ready" 120 k wait --for=condition=Ready node/node --timeout=1s
    k rollout status deployment/coredns -n kube-system --timeout=2m || fail "there is no DNS; the logs are in $state/logs"
    echo "up: export KUBECONFIG=$kubeconfig"
}

load() {
    local tar
    for tar; do
        in_node ctr --namespace k8s.io images import - <"$tar" || fail "containerd does not take $tar"
    done
}

enforce() {
    local log=$state/logs/kube-router.log
    find_processes || fail "it is not up"
    ! firewall_is_there >/dev/null 2>&1 || fail "they are enforced already"
    fetch_enforcer
    (
        in_node env PATH="$home/firewall:$home/bin:$PATH" setsid kube-router \
            --kubeconfig /run/node/pki/admin.conf --hostname-override node --service-cluster-ip-range 10.96.0.0/16 \
            --run-firewall=true --run-router=false --run-service-proxy=false --enable-cni=false --metrics-port 0 \
            >"$log" 2>&1 </dev/null || true
    ) &
    await "kube-router does not enforce; its log is $log" 60 firewall_is_there
}

# Whether a chain for pods with policies exists.
firewall_is_there() { in_node nft list chain ip filter KUBE-NWPLCY-DEFAULT; }

down() {
    local folder tries
    if find_processes; then
        kill -KILL "$first"
        for ((tries = 0; tries < 100; tries++)); do
            [[ -e /proc/$outer ]] || break
            sleep 0.1
        done
        [[ ! -e /proc/$outer ]] || fail "process $first does not end"
    fi
    if [[ -e $state/cgroups ]]; then
        while read -r folder; do
            [[ ! -d $folder ]] || find "$folder" -depth -type d -exec rmdir {} + || fail "something still runs in $folder"
        done <"$state/cgroups"
    fi
    rm -rf "$state" "$kubeconfig"
}

case ${1:-} in
up) up ;;
down) down ;;
enforce) enforce ;;
load)
    shift
    load "$@"
    ;;
run)
    shift
    in_node "$@"
    ;;
*) fail "usage: tests/istio/node.sh up | load TAR… | run COMMAND… | enforce | down" ;;
esac
