#!/bin/sh
# Runs of maps that are done are removed from scratch by somebody: while their ranks live, before one dies and
# a neighbour takes over what is left, before the job is started again. Each map whose run is gone is executed
# once more, no other is, and the result is the undisturbed one.
. "${srcdir:-.}/tests/cluster/lib.sh"
LC_ALL=C
export LC_ALL

mkdir "$work/gate"
gate=$work/gate/open
maps=160 before=140 # more of them than a task may be given back
yes 'a line of some words' | head -$maps >"$work/gate/input"
printf 'a\t160\nline\t160\nof\t160\nsome\t160\nwords\t160\n' >"$work/want"

# What waits at the gate would be overdue, and run twice: --speculate off.
launch() { # RANKS
    exec timeout --foreground -k 5 "$JOB_SECONDS" "$trireme" run -n "$1" --executors 1 --split-size 21 --partitions 1 \
        --speculate off -p gate="$gate" -p after=$before "$kernels/kernel_gate.so" "$work/gate/input" -o "$work/out" \
        >"$work/stdout" 2>"$work/err"
}

is_waiting() { [ -e "$gate.waiting" ]; }
are_committed() { [ "$(events task)" -ge $before ]; }
is_lost() { [ "$(events rank_lost)" -gt 0 ]; }
is_launched_again() { [ "$(events launch)" -gt 1 ]; }

# Until the first maps are committed and the others wait.
start() { # NAME RANKS
    name=$1
    rm -rf "$work/out" "$gate" "$gate.waiting"
    launch "$2" &
    job=$!
    await 'the job reaches its gate' is_waiting && await 'the first maps are done' are_committed && return 0
    fail "$name" "$why"
    return 1
}

stores() { find "$work/scratch" -maxdepth 2 -type d -name runs | sort; }
pid_of() { # RANK
    own_processes | while read -r pid command; do
        [ "$command" = trireme ] || continue
        tr '\0' '\n' <"/proc/$pid/environ" 2>/dev/null | grep -qx "OMPI_COMM_WORLD_RANK=$1" && echo "$pid"
    done
}
# The store in the scratch directory that the process has locked.
store_of() { # PID
    for fd in "/proc/$1/fd"/*; do readlink "$fd"; done | sed -n 's|^\(.*/trireme-[^/]*\)/owner$|\1/runs|p' | head -1
}
runs() { # STORE…
    find "$@" -maxdepth 1 -name 'm*.run' | sort
}
half() { sed -n 'n;p'; }
# Removes the runs that are named.
remove() {
    cat >"$work/runs"
    sed 's/.*\/m\([0-9]*\)\.e.*/\1/' "$work/runs" | sort >"$work/gone"
    xargs rm <"$work/runs"
}

# ends: opens the gate. Those maps whose runs were removed are executed twice, the others once.
ends() {
    : >"$gate"
    wait $job
    got=$?
    [ $got -eq 0 ] || { fail "$name" "exit status $got"; return 1; }
    parts "$work/out" | sort | cmp -s - "$work/want" || { fail "$name" 'another result'; return 1; }
    [ -s "$work/gone" ] || { fail "$name" 'no run was removed: this shows nothing'; return 1; }
    sed -n 's/.*"event":"task".*"phase":"map","task":\([0-9]*\),.*/\1/p' "$event_record" | sort | uniq -c |
        awk '$1 == 2 { print $2 } $1 > 2 { print $2 ", " $1 " times" }' >"$work/twice"
    cmp -s "$work/gone" "$work/twice" ||
        { fail "$name" "gone only, or executed again only: $(comm -3 "$work/gone" "$work/twice" | tr '\n' ';')"; return 1; }
    nothing_left "$name" && pass "$name ($(wc -l <"$work/gone") maps again)"
}

# A reduce that missed one after the other would be given back too often.
start 'all are removed, the one rank lives' 1 && {
    # shellcheck disable=SC2046 # directories, without blanks
    runs $(stores) | remove
    ends
}
start 'all are removed, the ranks live' 3 && {
    # shellcheck disable=SC2046
    runs $(stores) | remove
    ends
}
start 'those of a rank are removed with their directory, and it lives' 3 && {
    store=$(store_of "$(pid_of 1)")
    runs "$store" | remove
    rm -r "$store"
    ends
}
start 'half of those of a rank are removed, then it dies' 3 && {
    pid=$(pid_of 1)
    runs "$(store_of "$pid")" | half | remove
    kill -9 "$pid"
    await 'the rank is missed' is_lost || fail "$name" "$why"
    ends
}
start 'those of a rank are removed with their directory, then it dies' 3 && {
    pid=$(pid_of 1)
    store=$(store_of "$pid")
    runs "$store" | remove
    rm -r "$store"
    kill -9 "$pid"
    await 'the rank is missed' is_lost || fail "$name" "$why"
    ends
}
start 'half of all are removed, then mpirun dies' 3 && {
    # shellcheck disable=SC2046
    runs $(stores) | half | remove
    launcher=$(ps -o pid= --ppid "$job" | tr -d ' ') # below timeout
    kill -9 "$(ps -o pid= --ppid "$launcher" | tr -d ' ' | head -1)"
    await 'it is started again' is_launched_again || fail "$name" "$why"
    ends
}
finish
