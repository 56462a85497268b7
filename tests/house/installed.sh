#!/bin/sh
# What `make install` lays down is all that a user needs: the header, the library with the
# names that the header declares and no others, the pkg-config file. Kernels and programs
# are compiled and run as the documents say, from an empty directory.
set -u
[ "$(id -u)" != 0 ] || export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
unset TRIREME_KERNEL_DIR
unset MAKEFLAGS MFLAGS MAKELEVEL # of the make that runs this: what it prints is not asked for
top=$(cd "${srcdir:-.}" && pwd)
if grep -q '^#define TRM_SANITIZED' config.h; then
    echo "a build with a sanitizer is not for installing"
    exit 77
fi
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
passed=0 failed=0

ok() {
    what=$1
    shift
    if "$@" >"$work/out" 2>&1; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "not so: $what"
        cat "$work/out"
    fi
}

variable() { sed -n "s/^$1 = //p" Makefile; }
CC=$(variable CC)
root=$work/root
# The directories as configured, whatever the prefix is made of.
show() { make -s --no-print-directory -f - show <<END
include Makefile
show:
	@echo \$($1)
END
}
libdir=$root$(show libdir)
includedir=$root$(show includedir)
bindir=$root$(show bindir)

make -s install DESTDIR="$root" >"$work/install" 2>&1 || {
    echo "make install failed:"
    cat "$work/install"
    exit 1
}
export PKG_CONFIG_PATH="$libdir/pkgconfig" PKG_CONFIG_SYSROOT_DIR="$root"
export PKG_CONFIG_ALLOW_SYSTEM_CFLAGS=1 PKG_CONFIG_ALLOW_SYSTEM_LIBS=1
cflags=$(pkg-config --cflags trireme) || exit 1
libs=$(pkg-config --libs trireme) || exit 1
version=$(variable PACKAGE_VERSION)

ok "one header is installed: trireme.h" [ "$(find "$includedir" -type f -printf '%P ')" = "trireme.h " ]
ok "pkg-config knows the version" [ "$(pkg-config --modversion trireme)" = "$version" ]
ok "pkg-config knows where kernels go" [ -n "$(pkg-config --variable=kerneldir trireme)" ]
library=$(readlink -f "$libdir/libtrireme.so")
ok "the library's file carries its version" [ "${library##*/}" = libtrireme.so.0.0.0 ]
ok "the soname is libtrireme.so.0" sh -c "objdump -p '$library' | grep -q 'SONAME *libtrireme.so.0\$'"

# What is installed of the documents has no link that leads nowhere, but to the source.
links() (
    cd "$root$(show docdir)" || return 1
    grep -oHE '\]\([^)#:]+' ./*.md docs/*.md docs/examples/*.md | sed 's/:](/ /' | while read -r page link; do
        case $link in *.[ch] | *trireme.1) continue ;; esac
        [ -e "$(dirname "$page")/$link" ] || echo "$page: $link"
    done >"$work/nowhere"
    [ ! -s "$work/nowhere" ] || { cat "$work/nowhere"; return 1; }
)
ok "links in what is installed lead somewhere" links

# --- The names that it shows -----------------------------------------------------------
{
    sed -n 's/.*TRM_API.* \**\(trm_[a-z0-9_]*\)(.*/\1/p' "$top/jobs/trireme.h"
    sed -n 's/^extern TRM_API const trm_fold \(.*\);/\1/p' "$top/jobs/trireme.h" | tr -d ' ' | tr ',' '\n'
    echo trm_command_main # of the `trireme` program, in no header for users
} | sort >"$work/declared"
nm -D --defined-only "$library" | awk '{ print $3 }' | sort >"$work/shown"

ok "the library shows what the header declares and nothing else" diff "$work/declared" "$work/shown"

# --- Users' code ------------------------------------------------------------------------
cd "$work" || exit 1
PATH=$bindir:$PATH LD_LIBRARY_PATH=$libdir
TMPDIR=$work/tmp
export PATH LD_LIBRARY_PATH TMPDIR
mkdir tmp
cat >own_program.c <<'END'
#include <stdio.h>
#include <trireme.h>

int main(void) { return puts(trm_version()) < 0; }
END
echo '#include <trireme.h>' >own.cc
strict="-Wall -Wextra -Wpedantic -Werror"
# shellcheck disable=SC2086
{
    ok "a program compiles and links" $CC $strict $cflags own_program.c -o own_program $libs
    ok "a program says the version" [ "$(./own_program)" = "$version" ]
    command -v g++ >/dev/null 2>&1 &&
        ok "the header is C++ as well" g++ -std=c++11 $strict $cflags -fsyntax-only own.cc
}
ok "trireme says the version" sh -c "trireme version | grep -qF '$version'"
ok "trireme lists the kernels" sh -c "trireme jobs | grep -q wordcount"
ok "the manual knows every option" sh -c "
    trireme run --help | grep -o -- '--[a-z][a-z-]*' | sort -u | sed 's/--//' | while read -r option; do
        grep -q -- \"Fl Fl \$option\\b\" '$top/docs/trireme.1' || { echo \"\$option is missing\"; exit 1; }
    done"

# --- The documents, to the letter ----------------------------------------------------------
# A block behind a line "<!-- file: NAME -->" is that file, one behind "<!-- run -->" is run by
# sh -e, in the order of the page, in a directory in which data/ holds some text.
steps() {
    awk -v dir="$1" '
    /^<!-- file: .* -->$/ { out = dir "/" $3; next }
    /^<!-- run -->$/ { out = sprintf("%s/step-%02d", dir, ++steps); next }
    out && /^```/ { if (inside) { close(out); out = ""; inside = 0 } else inside = 1; next }
    inside { print > out }' "$2"
}

page() {
    dir=$work/$(basename "$1" .md)
    mkdir -p "$dir/data"
    cp "$top/LICENSE" "$top"/docs/*.md "$dir/data"
    steps "$dir" "$1"
    cd "$dir" || exit 1
    for kernel in *.c; do
        [ -e "$kernel" ] || continue
        # shellcheck disable=SC2086
        ok "$1: $kernel compiles as C99 without a warning" \
            $CC -std=c99 $strict -Wno-unused-parameter $cflags -fsyntax-only "$kernel"
    done
    for step in step-*; do
        [ -e "$step" ] || continue
        ok "$1: $(head -n 2 "$step" | tail -n 1)" sh -e "$step"
    done
    cd "$work" || exit 1
}
if command -v "${MPIRUN:-mpirun}" >/dev/null 2>&1; then
    page "$top/docs/kernels.md"
    page "$top/README.md"
    [ -z "$(find "$TMPDIR" -mindepth 1 -maxdepth 1 -name 'trireme-*')" ] ||
        ok "scratch is empty at the end" ls "$TMPDIR/"
else
    echo "no mpirun: the commands of the documents are not run"
fi

echo "$passed passed, $failed failed"
[ $failed = 0 ]
