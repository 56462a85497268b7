#!/bin/sh
# Processes of a job that die or stop in its middle, one after the other: a rank that does not lead,
# every executor, a supervisor; a leader that sleeps. The result is the undisturbed one. And what a
# rank costs that has nothing to do.
. "${srcdir:-.}/tests/cluster/lib.sh"
LC_ALL=C
export LC_ALL
gate=$work/gate
yes 'a b c' | head -40 >"$work/lines" # 20 tasks, of which half wait at the gate

begin() { # NAME RANKS
    name=$1
    rm -rf "$work/out" "$gate" "$gate.waiting"
    timeout -k 5 "$JOB_SECONDS" "$trireme" run -n "$2" --executors 1 --split-size 12 --partitions 3 -p gate="$gate" -p after=10 \
        "$kernels/kernel_gate.so" "$work/lines" -o "$work/out" >"$work/stdout" 2>"$work/err" &
    job=$!
    for _ in $(seq 300); do
        [ ! -e "$gate.waiting" ] || return 0
        sleep 0.1
    done
    fail "$name" 'the job never got to the gate'
    return 1
}

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

# Ticks of user and system time.
ticks() {
    for pid in $1; do sed 's/.*) //' "/proc/$pid/stat"; done | awk '{ n += $12 + $13 } END { print n }'
}

if begin 'ranks that wait' 4; then
    ranks=$(processes trireme '')
    [ "$(echo "$ranks" | wc -l)" -eq 4 ] || fail "$name" "these are not four ranks: $ranks"
    # The first moments are not idle ones.
    sleep 1
    before=$(ticks "$ranks") began=$(cut -d' ' -f1 /proc/uptime)
    sleep 5
    after=$(ticks "$ranks") ended=$(cut -d' ' -f1 /proc/uptime)
    percent=$(awk -v ticks=$((after - before)) -v hz="$(getconf CLK_TCK)" -v from="$began" -v to="$ended" \
        'BEGIN { printf "%.2f", 100 * ticks / hz / (to - from) / 4 }')
    echo "an idle rank uses $percent % of a core"
    if grep -q '^TRM_CFLAGS = .*-fsanitize' "$builddir/Makefile"; then
        skip 'an idle rank' 'a sanitizer is slow'
    elif awk -v percent="$percent" 'BEGIN { exit !(percent < 2) }'; then
        pass 'an idle rank uses under 2 % of a core'
    else
        fail 'an idle rank uses under 2 % of a core' "it uses $percent %"
    fi
    end
fi

begin 'every executor is killed' 3 && {
    # shellcheck disable=SC2046 # numbers, one a word
    for index in 0 1 2; do kill -9 $(processes trireme-x0 $index); done
    end && { grep -q 'attempts_failed  *3$' "$work/err" || fail "$name" 'three failed attempts are not counted'; }
}
begin 'a supervisor is killed' 3 && {
    # shellcheck disable=SC2046 # numbers, one a word
    kill -9 $(processes trireme-crew 1)
    end && { grep -q 'supervisor of this rank' "$work/err" || fail "$name" 'it is not said'; }
}
begin 'a rank that does not lead is killed' 3 && {
    # shellcheck disable=SC2046 # numbers, one a word
    kill -9 $(processes trireme 1)
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
