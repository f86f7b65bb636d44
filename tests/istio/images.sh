#!/usr/bin/env bash
# Istio, httpbin and all else that the live run wants, as images without a registry:
#
#   tests/istio/images.sh        builds them into target/istio/images, each a tar that a container runtime imports
#
# Istio and httpbin are built with Go from their published modules, at the versions and with the checksums of go.mod and go.sum
# beside this file; nothing in their source is changed. Envoy and Prometheus are the peers of the tests (`tests/peers.sh`), so the
# Envoy is not Istio's: it lacks the filters that Istio adds to its own. The program of the project is laid out by
# deploy/image/root.sh. What all of them stand on comes from this machine's release of Debian.
#
# What is there already is kept: Istio by the checksums of its modules, Debian's part until it is deleted. The images are
# written anew each time.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
here=$root/tests/istio
home=$root/target/istio
image=$here/image.py

fail() {
    echo "images: $*" >&2
    exit 1
}

# The name of Istio's build, as its own pipeline forms it: the version that the source is on the way to, and the commit.
istio_version() {
    local module
    (cd "$here" && go mod download istio.io/istio) || fail "go could not fetch Istio's module"
    module=$(cd "$here" && go list -m -f '{{.Dir}} {{.Version}}' istio.io/istio)
    echo "$(cat "${module% *}/VERSION")-alpha.${module##*-}"
}

# Builds the program $3 with the build tags $2 into $home/bin, with Istio's version $1.
build() {
    local name=istio.io/istio/pkg/version
    CGO_ENABLED=0 GOWORK=off go build -C "$here" -mod=readonly -trimpath -tags="$2" -o "$home/bin/" -ldflags "-s -w
        -X $name.buildVersion=$1 -X $name.buildTag=$1 -X $name.buildGitRevision=${1##*.} -X $name.buildStatus=Clean
        -X $name.buildHub=docker.io/istio" "$3" || fail "go could not build $3"
}

programs() {
    local version=$1
    cmp -s "$here/go.sum" "$home/bin/go.sum" && return
    echo "building Istio $version with $(go env GOVERSION): minutes, but only once" >&2
    mkdir -p "$home/bin"
    # The tags are those of Istio's Makefile.core.mk.
    build "$version" agent,disable_pgv,grpcnotrace,retrynotrace istio.io/istio/pilot/cmd/pilot-agent
    build "$version" vtprotobuf,disable_pgv istio.io/istio/pilot/cmd/pilot-discovery
    build "$version" vtprotobuf,disable_pgv istio.io/istio/istioctl/cmd/istioctl
    build "$version" '' github.com/mccutchen/go-httpbin/v2/cmd/go-httpbin
    cp "$here/go.sum" "$home/bin/go.sum"
}

# Unpacks Debian's shell, curl and iptables with all that they need into $home/debian: what Istio's own base image holds.
debian() {
    local names name file
    [[ -e $home/debian.complete ]] && return
    rm -rf "$home/debian" "$home/deb"
    mkdir -p "$home/deb" "$home/debian"/{etc,root,run,tmp,usr/{bin,sbin,lib,lib64},var/tmp}
    chmod 1777 "$home/debian"/{tmp,var/tmp}
    for name in bin sbin lib lib64; do
        ln -s "usr/$name" "$home/debian/$name"
    done
    : >"$home/deb/status" # nothing is installed there yet, so all of it is named
    names=$(apt-get install --simulate --no-install-recommends -o "Dir::State::status=$home/deb/status" \
        base-files bash coreutils curl findutils grep iptables procps sed | awk '$1 == "Inst" && $2 !~ /perl|usrmerge|dpkg/ { print $2 }')
    [[ $names ]] || fail "apt knows no packages; is this Debian, and was apt-get update run?"
    # shellcheck disable=SC2086 # a list of words
    (cd "$home/deb" && apt-get download -qq -o APT::Sandbox::User=root $names) || fail "apt could not fetch Debian's packages"
    for file in "$home"/deb/*.deb; do
        dpkg-deb --fsys-tarfile "$file" | tar -x --keep-directory-symlink --no-same-owner -C "$home/debian"
    done
    rm -rf "$home"/debian/usr/share/{doc,man,locale,info,lintian} "$home/deb"
    # What the packages' scripts would have linked.
    for name in iptables ip6tables; do
        for file in '' -save -restore; do
            ln -sf "$name-nft$file" "$home/debian/usr/sbin/$name$file"
        done
    done
    printf '%s\n' root:x:0:0:root:/root:/bin/bash nobody:x:65534:65534:nobody:/:/bin/false istio-proxy:x:1337:1337::/:/bin/bash \
        curl_user:x:100:101::/:/bin/sh >"$home/debian/etc/passwd"
    printf '%s\n' root:x:0: nogroup:x:65534: istio-proxy:x:1337: curl_group:x:101: >"$home/debian/etc/group"
    touch "$home/debian.complete"
}

# Makes the folder $1 of $home/roots anew, with the files $3… in its folder $2.
lay() {
    local to=$home/roots/$1
    rm -rf "$to"
    mkdir -p "$to/$2"
    cp -L "${@:3}" "$to/$2/"
}

# Writes the image $1 of the folders below $home that follow, up to `--`, and of what image.py is told after it.
write() {
    local name=$1 layers=()
    shift
    while [[ $1 != -- ]]; do
        layers+=(--layer "$home/$1")
        shift
    done
    shift
    rm -f "$home/images/$(basename "${name%:*}").tar"
    python3 "$image" "$name" "$home/images/$(basename "${name%:*}").tar" "${layers[@]}" "$@"
    echo "$name"
}

main() {
    local version source
    type -P go >/dev/null || fail "building Istio needs Go, which is not here"
    mkdir -p "$home/images" "$home/roots"
    "$root/tests/peers.sh" install envoy prometheus promtool >&2
    version=$(istio_version)
    programs "$version"
    debian
    source=$(cd "$here" && go list -m -f '{{.Dir}}' istio.io/istio)

    lay pilot usr/local/bin "$home/bin/pilot-discovery"
    write "docker.io/istio/pilot:$version" debian roots/pilot -- \
        --entrypoint '["/usr/local/bin/pilot-discovery"]' --user 1337:1337

    lay proxyv2 usr/local/bin "$home/bin/pilot-agent" "$("$root/tests/peers.sh" find envoy)"
    mkdir -p "$home/roots/proxyv2/var/lib/istio/envoy"
    install -m 644 "$source/tools/packaging/common/envoy_bootstrap.json" \
        "$home/roots/proxyv2/var/lib/istio/envoy/envoy_bootstrap_tmpl.json"
    write "docker.io/istio/proxyv2:$version" debian roots/proxyv2 -- --entrypoint '["/usr/local/bin/pilot-agent"]'

    lay httpbin bin "$home/bin/go-httpbin"
    write docker.io/mccutchen/go-httpbin:v2.15.0 roots/httpbin -- --cmd '["/bin/go-httpbin"]'

    write docker.io/curlimages/curl:8.10.1 debian -- --cmd '["curl", "--version"]' --user 100:101

    lay prometheus usr/bin "$("$root/tests/peers.sh" find prometheus)" "$("$root/tests/peers.sh" find promtool)"
    write quay.io/prometheus/prometheus:v3.5.0 debian roots/prometheus -- --entrypoint '["/usr/bin/prometheus"]' --user 65534

    "$root/deploy/image/root.sh" "$home/roots/meshscrape" --release --no-default-features
    write localhost/meshscrape:0.1.0 roots/meshscrape -- --env PATH=/usr/local/bin --user 65532:65532 \
        --entrypoint '["/usr/local/bin/meshscrape"]'
}

[[ ${1:-} ]] && fail "usage: tests/istio/images.sh"
main
