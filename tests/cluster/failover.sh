#!/bin/sh
# Ranks die in the middle of a job, the leader most of all, one after another, and the job goes on in
# the same mpirun: the result is the one of an undisturbed run, and nothing that was committed is
# run again.
. "${srcdir:-.}/tests/cluster/lib.sh"
LC_ALL=C
export LC_ALL
mkdir "$work/gate"
gate=$work/gate/open
yes 'a line of some words' | head -60 >"$work/gate/input"

is_waiting() { [ -e "$gate.waiting" ]; }
# The log has let go of the ranks that died: else a majority might die with the next.
dead_are_no_voters() {
    tr '{' '\n' <"$work/out/.trireme/status.json" | grep '"voter": *true' | sed 's/.*"pid": *\([0-9]*\).*/\1/' |
        while read -r p; do kill -0 "$p" 2>/dev/null || echo "$p"; done | grep -q . && return 1
    return 0
}
# start NAME ARGUMENT…: a job that waits at its gate, with its leader in $leader
start() {
    rm -rf "$work/out" "$gate" "$gate.waiting"
    "$trireme" run --executors 1 --split-size 21 --partitions 3 --election-timeout 300ms -p gate="$gate" -p after=30 "$@" \
        "$kernels/kernel_gate.so" "$work/gate/input" -o "$work/out" >"$work/stdout" 2>"$work/err" &
    job=$!
    old=
    await 'the job reaches its gate' is_waiting && await 'somebody leads' has_other_leader && leader=$pid
}

# finish_job NAME: opens the gate; everything must be as if nothing had happened.
finish_job() {
    : >"$gate"
    wait $job
    got=$?
    [ $got -eq 0 ] || { fail "$1" "exit status $got"; return 1; }
    total=$(parts "$work/out" | awk '{n += $2} END {print n}')
    [ "$total" = 300 ] || { fail "$1" "$total words, not 300"; return 1; }
    twice=$(sed -n 's/.*"event":"task".*"phase":"\([a-z]*\)","task":\([0-9]*\),.*/\1 \2/p' \
        "$event_record" | sort | uniq -d | wc -l)
    [ "$twice" -eq 0 ] || echo "    $twice tasks were prepared twice"
    nothing_left "$1" || return 1
    pass "$1"
}

# lose NAME: kills the leader, waits for the next.
lose_leader() {
    old=$leader
    kill -9 "$leader"
    await 'another rank leads' has_other_leader && leader=$pid && await 'the dead vote no more' dead_are_no_voters
}

for ranks in 3 5; do
    name="$ranks ranks, the leader dies"
    if start -n $ranks && lose_leader; then finish_job "$name"; else fail "$name" "$why"; kill $job; wait $job; fi
done

name='5 ranks, one leader after another until two ranks are left'
if start -n 5 && lose_leader && lose_leader && lose_leader; then finish_job "$name"; else fail "$name" "$why"; kill $job; wait $job; fi

name='4 ranks, a rank that does not lead dies'
if start -n 4; then
    victim=$(own_processes | awk -v leader="$leader" '$2 ~ /trireme/ && $1 != leader {print $1}' | while read -r p; do
        case $(tr '\0' ' ' <"/proc/$p/cmdline" 2>/dev/null) in *mpirun*) continue ;; esac
        [ "$(awk '{print $4}' "/proc/$p/stat" 2>/dev/null)" = "$(awk '{print $4}' "/proc/$leader/stat")" ] && echo "$p"
    done | head -1)
    kill -9 "$victim"
    finish_job "$name"
else
    fail "$name" "$why"
fi

name='the leader sleeps longer than an election, and wakes'
if start -n 3; then
    old=$leader
    kill -STOP "$leader"
    if await 'another rank leads' has_other_leader; then
        kill -CONT "$old"
        finish_job "$name"
    else
        fail "$name" "$why"
        kill -CONT "$old"
        kill $job
        wait $job
    fi
else
    fail "$name" "$why"
fi

# ranks_of_job: the processes that speak MPI: what stands beside the leader.
ranks_of_job() {
    parent=$(awk '{print $4}' "/proc/$leader/stat") &&
        own_processes | awk '$2 ~ /trireme/ {print $1}' | while read -r p; do
            [ "$(awk '{print $4}' "/proc/$p/stat" 2>/dev/null)" = "$parent" ] && echo "$p"
        done
}
is_gone() { ! kill -0 "$old" 2>/dev/null; }

# MPI_Finalize of one rank waits for all others: who leaves alone must not call it.
seen=$work/finalize_seen
shim=$builddir/tests/support/.libs/finalize_seen.so
mkdir "$seen"
start_seen() { # a sanitizer wants to be preloaded first
    [ "$sanitized" = 0 ] || { start "$@"; return; }
    LD_PRELOAD=$shim TRM_FINALIZE_SEEN=$seen
    export LD_PRELOAD TRM_FINALIZE_SEEN
    start "$@"
    started=$?
    unset LD_PRELOAD TRM_FINALIZE_SEEN
    return $started
}

# An election that nobody has asked for is one that a busy machine may bring: not within ten seconds.
name='the leader alone is told to go: it hands the lead over'
if start_seen -n 3 --election-timeout 10s; then
    old=$leader
    term=$(field term)
    kill -TERM "$leader"
    if await 'another rank leads' has_other_leader && await 'the old leader has gone' is_gone; then
        [ "$(field term)" = $((term + 1)) ] || fail "$name: one election" "term $(field term) after $term"
        [ ! -e "$seen/$old" ] || fail "$name: without MPI_Finalize" 'it has called it'
        finish_job "$name"
        [ "$sanitized" = 1 ] || [ "$(ls "$seen" | wc -l)" -eq 2 ] ||
            fail "$name: the others with MPI_Finalize" "$(ls "$seen" | wc -l) of 2 have called it"
    else
        fail "$name" "$why"
        kill $job
        wait $job
    fi
else
    fail "$name" "$why"
fi

# resumes NAME: it was interrupted, and the same command goes on with it.
resumes() {
    wait $job
    got=$?
    [ $got -eq 4 ] || { fail "$1" "exit status $got, not 4"; return 1; }
    grep -q '"state": *"interrupted"' "$work/out/.trireme/status.json" || { fail "$1" 'status.json does not say so'; return 1; }
    "$trireme" run -n 3 --executors 1 --split-size 21 --partitions 3 -p gate="$gate" -p after=30 \
        "$kernels/kernel_gate.so" "$work/gate/input" -o "$work/out" >"$work/stdout" 2>"$work/err" &
    job=$!
    finish_job "$1"
}

name='every rank is told to go: the job is interrupted'
if start -n 3; then
    for p in $(ranks_of_job); do kill -TERM "$p"; done
    resumes "$name"
else
    fail "$name" "$why"
fi

# The leader gives the others half a second to say that they leave, too: it looks when the other has been told,
# however busy the machine is.
is_told() {
    pending=$(sed -n 's/^ShdPnd:[[:space:]]*//p' "/proc/$1/status") && [ $((0x${pending:-0} >> 14 & 1)) -eq 0 ] # SIGTERM
}
name='the leader and a majority with it are told to go: the job is interrupted'
if start -n 3 --election-timeout 10s; then
    second=$(ranks_of_job | grep -v "^$leader\$" | head -1)
    kill -STOP "$leader"
    kill -TERM "$second" "$leader"
    await 'the other rank is told' is_told "$second" || fail "$name" "$why"
    kill -CONT "$leader"
    resumes "$name"
else
    fail "$name" "$why"
fi

name='too few logs are left to go on: refused, until a person says so'
again() {
    "$trireme" run -n 3 --executors 1 --split-size 21 --partitions 3 -p gate="$gate" -p after=30 "$@" \
        "$kernels/kernel_gate.so" "$work/gate/input" -o "$work/out" >"$work/stdout" 2>"$work/err" &
    job=$!
}
if start -n 3; then
    for p in $(ranks_of_job); do kill -TERM "$p"; done
    wait $job
    rm -rf "$work/out/.trireme/log/e1.r1" "$work/out/.trireme/log/e1.r2"
    again
    wait $job
    got=$?
    if [ $got -ne 3 ]; then
        fail "$name" "exit status $got, not 3"
    elif ! grep -q 'error: .*a majority is needed.*--unsafe-recover' "$work/err"; then
        fail "$name" 'it is not said why'
    else
        again --unsafe-recover
        finish_job "$name"
    fi
else
    fail "$name" "$why"
fi

# The log of the rank that leads, alone, is on a disk that is full: another leads on.
name='there is no room for the log of the leader: another takes the lead'
log=$work/out/.trireme/log/e1.r0
rm -rf "$work/out"
for _ in $(seq 2000); do seq 1 40; done >"$work/numbers"
timeout -k 5 "$JOB_SECONDS" "$trireme" run -n 3 --split-size 16 --partitions 3 wordcount "$work/numbers" -o "$work/out" >"$work/stdout" 2>"$work/err" &
job=$!
old=
if ! await 'somebody leads' has_other_leader; then
    fail "$name" "$why"
elif mount -t tmpfs -o size=64k trireme-test "$log" 2>/dev/null; then
    wait $job
    got=$?
    umount "$log"
    if [ $got -ne 0 ]; then
        fail "$name" "exit status $got"
    elif ! grep -q 'no room here for the log of the job: rank [12] is to lead' "$work/err"; then
        fail "$name" 'the lead was not handed over'
    elif [ "$(parts "$work/out" | awk '{n += $2} END {print n}')" != 80000 ]; then
        fail "$name" 'the result is another'
    else
        nothing_left "$name" && pass "$name"
    fi
else
    wait $job
    skip "$name" 'no file system can be mounted here'
fi

finish
