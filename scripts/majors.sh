#!/usr/bin/env bash
# Prints the folder with the programs of each PostgreSQL major that it is given, one a line, and
# unpacks what this machine has not got: servers with pglogical, out of other releases of Debian,
# into a folder of the project. See scripts/unpack-debian.sh, also for PGFERRY_MIRROR.
#
#   scripts/majors.sh 13 17
#
# PGFERRY_MAJORS  where they are unpacked (default: target/majors; user postgres must be able to
#                 read it)
set -euo pipefail

here=$(cd "$(dirname "$0")/.." && pwd)
kept=$(realpath -m -- "${PGFERRY_MAJORS:-$here/target/majors}")
# shellcheck source=scripts/unpack-debian.sh
source "$here/scripts/unpack-debian.sh"

# The Debian release whose own PostgreSQL is this major.
release_of() {
    case $1 in
        13) echo bullseye ;;
        15) echo bookworm ;;
        17) echo trixie ;;
        *) echo "no release of Debian has PostgreSQL $1: take 13, 15 or 17" >&2 && return 64 ;;
    esac
}

for major in "$@"; do
    installed=/usr/lib/postgresql/$major
    if [ -x "$installed/bin/postgres" ] && [ -e "$installed/lib/pglogical.so" ]; then
        echo "$installed/bin"
        continue
    fi
    release=$(release_of "$major")
    programs=usr/lib/postgresql/$major/bin
    is_unpacked "$kept/$major" ||
        unpack "$kept/$major" "$release" "$programs" "postgresql-$major" "postgresql-$major-pglogical"
    echo "$kept/$major/$programs"
done
