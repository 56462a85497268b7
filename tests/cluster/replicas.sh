#!/bin/sh
# --replicas 2: what a map task has made is kept on a second host, and a host can go, with its ranks, Open
# MPI's daemon and its scratch, without any finished map task being executed again; and with --replicas 1 it
# is. Hosts are network namespaces: needs root and `ip`.
. "${srcdir:-.}/tests/cluster/lib.sh"
LC_ALL=C
export LC_ALL
needs_namespaces

world=$work/world
hosts() {
    what=$1
    shift
    sh "$srcdir/tests/cluster/chaos_hosts.sh" "$what" $$ "$world" "$@"
}
mkdir "$world"
trap 'hosts remove; clean_up' EXIT
hosts make 2>"$work/err" || { echo "skipped: $(head -1 "$work/err")"; exit 77; }

mkdir "$work/gate"
gate=$work/gate/open
maps=60 before=30 # the first are done when the others wait at the gate
yes 'a line of some words' | head -$maps >"$work/gate/input"
printf 'a\t60\nline\t60\nof\t60\nsome\t60\nwords\t60\n' >"$work/want"

have_come() { [ "$(events rank_ready)" -ge 5 ]; }
is_waiting() { [ -e "$gate.waiting" ]; }
is_committed() { [ "$(events task)" -ge $before ]; }
is_copied() { [ "$(field copies_missing)" = 0 ] && [ "$(event_sum copied count)" -ge $before ]; }
# By a record that is younger than what happened last.
none_is_missing() {
    last=$(sed -n 's/.*"t":\([0-9]*\),"event":"\(rank_lost\|rank_ready\|launch\)".*/\1/p' "$event_record" | tail -1)
    [ "$(field copies_missing)" = 0 ] && [ "$(field written_ms)" -gt $((last + 100)) ] && [ "$(field term)" -ge "$1" ]
}
# In whichever launch: mpirun may end with the host, and be started again.
is_lost() { [ "$(events rank_lost)" -ge "$1" ] || [ "$(events launch)" -gt "$launches" ]; }

# A launch waits at the gate as soon as it has begun: that no twin runs there is --speculate off.
launch() {
    exec timeout --foreground -k 5 "$JOB_SECONDS" sh "$srcdir/tests/cluster/chaos_hosts.sh" run $$ "$world" "$trireme" run -n 5 \
        --executors 1 --split-size 21 --partitions 5 --speculate off -p begin="$gate.begin" -p gate="$gate" -p after=$before "$@" \
        "$kernels/kernel_gate.so" "$work/gate/input" -o "$work/out" >"$work/stdout" 2>"$work/err"
}

# start ARGUMENT…: until the first maps are done, some on every rank. Now and then Open MPI's daemons do not find each other.
start() {
    for _ in 1 2 3; do
        rm -rf "$work/out" "$gate" "$gate.waiting" "$gate.begin"
        rm -f "$world"/down*
        launch "$@" &
        job=$!
        old=
        await 'all ranks have come' have_come && : >"$gate.begin" &&
            await 'the job reaches its gate' is_waiting && await 'the first maps are done' is_committed &&
            await 'somebody leads' has_other_leader && leader=$pid && launches=$(events launch) && return 0
        kill $job 2>/dev/null
        wait $job
    done
    return 1
}

# lose_host N: all of its processes at once, and what they had in scratch; it does not answer any more.
lose_host() {
    : >"$world/down$1"
    for pid in $(ip netns pids "trm-$$-$1"); do kill -9 "$pid" 2>/dev/null; done
    rm -rf "$world/tmp$1"/trireme-*
}

# lose_ranks N: the same, but Open MPI's daemon and what has started it stay, so that mpirun goes on.
lose_ranks() {
    for pid in $(ip netns pids "trm-$$-$1"); do
        case $(cat "/proc/$pid/comm" 2>/dev/null) in *trireme*) kill -9 "$pid" 2>/dev/null ;; esac
    done
    rm -rf "$world/tmp$1"/trireme-*
}

# Of those that were committed before anything happened. What is done while too few ranks are left to commit it
# may have to be done again.
again() {
    sed -n 's/.*"event":"task".*"phase":"map","task":\([0-9]*\),.*/\1/p' "$event_record" | awk -v before=$before '$1 < before' |
        sort | uniq -d | wc -l
}

# ends NAME AGAIN: opens the gate. The result is the undisturbed one; maps were executed again (`some`), or not.
ends() {
    : >"$gate"
    wait $job
    got=$?
    [ $got -eq 0 ] || { fail "$1" "exit status $got"; return 1; }
    parts "$work/out" | sort | cmp -s - "$work/want" || { fail "$1" 'another result'; return 1; }
    twice=$(again) lost=$(event_sum lost count)
    if [ "$2" = some ]; then
        [ "$twice" -gt 0 ] && [ "$lost" -gt 0 ] || { fail "$1" "$twice maps were executed again, $lost lost: this shows nothing"; return 1; }
    else
        [ "$twice" -eq 0 ] && [ "$lost" -eq 0 ] || { fail "$1" "$twice maps were executed again, $lost lost"; return 1; }
    fi
    no_process_left || { fail "$1" "$why"; return 1; }
    left=$(for h in 1 2 3; do [ -e "$world/down$h" ] || find "$world/tmp$h" -maxdepth 1 -name 'trireme-*'; done)
    [ -z "$left" ] || { fail "$1" "left in scratch: $left"; return 1; }
    pass "$1 ($(events launch) masters, $(event_sum copied count) copies made, $(event_sum copies_used count) used, $twice maps again)"
}

broken() {
    fail "$1" "$why"
    kill $job 2>/dev/null
    wait $job
}

name='a host goes, two copies'
if start --replicas 2 && await 'all have a copy' is_copied && lose_host 2 && await 'the host is missed' is_lost 2; then
    ends "$name" none && { [ "$(event_sum copies_used count)" -gt 0 ] || fail "$name" 'no copy was used'; }
else
    broken "$name"
fi

name='all ranks of a host go, two copies, the same launch'
if start --replicas 2 && await 'all have a copy' is_copied && lose_ranks 2 && await 'the ranks are missed' is_lost 2; then
    ends "$name" none && { [ "$(event_sum copies_used count)" -gt 0 ] || fail "$name" 'no copy was used'; }
    [ "$(events launch)" = $launches ] || skip "$name" 'mpirun was started again'
else
    broken "$name"
fi

name='all ranks of a host go, one copy, the same launch'
if start --replicas 1 && lose_ranks 2 && await 'the ranks are missed' is_lost 2; then
    ends "$name" some
else
    broken "$name"
fi

name='a host goes, one copy'
if start --replicas 1 && lose_host 2 && await 'the host is missed' is_lost 2; then
    ends "$name" some && { [ "$(event_sum copied count)" = 0 ] || fail "$name" 'copies were made'; }
else
    broken "$name"
fi

name='one host after the other goes, what is left is copied again between'
if start --replicas 2 && await 'all have a copy' is_copied && lose_host 3 && await 'the host is missed' is_lost 1 &&
    await 'all have a copy again' none_is_missing 0 && lose_host 2 && await 'the second host is missed' is_lost 3; then
    ends "$name" none
else
    broken "$name"
fi

name='the leader goes, then a host: the next leader is told of the copies'
if start --replicas 2 && await 'all have a copy' is_copied; then
    old=$leader
    term=$(field term)
    kill -9 "$leader"
    if await 'another rank leads' has_other_leader && await 'it knows of a copy of each' none_is_missing $((term + 1)) &&
        lose_host 2 && await 'the host is missed' is_lost 3; then
        ends "$name" none
    else
        broken "$name"
    fi
else
    broken "$name"
fi

name='interrupted, a host goes, resumed with one copy of each: the copies that are there are read'
if start --replicas 2 && await 'all have a copy' is_copied; then
    kill -TERM "$(ps -o pid= --ppid $job | tr -d ' ')" # below timeout
    wait $job
    got=$?
    lose_host 2
    launch --replicas 1 &
    job=$!
    [ $got -eq 4 ] || fail "$name" "interrupted with status $got, not 4"
    ends "$name" none && { [ "$(event_sum copies_used count)" -gt 0 ] || fail "$name" 'no copy was used'; }
else
    broken "$name"
fi

name='scratch is full where copies would go'
mount -t tmpfs -o size=16m none "$world/tmp3" 2>/dev/null &&
    head -c 15900000 /dev/zero >"$world/tmp3/full"
if ! mountpoint -q "$world/tmp3"; then
    skip "$name" 'no tmpfs can be mounted'
elif start --replicas 2 && await 'all have a copy' is_copied; then
    copies=$(find "$world/tmp3" -name 'c*.run' | wc -l)
    [ "$copies" = 0 ] || fail "$name" "$copies copies where there was no room"
    rm "$world/tmp3/full"
    ends "$name" none
else
    broken "$name"
fi

name='there is no second host'
: >"$gate"
rm -rf "$work/out"
run_job "$name" 0 -n 2 --executors 1 --split-size 21 --partitions 2 --replicas 2 -p gate="$gate" "$kernels/kernel_gate.so" \
    "$work/gate/input" -o "$work/out" &&
    { said=$(grep -c 'there is no second host' "$work/err")
      [ "$said" = 1 ] || fail "$name" "it is said $said times"
      parts "$work/out" | sort | cmp -s - "$work/want" || fail "$name" 'another result'
      nothing_left "$name" && pass "$name"; }

finish
