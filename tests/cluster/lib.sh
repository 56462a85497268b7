# What the scripts with a real mpirun share: sourced, not run.
#
#   pass NAME / fail NAME WHY       a line each; `finish` ends the script
#   run_job NAME CODE ARGUMENT…     trireme run …, must end with CODE (a pattern); its words are in
#                                   $work/err
#   refused NAME CODE PATTERN ARG…  the same, and one sentence that fits PATTERN, nothing left behind
#
# Every process that a script starts carries TRIREME_TEST_ID in its environment, so that none can
# be overlooked; scratch goes to $work/scratch, so that no file can.
set -u
builddir=${builddir:-.}
srcdir=${srcdir:-.}
case $builddir in /*) ;; *) builddir=$PWD/$builddir ;; esac
case $srcdir in /*) ;; *) srcdir=$PWD/$srcdir ;; esac
trireme=$builddir/trireme
mpirun=${MPIRUN:-mpirun}
command -v mpirun.openmpi >/dev/null 2>&1 && mpirun=${MPIRUN:-mpirun.openmpi}
command -v "$mpirun" >/dev/null 2>&1 || { echo "skipped: no mpirun"; exit 77; }
[ -x "$trireme" ] || { echo "skipped: $trireme is not built"; exit 77; }

work=$(mktemp -d) || exit 1
mkdir "$work/scratch"
TRIREME_TEST_ID=$$-$(basename "$work")
TRIREME_KERNEL_DIR=$builddir/examples/.libs
TMPDIR=$work/scratch
export TRIREME_TEST_ID TRIREME_KERNEL_DIR TMPDIR
[ "$(id -u)" != 0 ] || export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
# shellcheck source=tests/support/sanitizers.sh
. "$srcdir/tests/support/sanitizers.sh"
kernels=$builddir/tests/kernels/.libs
passed=0 failed=0 skipped=0
JOB_SECONDS=${JOB_SECONDS:-120} # a job that takes longer hangs

# The processes of this script that are still there, itself and its children's shells left out.
own_processes() {
    grep -lsazx "TRIREME_TEST_ID=$TRIREME_TEST_ID" /proc/[0-9]*/environ | while IFS=/ read -r _ _ pid _; do
        [ "$pid" != $$ ] || continue
        name=$(cat "/proc/$pid/comm" 2>/dev/null) || continue
        case $name in sh | bash | dash | grep | cat | timeout | sleep | *.sh) continue ;; esac
        echo "$pid $name"
    done
}

# Processes need a moment to go; those that do not are named, and ended.
no_process_left() {
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30; do
        left=$(own_processes)
        [ -n "$left" ] || return 0
        sleep 0.1
    done
    echo "$left" | while read -r pid _; do kill -9 "$pid" 2>/dev/null; done
    why="processes left: $(echo "$left" | tr '\n' ' ')"
    return 1
}

no_scratch_left() {
    left=$(find "$work/scratch" -maxdepth 1 -name 'trireme-*' 2>/dev/null)
    [ -z "$left" ] || { why="left in scratch: $left"; return 1; }
}

clean_up() {
    own_processes | while read -r pid _; do kill -9 "$pid" 2>/dev/null; done
    awk -v work="$work/" 'index($2, work) == 1 { print $2 }' /proc/mounts | while read -r at; do umount "$at"; done
    rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 1' INT TERM HUP

pass() {
    passed=$((passed + 1))
    echo "ok: $1"
}

fail() {
    failed=$((failed + 1))
    echo "FAILED: $1: $2"
    [ ! -s "$work/err" ] || sed 's/^/    /' "$work/err" | tail -20
}

skip() {
    skipped=$((skipped + 1))
    echo "skipped: $1: $2"
}

finish() {
    ! sanitizers_found || fail 'sanitizers' 'they have found something'
    echo "$(basename "$0" .sh): $passed passed, $failed failed, $skipped skipped"
    [ "$failed" -eq 0 ]
    exit
}

# needs_namespaces: hosts are made of them; without, nothing of the script is run.
needs_namespaces() {
    [ "$(id -u)" = 0 ] || { echo 'skipped: hosts are made of network namespaces, which needs root'; exit 77; }
    command -v ip >/dev/null 2>&1 || { echo 'skipped: there is no ip command (Debian: iproute2)'; exit 77; }
    ip netns add "trm-$$-probe" 2>/dev/null || { echo 'skipped: this machine makes no network namespaces'; exit 77; }
    ip netns delete "trm-$$-probe"
}

# run_job NAME CODE ARGUMENT…
run_job() {
    name=$1 code=$2
    shift 2
    timeout -k 60 "$JOB_SECONDS" "$trireme" run "$@" >"$work/stdout" 2>"$work/err"
    got=$?
    case $got in $code) ;; *) fail "$name" "exit status $got, not $code"; return 1 ;; esac
}

# check NAME: what the last job has left behind.
nothing_left() {
    if no_process_left && no_scratch_left; then return 0; fi
    fail "$1" "$why"
    return 1
}

# refused NAME CODE PATTERN ARGUMENT…: and there is no output that was not there before, unless a
# task has failed (CODE 1, or begun=1).
refused() {
    name=$1 code=$2 pattern=$3
    shift 3
    rm -rf "$work/out"
    run_job "$name" "$code" "$@" -o "$work/out" || return 1
    errors=$(grep -c 'error: ' "$work/err")
    [ "$errors" -eq 1 ] || { fail "$name" "$errors errors were said, not one"; return 1; }
    grep 'error: ' "$work/err" | grep -Eq "$pattern" || { fail "$name" "does not say: $pattern"; return 1; }
    nothing_left "$name" || return 1
    [ ! -e "$work/out/_SUCCESS" ] || { fail "$name" "there is a _SUCCESS"; return 1; }
    if [ "$code" != 1 ] && [ "${begun:-0}" = 0 ] && [ -e "$work/out" ]; then
        fail "$name" "the output directory was made"
        return 1
    fi
    pass "$name"
}

# The parts of an output directory, in order.
parts() {
    find "$1" -maxdepth 1 -name 'part-*' | LC_ALL=C sort | xargs -r cat
}

# ---- A job that runs: its process is $job, its output $work/out ------------------------------------
# field NAME: of its status.json
field() { sed -n "s/.*\"$1\": *\"\{0,1\}\([0-9a-z]*\)\"\{0,1\}.*/\1/p" "$work/out/.trireme/status.json" 2>/dev/null | head -1; }
# events NAME: how many there were; event_sum NAME KEY: the sum of KEY over them
event_record=$work/out/.trireme/events.jsonl
events() { cat "$event_record" 2>/dev/null | grep -c "\"event\":\"$1\""; }
event_sum() { sed -n "s/.*\"event\":\"$1\".*\"$2\":\([0-9]*\).*/\1/p" "$event_record" 2>/dev/null | awk '{n += $1} END {print n + 0}'; }
# Somebody leads who is not $old; he is $pid.
has_other_leader() { pid=$(field leader_pid) && [ -n "$pid" ] && [ "$pid" != "$old" ] && kill -0 "$pid" 2>/dev/null; }
# await WHAT COMMAND…: until it is so; not for ever, and not longer than the job.
await() {
    what=$1
    shift
    for _ in $(seq 600); do
        "$@" && return 0
        kill -0 "$job" 2>/dev/null || break
        sleep 0.1
    done
    why="never: $what"
    return 1
}
