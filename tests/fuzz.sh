#!/usr/bin/env bash
# Coverage-guided fuzzing of everything that reads what others wrote, with libFuzzer and stable Rust.
#
#   tests/fuzz.sh run [SECONDS] [TARGET…]   fuzzes each target for so long (60 s), on all cores; without names: every one
#   tests/fuzz.sh replay TARGET FILE…       reads these inputs once
#   tests/fuzz.sh adopt [TARGET…]           what past runs found becomes part of the corpus, made as small as it goes
#   tests/fuzz.sh lock                      takes the versions of the crate's own Cargo.lock
#
# The targets are in tests/fuzz/targets, their inputs in tests/fuzz/corpus: a run reads all of those first, then it makes
# new ones out of them. What it finds on the way stays in target/fuzz/corpus and helps the next run; an input that makes a
# target panic, take longer than 10 seconds or more than 1 GiB is kept in target/fuzz/failures, and fails the run.
#
# MESHSCRAPE_SEED=N makes the same inputs again, as far as the time goes; without it a run makes others each time.
#
# It is a package of its own because it is built in a way of its own (tests/fuzz/rustc) and needs a C++ compiler.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
package=$root/tests/fuzz
home=$root/target/fuzz
seconds_at_most=10
mebibytes_at_most=1024

# target | the longest input in bytes
table='
text         | 8192
openmetrics  | 8192
protobuf     | 8192
config       | 6144
relabel      | 1024
spiffe_id    | 2560
certificates | 16384
x509         | 8192
spool        | 12288
'

fail() {
    echo "fuzz: $*" >&2
    exit 1
}

targets() { sed -nE 's/^([a-z0-9_]+) .*/\1/p' <<<"$table"; }

# Prints the longest input of the target $1.
longest() {
    local length
    length=$(sed -nE "s/^$1 +\| //p" <<<"$table")
    [[ $length ]] || fail "no target is called '$1'; there are: $(targets | paste -sd' ')"
    echo "$length"
}

program() { echo "$home/$host/release/$1"; }

build() {
    # Files that are written for each input belong into memory, where there is such a place.
    temporary=$(mktemp -d -p "$([[ -w /dev/shm ]] && echo /dev/shm)" meshscrape-fuzz.XXXXXX)
    trap 'rm -rf "$temporary"' EXIT
    host=$(rustc -vV | sed -n 's/^host: //p')
    # With a target named, what runs while building is told from what is fuzzed.
    RUSTC_WRAPPER=$package/rustc CARGO_TARGET_DIR=$home CARGO_INCREMENTAL=0 \
        cargo build --manifest-path "$package/Cargo.toml" --locked --release --target "$host" >&2
}

# Runs the target $1 with the arguments behind it, in this shell's directory of temporary files.
start() {
    local target=$1
    shift
    mkdir -p "$home/failures"
    TMPDIR=$temporary "$(program "$target")" -artifact_prefix="$home/failures/$target-" -max_len="$(longest "$target")" \
        -timeout=$seconds_at_most -rss_limit_mb=$mebibytes_at_most "$@"
}

# Fuzzes the target $2 for $1 seconds, and says in a line what came of it.
fuzz() {
    local log=$home/log/$2 found=$home/corpus/$2 runs covered new
    mkdir -p "$home/log" "$found"
    if ! start "$2" -max_total_time="$1" -seed="${MESHSCRAPE_SEED:-0}" -print_final_stats=1 "$found" "$package/corpus/$2" >"$log" 2>&1; then
        failed "$2" "$log"
        return 1
    fi
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    new=$(sed -n 's/^stat::new_units_added: *//p' "$log")
    covered=$(sed -nE 's/.* cov: ([0-9]+) .*/\1/p' "$log" | tail -n1)
    printf '%-12s %10d inputs read in %d s, %d places reached, %d inputs new: nothing found\n' "$2" "$runs" "$1" "$covered" "$new"
}

# Says what the target $1 failed of, by the log $2.
failed() {
    local input
    input=$(sed -nE 's/.*Test unit written to (.*)/\1/p' "$2" | tail -n1)
    {
        echo "$1: failed"
        grep -vE '^(#[0-9]+|INFO:|WARNING:|stat::|MS: |artifact_prefix=|Base64:|SUMMARY)|^ *(#[0-9]+ 0x|NEW_FUNC|NOTE: )|^$' "$2" | tail -n 30 | sed 's/^/    /'
        if [[ $input ]]; then
            echo "the input: $input"
            echo "once more: tests/fuzz.sh replay $1 $input"
            echo "mended, it belongs into tests/fuzz/corpus/$1, and a test of its own beside the code"
        else
            echo "no input was kept; all that was said is in $2"
        fi
    } >&2
}

# Adds to the corpus of the target $1 what past runs found, and leaves out what reaches nothing new.
adopt() {
    local kept=$package/corpus/$1 merged=$home/merged
    rm -rf "$merged"
    mkdir -p "$merged" "$kept" "$home/corpus/$1"
    start "$1" -set_cover_merge=1 "$merged" "$kept" "$home/corpus/$1" >"$home/merge.log" 2>&1 || fail "merging failed: $home/merge.log"
    rm -rf "$kept"
    mv "$merged" "$kept"
    echo "$1: $(find "$kept" -type f | wc -l) inputs, $(du -sb "$kept" | cut -f1) bytes"
}

case ${1:-} in
run)
    shift
    seconds=60
    [[ ${1:-} =~ ^[0-9]+$ ]] && seconds=$1 && shift
    # shellcheck disable=SC2046 # a list of words
    (($#)) || set -- $(targets)
    for target; do longest "$target" >/dev/null; done
    build
    export -f fuzz start failed program longest targets fail
    export home host package table temporary seconds_at_most mebibytes_at_most
    printf '%s\n' "$@" | xargs -P "$(nproc)" -I '{}' bash -euo pipefail -c "fuzz $seconds {}" ||
        fail "a target failed: see above"
    ;;
replay)
    target=${2:-}
    longest "$target" >/dev/null
    (($# > 2)) || fail "replay wants a target and files"
    shift 2
    build
    start "$target" "$@"
    ;;
adopt)
    shift
    # shellcheck disable=SC2046 # a list of words
    (($#)) || set -- $(targets)
    for target; do longest "$target" >/dev/null; done
    build
    for target; do adopt "$target"; done
    ;;
lock)
    cp "$root/Cargo.lock" "$package/Cargo.lock"
    cargo metadata --manifest-path "$package/Cargo.toml" --format-version 1 >/dev/null
    ;;
*)
    fail "usage: tests/fuzz.sh run [SECONDS] [TARGET…] | replay TARGET FILE… | adopt [TARGET…] | lock"
    ;;
esac
