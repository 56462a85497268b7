#!/bin/sh
# The floors hold (scripts/check-includes), and the check would see it if they did not: each
# kind of breach is made in a copy of the sources and must be found there.
set -u
top=$(cd "${srcdir:-.}" && pwd)
"$top/scripts/check-includes" || exit 1

work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
passed=1 failed=0

copy_tree() {
    rm -rf "$work/tree"
    mkdir "$work/tree" && cp -r "$top/Makefile.am" "$top/runtime" "$top/jobs" "$top/scheduler" "$top/workers" \
        "$top/tool" "$top/examples" "$top/tests" "$work/tree" && chmod -R u+w "$work/tree" || exit 1
}

# breach WHAT FILE LINE: a copy of the tree with that line at the end of that file.
breach() {
    copy_tree
    mkdir -p "$(dirname "$work/tree/$2")"
    printf '%s\n' "$3" >>"$work/tree/$2"
    if "$top/scripts/check-includes" "$work/tree" >"$work/out" 2>&1 || ! grep -q -- "$1" "$work/out"; then
        echo "not found: $1 ($3 in $2)"
        cat "$work/out"
        failed=$((failed + 1))
    else
        passed=$((passed + 1))
    fi
}

breach 'includes upward' runtime/bytes.c '#include "jobs/wire.h"'
breach 'includes upward' jobs/wire.h '#include "workers/key.h"'
breach 'includes across' workers/key.c '#include "scheduler/master.h"'
breach 'includes across' scheduler/master.h '#include "workers/crew.h"'
breach 'jobs/ includes tests/' jobs/wire.c '#include "tests/support/fs_mem.h"'
breach 'include circle' runtime/status.h '#include "runtime/bytes.h"
#include "runtime/diag.h"
#include "runtime/fs.h"'
breach 'no file of the tree' jobs/wire.c '#include "jobs/nowhere.h"'
breach 'nothing of the inside' examples/breach.c '#include "runtime/fs.h"'
breach 'the name of 2 files' jobs/bytes.h ''
breach 'MPI is for' workers/key.c '#include <mpi.h>'
breach 'hwloc is for' workers/key.c '#  include <hwloc.h> /* one look */'
breach 'fsync and rename is for' workers/key.c 'int f(int d) { return fsync (d); }'
breach 'fsync and rename is for' jobs/plan.c 'int f(void) { return rename("/* a", "b"); }'
breach 'the clock is for' scheduler/master.h 'static long f(void) { return time(0); }'
breach 'left for later' workers/key.c '/* TO''DO: later */'
breach 'no Makefile.inc names it' workers/unnamed.h ''

# What only looks like a breach is none.
copy_tree
cat >>"$work/tree/workers/key.c" <<'END'
/* #include <mpi.h>, fsync(d), */ // rename(a, b), MPI_Send()
static const char *text = "MPI_Send(\"time(0)\")"; /*
#include "scheduler/master.h" */
END
if "$top/scripts/check-includes" "$work/tree" >"$work/out" 2>&1; then
    passed=$((passed + 1))
else
    echo "found, and it is none:"
    cat "$work/out"
    failed=$((failed + 1))
fi
echo "$passed passed, $failed failed"
[ $failed = 0 ]
