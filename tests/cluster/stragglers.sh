#!/bin/sh
# Tasks that hang, or are slow, on one rank: others do them, the result is the undisturbed one, and the job
# does not wait. Nothing is asserted of times: an executor that is stopped never goes on by itself.
. "${srcdir:-.}/tests/cluster/lib.sh"
LC_ALL=C
export LC_ALL
gate=$work/gate
yes 'a b c' | head -40 >"$work/lines" # 20 tasks, of which half wait at the gate

# start NAME RANKS OPTION…; begin: until there are tasks at the gate
start() {
    name=$1 ranks=$2
    shift 2
    rm -rf "$work/out" "$gate" "$gate.waiting"
    timeout -k 5 "$JOB_SECONDS" "$trireme" run -n "$ranks" --split-size 12 --partitions 6 -p gate="$gate" -p after=10 \
        "$@" "$kernels/kernel_gate.so" "$work/lines" -o "$work/out" >"$work/stdout" 2>"$work/err" &
    job=$!
}
begin() {
    start "$@"
    await 'all ranks are there, and a task is at the gate' is_at_the_gate || { fail "$name" "$why"; return 1; }
}
is_at_the_gate() { [ -e "$gate.waiting" ] && [ "$(events rank_ready)" -ge "$ranks" ]; }

executors() { # of a rank
    own_processes | while read -r pid command; do
        case $command in trireme-x*) tr '\0' '\n' <"/proc/$pid/environ" 2>/dev/null | grep -q "^OMPI_COMM_WORLD_RANK=$1\$" && echo "$pid" ;; esac
    done
}

end() { # of the job, whose result is right
    wait $job
    code=$?
    [ $code -eq 0 ] || { fail "$name" "exit status $code"; return 1; }
    [ "$(parts "$work/out" | sort | tr '\t\n' '= ')" = 'a=40 b=40 c=40 ' ] || { fail "$name" 'another result'; return 1; }
    nothing_left "$name" || return 1
    pass "$name"
}

for rank in 0 1; do # the leader's own, and another's
    begin "the executors of rank $rank are stopped" 3 --executors 2 && {
        # shellcheck disable=SC2046 # numbers, one a word
        kill -STOP $(executors $rank)
        : >"$gate"
        end && { [ "$(events speculated)" -gt 0 ] || fail "$name" 'nothing was run a second time'; }
        # A task is in the output once, whoever has done it: counted by the log, not by the output.
        grep -q 'map_records_in  *40$' "$work/err" || fail "$name" 'a task counts twice'
    }
done
begin 'one of the executors of the only rank is stopped' 1 --executors 3 && {
    # shellcheck disable=SC2046 # numbers, one a word
    kill -STOP $(executors 0 | head -1)
    : >"$gate"
    end && { [ "$(events speculated)" -gt 0 ] || fail "$name" 'nothing was run a second time'; }
}

# It has not begun anything when it is stopped, and is given orders all the same, which nobody can take back. (If
# the machine is so slow that it has begun one, that is the case above.)
wait_for_orders() { [ "$(executors 0 | while read -r pid; do cut -d ' ' -f 3 "/proc/$pid/stat"; done | grep -c S)" = 3 ]; }
start 'one of the executors of the only rank is stopped before its first task' 1 --executors 3
if await 'the executors wait for orders' wait_for_orders; then
    # shellcheck disable=SC2046 # numbers, one a word
    kill -STOP $(executors 0 | head -1)
    : >"$gate"
    end
else
    fail "$name" "$why"
fi

# Without it the job waits, although its leader has had the time in which it would have taken a twin. What waits
# behind the task in an executor waits with it.
others_are_done() { grep -q '"map":{"total":20,"done":1[1-9],' "$work/out/.trireme/status.json"; }
leader_is_at() { [ "$(field written_ms)" -ge "$1" ]; }
begin 'it is not wanted' 2 --executors 1 --speculate off && {
    stopped=$(executors 1)
    kill -STOP $stopped
    : >"$gate"
    await 'what others can do is done' others_are_done &&
        await 'the leader goes on for three seconds' leader_is_at $(($(field written_ms) + 3000)) || fail "$name" "$why"
    [ "$(events speculated)" -eq 0 ] || fail "$name" 'a task was run a second time'
    kill -CONT $stopped
    end
}

# What only waits behind a task that takes long is given back, and done by whoever is idle: all but that task,
# which nobody else may try.
all_but_one() {
    sed -n 's/.*"map":{"total":\([0-9]*\),"done":\([0-9]*\),"running":1}.*/\1 \2/p' "$work/out/.trireme/status.json" 2>"$work/none" |
        { read -r total ended && [ "$ended" -eq $((total - 1)) ]; }
}
behind_a_long_task() {
    name='behind a long task'
    rm -rf "$work/out" "$gate"
    { echo 'wait here'; yes 'a b c' | head -19; } >"$work/lines"
    timeout -k 5 "$JOB_SECONDS" "$trireme" run -n 2 --executors 1 --split-size 6 --speculate off -p gate="$gate" \
        "$kernels/kernel_poison.so" "$work/lines" -o "$work/out" >"$work/stdout" 2>"$work/err" &
    job=$!
    await 'all but the long task is done' all_but_one || fail "$name" "$why"
    : >"$gate"
    wait $job || fail "$name" "exit status $?"
    [ "$(parts "$work/out" | sort | tr '\t\n' '= ')" = 'a=19 b=19 c=19 here=1 wait=1 ' ] || fail "$name" 'another result'
    nothing_left "$name" && pass "$name"
}
behind_a_long_task

finish
