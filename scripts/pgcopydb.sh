#!/usr/bin/env bash
# Prints the program of the pgcopydb that the benchmarks run, and unpacks it when it is not there:
# Debian 12 has 0.10, which cannot compare data. See scripts/unpack-debian.sh, also for
# PGFERRY_MIRROR. It comes without PostgreSQL's programs: it runs those that PG_CONFIG or PATH name.
#
# PGFERRY_PGCOPYDB  the folder that it is unpacked into (default: target/pgcopydb)
set -euo pipefail

here=$(cd "$(dirname "$0")/.." && pwd)
kept=$(realpath -m -- "${PGFERRY_PGCOPYDB:-$here/target/pgcopydb}")
# shellcheck source=scripts/unpack-debian.sh
source "$here/scripts/unpack-debian.sh"

program=usr/bin/pgcopydb
# The first release of Debian with 0.18.
is_unpacked "$kept" || unpack "$kept" forky "$program" pgcopydb
echo "$kept/$program"
