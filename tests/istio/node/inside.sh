#!/usr/bin/env bash
# The first process of the node: runs in namespaces of its own (tests/istio/node.sh made them), turns them into something
# that a kubelet takes for a machine, starts the programs of the cluster and ends when one of them ends; all others end with it.
# Whatever it mounts, routes or writes outside /run/node is gone then. It must not change a setting that the whole machine has.
#
#   inside.sh STATE CONFIG PROGRAMS
set -euo pipefail

state=$1 config=$2 programs=$3
address=10.97.0.2

# --- what a machine has ---------------------------------------------------------------------------------------------

mount --make-rshared /
mount -t proc proc /proc
umount -l /sys
mount -t sysfs sysfs /sys
if grep -q '^[^:]*:[^:]' /proc/self/cgroup; then
    mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
    while IFS=: read -r _ controllers _; do
        [[ $controllers ]] || continue
        folder=/sys/fs/cgroup/${controllers#name=}
        mkdir "$folder"
        mount -t cgroup -o "$controllers" cgroup "$folder"
    done </proc/self/cgroup
else
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
fi

mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/node /run/tunables /run/lock
mount --rbind "$state" /run/node
mount --rbind "$config" /run/node/config
mount --rbind "$programs/cni" /run/node/cni
mount -t tmpfs -o mode=755 tmpfs /var/lib
mount -t tmpfs -o mode=755 tmpfs /var/log

# The kubelet wants these settings of the kernel, and would change them for the whole machine: it finds them as it wants them.
while read -r setting value; do
    file=/run/tunables/${setting//\//.}
    echo "$value" >"$file"
    mount --bind "$file" "/proc/sys/$setting"
done <<END
vm/overcommit_memory 1
vm/panic_on_oom 0
kernel/panic 10
kernel/panic_on_oops 1
kernel/keys/root_maxkeys 1000000
kernel/keys/root_maxbytes 25000000
END

hostname node
for ((tries = 0; tries < 300; tries++)); do
    ! ip link show eth0 >/dev/null 2>&1 || break
    sleep 0.1
done
ip link set lo up
ip addr add $address/30 dev eth0
ip link set eth0 up
# A Service's address must have a route before it is translated; for anything else there is none, and whoever asks learns it at once.
ip route add 10.96.0.0/16 via 10.97.0.1
sysctl -qw net.ipv4.ip_forward=1 net.bridge.bridge-nf-call-iptables=1

# --- what a cluster has ---------------------------------------------------------------------------------------------

export PATH=$programs:$PATH
pki=/run/node/pki
mkdir -p /run/node/logs/pods

start() {
    "$@" >"/run/node/logs/$1.log" 2>&1 &
    names[$!]=$1
}

await() {
    local what=$1 tries
    shift
    for ((tries = 0; tries < 600; tries++)); do
        "$@" >/dev/null 2>&1 && return
        sleep 0.2
    done
    echo "$what did not come up in two minutes" >&2
    exit 1
}

declare -A names
start etcd --data-dir /run/node/etcd --unsafe-no-fsync
start containerd --config /run/node/config/containerd.toml
start kube-apiserver \
    --etcd-servers http://127.0.0.1:2379 \
    --advertise-address $address \
    --service-cluster-ip-range 10.96.0.0/16 \
    --authorization-mode Node,RBAC \
    --enable-admission-plugins NodeRestriction \
    --allow-privileged \
    --client-ca-file $pki/ca.crt \
    --tls-cert-file $pki/kube-apiserver.crt \
    --tls-private-key-file $pki/kube-apiserver.key \
    --kubelet-certificate-authority $pki/ca.crt \
    --kubelet-client-certificate $pki/kubelet-client.crt \
    --kubelet-client-key $pki/kubelet-client.key \
    --kubelet-preferred-address-types InternalIP \
    --service-account-issuer https://kubernetes.default.svc.cluster.local \
    --service-account-key-file $pki/service-accounts.pub \
    --service-account-signing-key-file $pki/service-accounts.key
await kube-apiserver kubectl --kubeconfig $pki/admin.conf get --raw /readyz
await containerd ctr version
start kube-controller-manager \
    --kubeconfig $pki/kube-controller-manager.conf \
    --leader-elect=false \
    --use-service-account-credentials \
    --root-ca-file $pki/ca.crt \
    --service-account-private-key-file $pki/service-accounts.key \
    --cluster-signing-cert-file $pki/ca.crt \
    --cluster-signing-key-file $pki/ca.key
start kube-scheduler \
    --kubeconfig $pki/kube-scheduler.conf \
    --leader-elect=false
start kubelet \
    --config /run/node/config/kubelet.yaml \
    --kubeconfig $pki/kubelet.conf \
    --root-dir /run/node/kubelet \
    --hostname-override node \
    --node-ip $address
start kube-proxy \
    --config /run/node/config/kube-proxy.yaml \
    --hostname-override node

wait -n -p ended || status=$?
echo "${names[$ended]} ended with status ${status:-0}; its last lines:" >&2
tail -n 20 "/run/node/logs/${names[$ended]}.log" >&2
exit 1
