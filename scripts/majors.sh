#!/usr/bin/env bash
# Prints the folder with the programs of each PostgreSQL major that it is given, one a line, and
# unpacks what this machine has not got: servers with pglogical, out of other releases of Debian,
# into a folder of the project. Nothing is installed by it but the two tools it works with, no
# script of those packages is run, and nothing is mounted or started.
#
#   scripts/majors.sh 13 17
#
# PGFERRY_MAJORS  where they are unpacked (default: target/majors; user postgres must be able to
#                 read it)
# PGFERRY_MIRROR  the archive of Debian to take them from (default: the one that apt takes Debian's
#                 packages from; apt's proxy is taken too)
set -euo pipefail

here=$(cd "$(dirname "$0")/.." && pwd)
kept=${PGFERRY_MAJORS:-$here/target/majors}
mirror=${PGFERRY_MIRROR:-}

# The Debian release whose own PostgreSQL is this major.
release_of() {
    case $1 in
        13) echo bullseye ;;
        15) echo bookworm ;;
        17) echo trixie ;;
        *) echo "no release of Debian has PostgreSQL $1: take 13, 15 or 17" >&2 && return 64 ;;
    esac
}

say() { echo "majors: $*" >&2; }

install_tools() {
    local missing=() tool
    for tool in debootstrap patchelf; do
        command -v "$tool" >/dev/null || missing+=("$tool")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    if ! command -v apt-get >/dev/null || [ "$(id -u)" -ne 0 ]; then
        say "missing: ${missing[*]}; install them, for example: sudo apt-get install ${missing[*]}"
        return 1
    fi
    DEBIAN_FRONTEND=noninteractive apt-get update >&2
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}" >&2
}

find_mirror() {
    [ -n "$mirror" ] && return
    mirror=$(apt-get indextargets --format '$(LABEL)|$(COMPONENT)|$(REPO_URI)' 2>/dev/null |
        sed -n 's/^Debian|main|//p' | head -n 1)
    [ -n "$mirror" ] && return
    say "apt knows no archive of Debian here: name one in PGFERRY_MIRROR, or run apt-get update"
    return 1
}

# debootstrap fetches with wget, which has apt's proxy from nobody else.
take_over_proxy() {
    local http='' https=''
    eval "$(apt-config shell http Acquire::http::Proxy https Acquire::https::Proxy)"
    [ -z "$http" ] || [ "$http" = DIRECT ] || export http_proxy=$http
    [ -z "$https" ] || [ "$https" = DIRECT ] || export https_proxy=$https
}

# Programs and loader are those of the other release, and so are all libraries: an executable's
# RPATH holds for what its modules need too. A program finds its share and library folders from
# where it is itself, and its companions beside it.
patch_programs() {
    local unpacked=$1 final=$2 major=$3 program loader triplet
    triplet=$(basename "$(find "$unpacked/usr/lib" -mindepth 1 -maxdepth 1 -name '*-linux-gnu*' | head -n 1)")
    for program in "$unpacked/usr/lib/postgresql/$major/bin"/*; do
        loader=$(patchelf --print-interpreter "$program" 2>/dev/null) || continue
        # /lib64 may be a link to the machine's own; the loader's folder has it under that name too.
        loader=$final/lib/$triplet/$(basename "$loader")
        patchelf --set-interpreter "$loader" --force-rpath \
            --set-rpath "$final/lib/$triplet:$final/usr/lib/$triplet" "$program"
    done
}

# Under another name until all of it is there, so that what has the name is whole.
unpack() {
    local major=$1 release=$2 final=$kept/$1 making=$kept/$1.making deb
    say "unpacking PostgreSQL $major of Debian $release from $mirror into $final"
    rm -rf "$making" "$final"
    mkdir -p "$making/root"
    if ! debootstrap --variant=minbase --download-only \
        --include="postgresql-$major,postgresql-$major-pglogical" \
        "$release" "$making/debs" "$mirror" >"$making/log" 2>&1; then
        tail -n 5 "$making/log" >&2
        return 1
    fi
    # base-files first: in newer releases it brings the links /lib and /lib64.
    for deb in "$making"/debs/var/cache/apt/archives/{base-files_,}*.deb; do
        dpkg-deb --extract "$deb" "$making/root"
    done
    patch_programs "$making/root" "$final" "$major"
    echo "$final" >"$making/root/unpacked-into"
    mv "$making/root" "$final"
    rm -rf "$making"
}

for major in "$@"; do
    installed=/usr/lib/postgresql/$major
    if [ -x "$installed/bin/postgres" ] && [ -e "$installed/lib/pglogical.so" ]; then
        echo "$installed/bin"
        continue
    fi
    release=$(release_of "$major")
    # The programs name their loader by its whole path: a folder that was moved is made anew.
    if [ "$(cat "$kept/$major/unpacked-into" 2>/dev/null)" != "$kept/$major" ]; then
        install_tools
        find_mirror
        take_over_proxy
        mkdir -p "$kept"
        unpack "$major" "$release"
    fi
    echo "$kept/$major/usr/lib/postgresql/$major/bin"
done
