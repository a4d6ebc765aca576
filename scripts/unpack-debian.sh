# Sourced by the scripts that need programs of another release of Debian than this machine's: takes
# packages and what they depend on from the archive, and unpacks them into a folder of the project,
# so that their programs run with the libraries of their own release. apt works on lists of its own:
# nothing is installed but patchelf, no script of those packages is run, nothing is mounted or started.
#
# PGFERRY_MIRROR  the archive of Debian to take them from (default: the one that apt takes Debian's
#                 packages from)
# shellcheck shell=bash

mirror=${PGFERRY_MIRROR:-}

say() { echo "$(basename "$0" .sh): $*" >&2; }

install_patchelf() {
    ! command -v patchelf >/dev/null || return 0
    if [ "$(id -u)" -ne 0 ]; then
        say "missing: patchelf; install it, for example: sudo apt-get install patchelf"
        return 1
    fi
    DEBIAN_FRONTEND=noninteractive apt-get update >&2
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends patchelf >&2
}

find_mirror() {
    [ -z "$mirror" ] || return 0
    # shellcheck disable=SC2016 # apt fills these in
    mirror=$(apt-get indextargets --format '$(LABEL)|$(COMPONENT)|$(REPO_URI)' 2>/dev/null |
        sed -n 's/^Debian|main|//p' | head -n 1)
    [ -z "$mirror" ] || return 0
    say "apt knows no archive of Debian here: name one in PGFERRY_MIRROR, or run apt-get update"
    return 1
}

# Downloads packages with their dependencies, as if nothing were installed, into FOLDER/archives.
download() {
    local folder=$1 release=$2
    shift 2
    mkdir -p "$folder/lists/partial" "$folder/archives/partial"
    : >"$folder/status"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $release main" \
        >"$folder/sources.list"
    local apt=(
        apt-get -q -o Dir::State="$folder" -o Dir::State::status="$folder/status"
        -o Dir::Cache="$folder" -o Dir::Etc::sourcelist="$folder/sources.list"
        -o Dir::Etc::sourceparts=/dev/null -o Dir::Etc::preferences=/dev/null
        -o Dir::Etc::preferencesparts=/dev/null -o APT::Default-Release= -o APT::Sandbox::User=
        -o Acquire::Languages=none -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false
    )
    "${apt[@]}" update --error-on=any &&
        "${apt[@]}" install -y --no-install-recommends --download-only "$@"
}

# Loader and libraries become those of the other release: an executable's RPATH holds for what its
# modules need too. A program finds its companions from where it is itself.
patch_programs() {
    local unpacked=$1 final=$2 programs=$3 program loader triplet
    triplet=$(basename "$(find "$unpacked/usr/lib" -mindepth 1 -maxdepth 1 -name '*-linux-gnu*' | head -n 1)")
    while IFS= read -r program; do
        loader=$(patchelf --print-interpreter "$program" 2>/dev/null) || continue
        # /lib64 may be a link to the machine's own; the loader's folder has it under that name too.
        loader=$final/lib/$triplet/$(basename "$loader")
        patchelf --set-interpreter "$loader" --force-rpath \
            --set-rpath "$final/lib/$triplet:$final/usr/lib/$triplet" "$program" || return 1
    done < <(find "$unpacked/$programs" -type f)
}

# Whether FOLDER is whole and where it was made: programs name their loader by its whole path, so
# one that was moved is made anew.
is_unpacked() { [ "$(cat "$1/unpacked-into" 2>/dev/null)" = "$1" ]; }

# unpack FOLDER RELEASE PROGRAMS PACKAGE...: PROGRAMS, a file or a folder of them inside FOLDER, are
# those that can be run. Under another name until all of it is there.
unpack() {
    local final=$1 release=$2 programs=$3 making=$1.making deb
    shift 3
    # Somebody may have named a folder that holds something else.
    if [ -n "$(ls -A "$final" 2>/dev/null)" ] && [ ! -e "$final/unpacked-into" ]; then
        say "$final is not empty, and was not unpacked here: name another folder, or remove it"
        return 1
    fi
    install_patchelf && find_mirror || return 1
    say "unpacking $* of Debian $release from $mirror into $final"
    rm -rf "$making" "$final"
    mkdir -p "$making/root"
    # base-files: in newer releases it brings the links /lib and /lib64, so it is unpacked first.
    if ! download "$making" "$release" base-files "$@" >"$making/log" 2>&1; then
        tail -n 5 "$making/log" >&2
        return 1
    fi
    for deb in "$making"/archives/{base-files_,}*.deb; do
        dpkg-deb --extract "$deb" "$making/root" || return 1
    done
    patch_programs "$making/root" "$final" "$programs" || return 1
    echo "$final" >"$making/root/unpacked-into"
    mv "$making/root" "$final"
    rm -rf "$making"
}
