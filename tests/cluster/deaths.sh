#!/bin/sh
# Processes of a job that die or stop in its middle, one after the other: a rank that does not lead,
# every executor, a supervisor; a leader that sleeps. The result is the undisturbed one. And what a
# rank costs that has nothing to do.
. "${srcdir:-.}/tests/cluster/lib.sh"
LC_ALL=C
export LC_ALL
gate=$work/gate
yes 'a b c' | head -40 >"$work/lines" # 20 tasks, of which half wait at the gate

launch() { # RANKS
    timeout -k 60 "$JOB_SECONDS" "$trireme" run -n "$1" --executors 1 --split-size 12 --partitions 3 -p gate="$gate" -p after=10 \
        "$kernels/kernel_gate.so" "$work/lines" -o "$work/out" >"$work/stdout" 2>"$work/err" &
    job=$!
}

begin() { # NAME RANKS
    name=$1
    rm -rf "$work/out" "$gate" "$gate.waiting"
    launch "$2"
    await 'all ranks are there, and a task is at the gate' is_at_the_gate "$2" || { fail "$name" "$why"; return 1; }
}
is_at_the_gate() { [ -e "$gate.waiting" ] && [ "$(events rank_ready)" -ge "$1" ]; }

# The processes of this test with this name, of one rank (or all: ''); the ranks themselves are
# called trireme, and their parents have no rank.
processes() { # NAME RANK
    own_processes | while read -r pid command; do
        [ "$command" = "$1" ] || continue
        tr '\0' '\n' <"/proc/$pid/environ" 2>/dev/null | grep -q "^OMPI_COMM_WORLD_RANK=$2" && echo "$pid"
    done
}

end() { # of the job, whose result is right
    : >"$gate"
    wait $job
    code=$?
    [ $code -eq 0 ] || { fail "$name" "exit status $code"; return 1; }
    [ "$(parts "$work/out" | sort | tr '\t\n' '= ')" = 'a=40 b=40 c=40 ' ] || { fail "$name" 'another result'; return 1; }
    nothing_left "$name" || return 1
    pass "$name"
}

# turns RANKS: how often they have gone to sleep by themselves; ticks RANKS: of user and system time.
turns() {
    for pid in $1; do cat "/proc/$pid/status"; done | awk '$1 == "voluntary_ctxt_switches:" { n += $2 } END { print n }'
}
ticks() {
    for pid in $1; do sed 's/.*) //' "/proc/$pid/stat"; done | awk '{ n += $12 + $13 } END { print n }'
}

# A turn of a rank's loop takes 60 to 90 us with its waking up, so that 250 in a second are 2 % of a core. What
# they really took is shown and not judged: it is another number on a machine that is busy.
if begin 'ranks that wait' 4; then
    ranks=$(processes trireme '')
    [ "$(echo "$ranks" | wc -l)" -eq 4 ] || fail "$name" "these are not four ranks: $ranks"
    sleep 1 # the first moments are not idle ones
    turns=$(turns "$ranks") ticks=$(ticks "$ranks") began=$(cut -d' ' -f1 /proc/uptime)
    sleep 5
    turns=$(($(turns "$ranks") - turns)) ticks=$(($(ticks "$ranks") - ticks)) ended=$(cut -d' ' -f1 /proc/uptime)
    each=$(awk -v n="$turns" -v s="$ended" -v b="$began" 'BEGIN { printf "%d", n / (s - b) / 4 }')
    echo "an idle rank wakes $each times a second and uses" \
        "$(awk -v n="$ticks" -v hz="$(getconf CLK_TCK)" -v s="$ended" -v b="$began" 'BEGIN { printf "%.1f", 100 * n / hz / (s - b) / 4 }') % of a core"
    [ "$each" -lt 250 ] && pass 'an idle rank sleeps' || fail 'an idle rank sleeps' "it wakes $each times a second"
    end
fi

begin 'every executor is killed' 3 && {
    # shellcheck disable=SC2046 # numbers, one a word
    for index in 0 1 2; do kill -9 $(processes trireme-x0 $index) 2>/dev/null; done
    end && { grep -q 'attempts_failed  *[1-9]' "$work/err" || fail "$name" 'no failed attempt is counted'; }
}
begin 'a supervisor is killed' 3 && {
    # shellcheck disable=SC2046 # numbers, one a word
    kill -9 $(processes trireme-crew 1) 2>/dev/null
    end && { grep -q 'supervisor of this rank' "$work/err" || fail "$name" 'it is not said'; }
}
# What the dead one has written of its run is of no use, and is removed while the job goes on.
half_run() { find "$work/scratch" -name "m0.e1.a$1.run" -size +0 | grep -q .; }
run_is_begun() { [ -e "$gate.waiting" ] && half_run "$1"; }
await_run() { await "attempt $1 writes its run" run_is_begun "$1"; }
name='an executor is killed in the middle of a run'
rm -rf "$work/out" "$gate" "$gate.waiting"
echo line >"$work/line"
timeout -k 60 "$JOB_SECONDS" "$trireme" run -n 2 --executors 1 --memory 64M --partitions 2 -p gate="$gate" -p keys=150000 \
    "$kernels/kernel_spill.so" "$work/line" -o "$work/out" >"$work/stdout" 2>"$work/err" &
job=$!
if ! await_run 0; then
    fail "$name" 'no run was begun'
else
    rm "$gate.waiting"
    # shellcheck disable=SC2046 # numbers, one a word
    kill -9 $(processes trireme-x0 '') 2>/dev/null
    if ! await_run 1; then
        fail "$name" 'there was no second attempt'
    elif half_run 0; then
        fail "$name" 'the half run is still there'
    else
        pass "$name"
    fi
fi
: >"$gate"
wait $job
code=$?
[ $code -eq 0 ] || fail "$name" "exit status $code"
nothing_left "$name"

# That is the machine's doing, and nobody's task has failed by it.
begin 'every supervisor is killed' 3 && {
    # shellcheck disable=SC2046 # numbers, one a word
    kill -9 $(processes trireme-crew '') 2>/dev/null
    wait $job
    code=$?
    if [ $code -ne 5 ]; then
        fail "$name" "exit status $code, not 5"
    elif ! grep -q 'error: .*no executor left\|error: .*supervisor' "$work/err"; then
        fail "$name" 'it is not said'
    else
        launch 3
        end
    fi
}
begin 'a rank that does not lead is killed' 3 && {
    # shellcheck disable=SC2046 # numbers, one a word
    kill -9 $(processes trireme 1) 2>/dev/null
    end && { grep -q 'rank 1 .*its tasks are given to others' "$work/err" || fail "$name" 'it is not said'; }
}
# Longer than anybody waits for a sign of life.
begin 'the first rank is stopped and goes on' 3 && {
    stopped=$(processes trireme 0)
    kill -STOP "$stopped"
    : >"$gate"
    sleep 12
    kill -CONT "$stopped"
    end
}
finish
