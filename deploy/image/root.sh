#!/bin/sh
# Lays out the root of the image in the directory DIR, which is made anew:
#
#   deploy/image/root.sh DIR [CARGO OPTION…]
#
# Needs cargo, a C compiler, a static libc (Debian: libc6-dev) and /etc/ssl/certs/ca-certificates.crt.
#
# The program is linked statically to glibc, which since 2.34 resolves names by file and DNS without loading anything. Only
# the last link differs from an ordinary build, so that one is shared. musl would do as well, but is a toolchain more.
set -eu
[ $# -ge 1 ] || { echo "usage: $0 DIR [CARGO OPTION…]" >&2; exit 2; }
mkdir -p "$1"
dir=$(cd "$1" && pwd)
shift
if [ "$(ls -A "$dir")" ] && ! [ -x "$dir/usr/local/bin/meshscrape" ]; then
    echo "$0: $dir holds something else" >&2
    exit 2
fi
cd "$(dirname "$0")/../.."

build=${CARGO_BUILD_BUILD_DIR:-${CARGO_TARGET_DIR:-target}}
# A place of its own for what is linked here: it must not be taken for the ordinary program.
program=$(CARGO_BUILD_BUILD_DIR=$build CARGO_TARGET_DIR=$build/image \
    cargo rustc --locked --message-format=json-render-diagnostics "$@" --bin meshscrape -- -C target-feature=+crt-static |
    sed -n 's/.*"executable":"\([^"]*\)".*/\1/p')
[ -x "$program" ] || { echo "$0: cargo built no program" >&2; exit 1; }
if ldd "$program" >/dev/null 2>&1 && ldd "$program" | grep -q '=>'; then
    echo "$0: $program is not static" >&2
    exit 1
fi

rm -rf "$dir"
mkdir -p "$dir/usr/local/bin" "$dir/etc/ssl/certs"
cp "$program" "$dir/usr/local/bin/meshscrape"
# For receivers and jobs that are verified by the roots of the system.
cp /etc/ssl/certs/ca-certificates.crt "$dir/etc/ssl/certs/"
echo 'meshscrape:x:65532:65532::/:/usr/sbin/nologin' >"$dir/etc/passwd"
echo 'meshscrape:x:65532:' >"$dir/etc/group"
cp LICENSE "$dir/"
chmod -R u=rwX,go=rX "$dir"
