#!/usr/bin/env bash
# Runs a spread of the integration tests between servers of different majors: 13 to 15 and 15 to 17.
#
#   scripts/majors-tests.sh [13:15 15:17 ...] [-- name ...]
#
# Without names it runs what depends on the version: above all the way from end to end, the copy,
# and the comparison of rows and definitions.
# The servers come from scripts/majors.sh.
set -euo pipefail

here=$(cd "$(dirname "$0")/.." && pwd)
pairs=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
    pairs+=("$1")
    shift
done
[ $# -eq 0 ] || shift
[ ${#pairs[@]} -gt 0 ] || pairs=(13:15 15:17)
chosen=("$@")

# What depends on the version. Fifty kills of the copy take minutes, and are about the daemon; the
# planted faults count definitions by their words, which two majors print otherwise.
spread=(
    majors:: crossing:: copying:: verify:: existing_schema:: large_objects:: privileges::
    ending:: forced:: strays:: pglogical_copy:: unlogged:: harness:: schema::a_view
    crash::killed_all_along_the_way_to_ready --skip killed_fifty_times
    --skip a_hundred_planted_faults
)

failed=()
for pair in "${pairs[@]}"; do
    source=${pair%%:*} destination=${pair##*:}
    bins=$("$here/scripts/majors.sh" "$source" "$destination")
    {
        read -r PGFERRY_TEST_SOURCE_BIN
        read -r PGFERRY_TEST_DESTINATION_BIN
    } <<<"$bins"
    export PGFERRY_TEST_SOURCE_BIN PGFERRY_TEST_DESTINATION_BIN
    tests=("${chosen[@]}")
    if [ ${#tests[@]} -eq 0 ]; then
        tests=("${spread[@]}")
        # Functions with a parsed body came with 14.
        [ "$source" -lt 14 ] || tests+=(schema::what_groups)
    fi
    echo "majors: from $("$PGFERRY_TEST_SOURCE_BIN/postgres" --version)"
    echo "majors: to   $("$PGFERRY_TEST_DESTINATION_BIN/postgres" --version)"
    (cd "$here" && "${CARGO:-cargo}" test --locked -p pgferry-tests --test it -- \
        --test-threads=2 "${tests[@]}") || failed+=("$pair")
done
[ ${#failed[@]} -eq 0 ] || {
    echo "majors: failed between ${failed[*]}" >&2
    exit 1
}
