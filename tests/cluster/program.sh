#!/bin/sh
# A program of a user's own, which ends in trm_main: by itself, as ranks of an mpirun, as the only rank
# of a launcher that speaks PMI, from the PATH, with mistakes; and what its tasks say is kept.
. "${srcdir:-.}/tests/cluster/lib.sh"
LC_ALL=C
export LC_ALL
own=$builddir/tests/kernels/own_program
[ -x "$own" ] || { echo "skipped: $own is not built"; exit 77; }
yes 'the same line' | head -500 >"$work/in"
printf 'the same line\t500\n' >"$work/want"

# own_job NAME CODE COMMAND…: its output, if CODE is 0, is what is wanted.
own_job() {
    name=$1 code=$2
    shift 2
    rm -rf "$work/out"
    timeout -k 60 "$JOB_SECONDS" "$@" -o "$work/out" >"$work/stdout" 2>"$work/err"
    got=$?
    [ "$got" = "$code" ] || { fail "$name" "exit status $got, not $code"; return 1; }
    [ "$code" != 0 ] || parts "$work/out" | cmp -s - "$work/want" || { fail "$name" 'another result'; return 1; }
    nothing_left "$name" && pass "$name"
}

own_job 'by itself' 0 "$own" -n 3 --split-size 1K "$work/in"
grep -q 'lines_seen  *500$' "$work/err" || fail 'by itself' 'its own counter is not shown'
own_job 'ranks of an mpirun' 0 "$mpirun" --oversubscribe -n 2 "$own" --split-size 1K "$work/in"
own_job 'the only rank of a launcher with PMI' 0 env PMI_RANK=0 PMI_SIZE=1 "$own" "$work/in"
own_job 'the only rank of a launcher with PMIx' 0 env PMIX_RANK=0 "$own" "$work/in"
# A batch script's own environment does not make a rank of it.
own_job 'in a batch script' 0 env SLURM_PROCID=0 SLURM_JOB_ID=1 "$own" -n 2 "$work/in"
own_job 'from the PATH' 0 sh -c 'cd "$1" && PATH=$2:$PATH && shift 2 && exec own_program "$@"' sh "$work" \
    "$(dirname "$own")" -n 2 in
own_job 'another number of ranks than mpirun started' 2 "$mpirun" --oversubscribe -n 2 "$own" -n 3 "$work/in"
own_job 'input that is not there' 3 "$own" -n 2 "$work/nothing"
own_job 'a parameter that is none' 2 "$own" -n 2 -p nothing=1 "$work/in"
"$own" --help >"$work/stdout" 2>"$work/err" && grep -q 'own_program .*-o DIR' "$work/stdout" && grep -q 'fail' "$work/stdout" &&
    pass '--help' || fail '--help' 'does not show the program and its parameters'

own_job 'a task that fails' 1 "$own" -n 2 -p fail --max-attempts 2 "$work/in"
kept=$(cat "$work/out/.trireme/stderr"/* 2>/dev/null | grep -c '^said by task 0')
[ "$kept" -ge 1 ] && pass 'what a task said is kept' || fail 'what a task said is kept' "$(ls "$work/out/.trireme/stderr")"
grep -q 'said by task 0' "$work/err" && pass 'what a task said last is shown' || fail 'what a task said last is shown' 'it is not'
finish
