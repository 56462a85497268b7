#!/bin/sh
# transport_stress under a real mpirun: 1, 2 and 4 ranks, then 4 of which one dies.
# TRM_TEST_SEED replays a run.
set -u
here=${builddir:-.}
mpirun=${MPIRUN:-mpirun}
command -v "$mpirun" >/dev/null 2>&1 || { echo "skipped: no mpirun"; exit 77; }
seed=${TRM_TEST_SEED:-1}
[ "$(id -u)" != 0 ] || export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_pml=ob1 OMPI_MCA_btl=self,vader,tcp

work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
out=$work/out
srcdir=${srcdir:-.}
# shellcheck source=tests/support/sanitizers.sh
. "$srcdir/tests/support/sanitizers.sh"

# run RANKS SURVIVORS ARGUMENT…: that many ranks must say that they are through.
run() {
    ranks=$1 survivors=$2
    shift 2
    timeout 120 "$mpirun" --oversubscribe -n "$ranks" "$here/tests/cluster/transport_stress" "$@" >"$out" 2>&1
    through=$(grep -c '^rank .* messages to each of' "$out")
    [ "$through" -eq "$survivors" ] && return 0
    echo "$through of $survivors ranks came through ($ranks ranks, transport_stress $*):"
    cat "$out"
    exit 1
}

run 1 1 "$seed" 500
run 2 2 "$seed" 400
run 4 4 "$seed" 150
# Loopback is all that a machine without a network has.
OMPI_MCA_btl=self,tcp OMPI_MCA_btl_tcp_if_include=lo run 3 3 "$seed" 100
OMPI_MCA_orte_enable_recovery=1 run 4 3 "$seed" 150 2
! sanitizers_found || exit 1
echo "transport: 5 runs passed (TRM_TEST_SEED=$seed)"
