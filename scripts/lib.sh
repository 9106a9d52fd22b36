# Sourced by the scripts beside it: where things are, and how they speak.
# shellcheck shell=bash disable=SC2034 # some of these variables are for those who source it

root=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
scripts=$root/scripts
program=${0##*/}

# What setup installs and finds out lives here, and nowhere else.
cache=${DISCOVERY_CACHE:-$root/.cache}
[[ $cache == /* ]] || cache=$PWD/$cache

# stdout belongs to what a script was asked for; everything else is said on stderr.
say() {
    printf '%s: %s\n' "$program" "$*" >&2
}

# die CODE MESSAGE: 2 is for a wrong option or an unusable setting, 1 for the rest.
die() {
    local code=$1
    shift
    say "$*"
    exit "$code"
}

# The comment at the head of a script is its manual.
usage() {
    sed -n '2,/^[^#]/{ s/^#$//p; s/^# //p; }' -- "$0"
    exit 0
}

# absolute PATH: build scripts and servers run in other folders than the caller.
absolute() {
    case $1 in
        /*) printf '%s\n' "$1" ;;
        *) printf '%s\n' "$PWD/$1" ;;
    esac
}

# etcd takes every ETCD_* variable for an option of its own, so it never sees those of the caller.
# The one it gets lets 3.4 run on processors that are not amd64.
etcd_env=(env -i "PATH=$PATH" "ETCD_UNSUPPORTED_ARCH=${HOSTTYPE/#aarch64/arm64}")

# etcd_version BINARY: prints, for example, 3.5.1.
etcd_version() {
    "${etcd_env[@]}" "$1" --version 2>/dev/null </dev/null | awk '/^etcd Version:/ { print $3; found = 1 } END { exit !found }'
}

# The oldest Rust that the workspace builds with.
rust_version() {
    sed -n 's/^rust-version = "\(.*\)"$/\1/p' -- "$root/Cargo.toml"
}

# A fresh rustup has cargo in its own folder and on PATH only in the next login.
need_cargo() {
    if ! command -v cargo >/dev/null && [[ -x ${CARGO_HOME:-${HOME:-}/.cargo}/bin/cargo ]]; then
        PATH=${CARGO_HOME:-${HOME:-}/.cargo}/bin:$PATH
    fi
    command -v cargo >/dev/null || die 1 "cargo: not found; install Rust $(rust_version) or newer (rustup)"
}

# What setup found: PROTOC, ETCD_35, ETCD_34, ETCDCTL_35, LIBFAKETIME, as far as they are there.
load_env() {
    # shellcheck source=/dev/null
    source "$cache/env"
}
