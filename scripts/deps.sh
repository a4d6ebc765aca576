#!/usr/bin/env bash
# Installs what the build and the tests need and what is missing, on Debian and its kin.
# It leaves no server running: Debian's package would create and start one.
set -euo pipefail

pglogical=postgresql-15-pglogical

# The tests take any PostgreSQL with pglogical; see tests/src/install.rs.
has_pglogical() {
    [ -n "${PGFERRY_TEST_SOURCE_BIN:-}" ] && [ -n "${PGFERRY_TEST_DESTINATION_BIN:-}" ] && return
    compgen -G '/usr/lib/postgresql/*/lib/pglogical.so' >/dev/null && return
    command -v pg_config >/dev/null && [ -e "$(pg_config --pkglibdir)/pglogical.so" ]
}

missing=()
has_pglogical || missing+=("$pglogical")
[ -x /usr/sbin/pgbouncer ] || command -v pgbouncer >/dev/null || missing+=(pgbouncer)
command -v openssl >/dev/null || missing+=(openssl)
command -v pkg-config >/dev/null || missing+=(pkg-config)
command -v cc >/dev/null || missing+=(gcc libc6-dev)
if ! command -v pkg-config >/dev/null || ! pkg-config --exists openssl; then
    missing+=(libssl-dev)
fi
[ ${#missing[@]} -gt 0 ] || exit 0

if ! command -v apt-get >/dev/null || [ "$(id -u)" -ne 0 ]; then
    echo "missing: ${missing[*]}" >&2
    echo "install them, for example: sudo apt-get install ${missing[*]}" >&2
    exit 1
fi

export DEBIAN_FRONTEND=noninteractive
apt-get update
if [[ " ${missing[*]} " == *" $pglogical "* ]]; then
    # postgresql-common comes first, because it brings the directory that this file goes into; the
    # file goes again, so that later installations on this machine behave as they always did.
    apt-get install -y --no-install-recommends postgresql-common
    no_cluster=/etc/postgresql-common/createcluster.d/pgferry-no-main-cluster.conf
    trap 'rm -f "$no_cluster"' EXIT
    mkdir -p "$(dirname "$no_cluster")"
    echo 'create_main_cluster = false' >"$no_cluster"
fi
if [[ " ${missing[*]} " == *" pgbouncer "* ]] && [ ! -e /usr/sbin/policy-rc.d ]; then
    # Debian's word for "start nothing", for as long as this installation takes.
    trap 'rm -f /usr/sbin/policy-rc.d "${no_cluster:-}"' EXIT
    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
    chmod 755 /usr/sbin/policy-rc.d
fi
apt-get install -y --no-install-recommends "${missing[@]}"
