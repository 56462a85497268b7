#!/bin/sh
# What `make install` lays down is all that a user needs: the header, the library with the
# names that the header declares and no others, the pkg-config file. Kernels and programs
# are compiled against it as the documents say, from an empty directory.
set -u
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
show() { make -s -f - show <<END
include Makefile
show:
	@echo \$($1)
END
}
libdir=$root$(show libdir)
includedir=$root$(show includedir)

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
cat >own_kernel.c <<'END'
#include <ctype.h>
#include <trireme.h>

static int map(trm_task *task, const trm_record *line)
{
    for (size_t i = 0, begin; i < line->len; i++) {
        for (begin = i; i < line->len && isalpha((unsigned char)line->data[i]); i++)
            continue;
        if (i > begin)
            trm_emit_u64(task, line->data + begin, i - begin, 1);
    }
    return 0;
}

TRM_EXPORT_JOB = {
    TRM_JOB_HEADER, .name = "own", .map = map, .fold = TRM_FOLD_SUM_U64, .value_type = TRM_U64,
};
END
cat >own_program.c <<'END'
#include <stdio.h>
#include <trireme.h>

int main(void) { return puts(trm_version()) < 0; }
END
strict="-Wall -Wextra -Wpedantic -Werror"
# shellcheck disable=SC2086
{
    ok "a kernel compiles as C99" $CC -std=c99 $strict -fPIC -shared $cflags own_kernel.c -o own_kernel.so
    ok "a kernel needs no library but the C library's" sh -c "! objdump -p own_kernel.so | grep NEEDED | grep -v 'libc\.so'"
    ok "a program compiles and links" $CC $strict $cflags own_program.c -o own_program $libs
    ok "a program says the version" [ "$(LD_LIBRARY_PATH=$libdir ./own_program)" = "$version" ]
    if command -v g++ >/dev/null 2>&1; then
        echo '#include <trireme.h>' >own.cc
        ok "the header is C++ as well" g++ -std=c++11 $strict $cflags -fsyntax-only own.cc
    fi
}

echo "$passed passed, $failed failed"
[ $failed = 0 ]
