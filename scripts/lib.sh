# shellcheck shell=sh
# What scripts/demo and scripts/test share: the packages, where to build, and building.
# Sourced with `top` set to the source tree (absolute); run with `set -eu`.
#
# Environment:
#   TRM_BUILD_ROOT   where the build directories go; without: the source tree, or, where
#                    that will not do, $XDG_CACHE_HOME/trireme (~/.cache/trireme)
#   TRM_LOG_LINES    how much of the log of what failed is shown (60)
#   TRM_NO_INSTALL   not empty: installs nothing, says what is missing

say() { printf '%s\n' "$@"; }
die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# --- Packages ---------------------------------------------------------------------
# A need is satisfied by what can be used, not by who installed it: an MPI from a module
# or a prefix of your own is as good as Debian's.

have_command() { command -v "$1" >/dev/null 2>&1; }
have_module() { have_command pkg-config && pkg-config --exists "$1"; }
have_mpi() { have_module ompi-c || have_module mpich; }
have_file() { [ -e "$1" ]; }

# need PACKAGE TEST [ARGUMENT]: names the package in $missing unless the test succeeds.
missing=
need() {
    package=$1
    shift
    "$@" || missing="$missing $package"
}

needs_of_the_build() {
    need gcc have_command "${CC:-gcc}"
    need libc6-dev have_file /usr/include/stdio.h
    need make have_command make
    need autoconf have_command autoconf
    need automake have_command automake
    need libtool have_command libtoolize
    need pkg-config have_command pkg-config
    need libopenmpi-dev have_mpi
    need openmpi-bin have_command "${MPIRUN:-mpirun}"
    need libhwloc-dev have_module hwloc
    need zlib1g-dev have_module zlib
    need libdeflate-dev have_module libdeflate
}

as_administrator() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif [ -t 0 ]; then
        sudo "$@"
    else
        sudo -n "$@"
    fi
}

apt_install() {
    # shellcheck disable=SC2086
    as_administrator env DEBIAN_FRONTEND=noninteractive \
        apt-get install -qq -y --no-install-recommends -o Dpkg::Use-Pty=0 $missing
}

# Installs what $missing names. Asks first only where somebody can answer.
install_missing() {
    [ -n "$missing" ] || return 0
    say "Missing from this machine:$missing"
    by_hand="apt-get install --no-install-recommends$missing"
    [ -z "${TRM_NO_INSTALL:-}" ] || die "not installing it (TRM_NO_INSTALL is set). By hand: $by_hand"
    have_command apt-get || die "there is no apt-get here: install what these Debian packages hold, then start again"
    if [ "$(id -u)" != 0 ] && ! have_command sudo; then
        die "that takes root, and there is no sudo here. As root: $by_hand"
    fi
    if [ -t 0 ]; then
        printf 'Install from Debian'\''s packages now? [Y/n] '
        read -r answer || answer=n
        case $answer in [nN]*) die "not installed. By hand: $by_hand" ;; esac
    fi
    log=$(mktemp)
    say "Installing from Debian's packages …"
    # A list of packages that is empty or old is the usual reason for a first failure.
    if apt_install >"$log" 2>&1 ||
        { as_administrator apt-get update -qq >>"$log" 2>&1 && apt_install >>"$log" 2>&1; }; then
        rm -f "$log"
        return 0
    fi
    tail -n 20 "$log" >&2
    rm -f "$log"
    die "apt-get could not install it. By hand: $by_hand"
}

# --- Where to build ------------------------------------------------------------------
# In build-* directories of the source tree, which git ignores, if the tree belongs to who
# builds. A tree that is read-only, somebody else's or configured in place is left as it is:
# then a copy of it, kept up to date, is built under the cache directory. Sets $source and
# $builds.

tree_will_do() { [ -O "${top:?}" ] && [ -w "$top" ] && [ ! -e "$top/config.status" ]; }

choose_place() {
    if [ -n "${TRM_BUILD_ROOT:-}" ]; then
        mkdir -p "$TRM_BUILD_ROOT"
        builds=$(cd "$TRM_BUILD_ROOT" && pwd)
    elif tree_will_do; then
        builds=$top
    else
        builds=${XDG_CACHE_HOME:-${HOME:?}/.cache}/trireme/$(printf '%s' "$top" | cksum | tr ' ' -)
        mkdir -p "$builds"
    fi
    source=$top
    tree_will_do || copy_tree
}

# The files of the tree, without what git, autogen.sh and a build in place leave there.
tree_files() {
    (cd "$top" && find . \
        \( -name .git -o -name 'build*' -o -name '_*' -o -name autom4te.cache -o -name .libs -o -name .deps \) -prune -o \
        \( -path './m4/*' -o -path './config*' -o -path ./Makefile -o -path ./Makefile.in -o -path ./aclocal.m4 \
        -o -path ./libtool -o -path ./stamp-h1 -o -path ./trireme.pc -o -name '*.o' -o -name '*.lo' -o -name '*.la' \
        -o -name '*.log' -o -name '*.trs' \) ! -path ./configure.ac -o \
        -type f \( ! -perm /100 -o -exec grep -qI '^#!' {} \; ! -exec grep -q 'enerated by libtool' {} \; \) -print) | sort
}

# File times are kept, so that make sees what has changed; what is gone goes.
copy_tree() {
    source=$builds/source
    say "Building a copy of the source tree in $builds."
    mkdir -p "$source/m4"
    tree_files >"$builds/files.new"
    if [ -f "$builds/files" ]; then
        comm -23 "$builds/files" "$builds/files.new" | (cd "$source" && xargs -r -d '\n' rm -f)
    fi
    tar -C "$top" -c -T "$builds/files.new" | tar -C "$source" -x --no-same-owner
    mv "$builds/files.new" "$builds/files"
}

# --- Building ----------------------------------------------------------------------------
cores() { nproc 2>/dev/null || echo 2; }

# The end of a log, and before it the lines of a long one that say what went wrong.
show_log() {
    lines=${TRM_LOG_LINES:-60}
    [ "$(wc -l <"$1")" -le "$lines" ] || grep -nE 'error:|Error [0-9]|undefined reference|ERROR: ' "$1" | head -n 20 || :
    tail -n "$lines" "$1"
}

# quietly WHAT COMMAND…: its output is seen only if it fails, the end of it.
quietly() {
    what=$1
    shift
    log=$(mktemp)
    if "$@" >"$log" 2>&1; then
        rm -f "$log"
        return 0
    fi
    say "$what failed:"
    show_log "$log"
    rm -f "$log"
    return 1
}

make_configure() {
    if [ -x "$source/configure" ] && [ -f "$source/Makefile.in" ]; then return 0; fi
    quietly "autogen.sh" "$source/autogen.sh"
}

# configure_in DIRECTORY OPTION…: once; again when the options have changed.
configure_in() {
    directory=$1
    shift
    mkdir -p "$directory"
    [ -f "$directory/Makefile" ] && [ "$(cat "$directory/configured-with" 2>/dev/null)" = "$*" ] && return 0
    (cd "$directory" && quietly "configure $*" "$source/configure" -q "$@") || return 1
    printf '%s\n' "$*" >"$directory/configured-with"
}

# Open MPI refuses root unless told twice; a person who is not root is not told.
allow_mpirun_as_root() {
    [ "$(id -u)" = 0 ] || return 0
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
}
