#!/bin/sh
# Inputs as people really have them: names, line ends, empty files, files that change while the job
# runs; outputs and directories that are not what one expects; counters against other tools.
. "${srcdir:-.}/tests/cluster/lib.sh"
LC_ALL=C
export LC_ALL
in=$work/in
mkdir "$in"

# words FILE…: what wordcount makes of them, by other tools.
words() {
    awk 1 "$@" | tr -cs '[:alnum:]' '\n' | grep . | sort | uniq -c | awk '{print $2 "\t" $1}'
}

# equal NAME FILE: the output is FILE.
equal() {
    parts "$work/out" | sort >"$work/got"
    cmp -s "$work/got" "$2" || { fail "$1" 'another result'; return 1; }
    nothing_left "$1" && pass "$1"
}

# Names with everything that a name may hold, lines with every end, empty files among them.
odd=$(printf 'new\nline')
bytes=$(printf '\377\376')
printf 'one two\r\nthree one' >"$in/crlf without an end"
printf 'a line\n' >"$in/$odd"
printf 'these are bytes\n' >"$in/$bytes"
printf 'dashed\n' >"$in/-dash"
printf '\n\n\n' >"$in/newlines"
: >"$in/empty"
: >"$in/zzz"
words "$in"/* >"$work/want"
run_job 'odd names in a directory' 0 -n 2 --split-size 5 wordcount "$in" -o "$work/out" && equal 'odd names in a directory' "$work/want"
rm -rf "$work/out"
name='from another directory, relative'
(cd "$in" && timeout "$JOB_SECONDS" "$trireme" run -q -n 2 -o ../out wordcount -- -dash "$odd" "$bytes" empty) 2>"$work/err"
words "$in/-dash" "$in/$odd" "$in/$bytes" >"$work/want"
equal "$name" "$work/want"
printf -- '-dash\r\n\ncrlf without an end\nempty' >"$work/list"
rm -rf "$work/out"
(cd "$in" && env -u TMPDIR timeout "$JOB_SECONDS" "$trireme" run -q -n 2 -o ../out wordcount @../list --scratch "$work/scratch") 2>"$work/err"
words "$in/-dash" "$in/crlf without an end" >"$work/want"
equal 'a list with every line end' "$work/want"

# Thousands of small files; one key in all of them; more parts than keys.
mkdir "$work/many"
awk -v dir="$work/many/" 'BEGIN { for (i = 0; i < 3000; i++) { f = dir "f" i; print "k" i " hot" >f; close(f) } }'
words "$work"/many/* >"$work/want"
rm -rf "$work/out"
run_job 'thousands of files' 0 -n 2 --partitions 100 wordcount "$work/many" -o "$work/out" &&
    equal 'thousands of files' "$work/want"

# counter NAME WANT: of the last job, as its manifest has it.
counter() {
    got=$(tr '{},' '\n\n\n' <"$work/out/_SUCCESS" | sed -n "s/^\"$1\":\([0-9]*\)$/\1/p")
    [ "$got" = "$2" ] || { fail "counter $1" "is '$got', not $2"; return 1; }
    pass "counter $1"
}
counter map_records_in 3000
counter map_bytes_in "$(cat "$work"/many/* | wc -c)"
counter map_records_out 6000
counter reduce_keys_in 3001
counter output_records "$(wc -l <"$work/want")"
counter output_bytes "$(wc -c <"$work/want")"
sum=$(tr '{},' '\n\n\n' <"$work/out/_SUCCESS" | sed -n 's/^"bytes":\([0-9]*\)$/\1/p' | awk 'NR > 1 { n += $1 } END { print n }')
[ "$sum" = "$(wc -c <"$work/want")" ] && pass 'the manifest adds up' || fail 'the manifest adds up' "to $sum"

# Less memory than a key has values, and values of many megabytes.
yes good | head -1000000 >"$work/hot"
rm -rf "$work/out"
run_job 'a key with more values than memory' 0 -n 2 --executors 1 --memory 16M -p how=good "$kernels/kernel_bad.so" "$work/hot" -o "$work/out" && {
    printf 'good\t1000000\n' >"$work/want"
    equal 'a key with more values than memory' "$work/want"
}
mkdir "$work/big"
for i in 1 2 3 4 5 6; do { printf x; head -c 6000000 /dev/urandom; } >"$work/big/f$i"; done
rm -rf "$work/out"
run_job 'large values' 0 -n 2 --executors 1 --memory 64M "$kernels/kernel_whole.so" "$work/big" -o "$work/out" && {
    parts "$work/out" | head -c 36000006 >"$work/got"
    whole=1
    for i in 1 2 3 4 5 6; do # they come in no particular order
        one=$(head -c $((6000001 * i)) "$work/got" | tail -c 6000001 | cksum)
        for j in 1 2 3 4 5 6; do cksum <"$work/big/f$j"; done | grep -qx "$one" || whole=0
    done
    [ "$(parts "$work/out" | tail -c 3)" = x6 ] && [ $whole = 1 ] && nothing_left 'large values' && pass 'large values' ||
        fail 'large values' 'they are not what they were'
}
refused 'a value that memory does not hold' 1 'big/f[1-6].*--memory' -n 2 --executors 1 --memory 32M --max-attempts 1 \
    "$kernels/kernel_whole.so" "$work/big"
refused 'a file over the limit' 1 'big/f[1-6].*--record-max' -n 2 --record-max 5M --max-attempts 1 "$kernels/kernel_whole.so" "$work/big"

# Files that change between the plan and the map: kernel_gate waits in every task but the first.
gate=$work/gate
began() { # ARGUMENT…: a job that waits at the gate
    rm -rf "$work/out" "$gate" "$gate.waiting"
    yes 'a b c' | head -40 >"$work/lines"
    timeout -k 60 "$JOB_SECONDS" "$trireme" run -n 2 --executors 1 --split-size 12 -p gate="$gate" -p after=1 "$@" \
        "$kernels/kernel_gate.so" "$work/lines" -o "$work/out" >"$work/stdout" 2>"$work/err" &
    job=$!
    await 'the job gets to the gate' test -e "$gate.waiting" || fail "$name" "$why"
}
ended() { # CODE
    [ "$1" = 4 ] || : >"$gate" # one that is interrupted ends in front of it
    wait $job
    got=$?
    [ "$got" = "$1" ] || { fail "$name" "exit status $got, not $1"; return 1; }
    if [ "$1" = 4 ]; then # what is finished is kept for the launch that goes on
        no_process_left || { fail "$name" "$why"; return 1; }
    else
        nothing_left "$name"
    fi
}
name='an input that vanishes'
began && mv "$work/lines" "$work/gone" && ended 3 && {
    grep 'error: ' "$work/err" | grep -q "$work/lines.*has vanished" && [ ! -e "$work/out/_SUCCESS" ] && pass "$name" || fail "$name" 'not said'
}
name='an input that shrinks'
began && : >"$work/lines" && ended 3 && {
    grep 'error: ' "$work/err" | grep -q "$work/lines.*has changed: it had 240 bytes" && pass "$name" || fail "$name" 'not said'
}
name='an input that grows'
began && echo 'more words' >>"$work/lines" && ended 0 && {
    [ "$(parts "$work/out" | sort | tr '\t\n' '= ')" = 'a=40 b=40 c=40 ' ] && pass "$name" || fail "$name" 'another result'
}

# Interrupted with --gzip: resumed by the same command only.
name='gzip, interrupted'
if began --gzip && kill -TERM $job && ended 4; then
    : >"$gate"
    run_job "$name" 3 -n 2 --executors 1 --split-size 12 -p gate="$gate" -p after=1 "$kernels/kernel_gate.so" "$work/lines" -o "$work/out" &&
        { grep -q 'error: .*--gzip' "$work/err" || fail "$name" 'without --gzip it is not refused by name'; }
    run_job "$name" 0 -n 2 --executors 1 --split-size 12 -p gate="$gate" -p after=1 --gzip "$kernels/kernel_gate.so" "$work/lines" -o "$work/out" && {
        [ "$(zcat "$work"/out/part-*.gz | sort | tr '\t\n' '= ')" = 'a=40 b=40 c=40 ' ] &&
            [ "$(grep -c '"event":"task","phase":"map"' "$work/out/.trireme/events.jsonl")" = 20 ] && # none twice
            nothing_left "$name" && pass "$name" || fail "$name" 'another result'
    }
fi

# A file system that takes nothing.
mkdir "$work/ro"
if mount -t tmpfs -o ro,size=1m trireme-test "$work/ro" 2>/dev/null; then
    run_job 'read-only output' 3 -n 2 wordcount "$work/lines" -o "$work/ro/out" &&
        { grep -q 'error: .*ro/out.*Read-only' "$work/err" && nothing_left 'read-only output' && pass 'read-only output' ||
            fail 'read-only output' 'not said'; }
    refused 'read-only scratch' 5 'scratch.*Read-only' -n 2 wordcount "$work/lines" --scratch "$work/ro"
    umount "$work/ro"
else
    skip 'read-only file systems' 'none can be mounted here'
fi

# Numbers at and over their bounds.
refused 'no time for a task' 2 'task-timeout 0 is out of range' -n 2 --task-timeout 0 wordcount "$work/lines"
refused 'too much time for a task' 2 'task-timeout' -n 2 --task-timeout 99999999999h wordcount "$work/lines"
refused 'no tasks' 2 'tasks 0 is out of range' -n 2 --tasks 0 -p records=10 teragen
refused 'too many tasks' 2 'tasks 99999999999 is out of range' -n 2 --tasks 99999999999 -p records=10 teragen
refused 'no ranks' 2 'ranks 0 is out of range' -n 0 wordcount "$work/lines"
rm -rf "$work/out"
run_job 'more tasks than records' 0 -n 2 --tasks 1000 -p records=10 teragen -o "$work/out" &&
    { [ "$(parts "$work/out" | wc -c)" = 1000 ] && pass 'more tasks than records' || fail 'more tasks than records' 'not 1000 bytes'; }

# What is said, and where.
rm -rf "$work/out"
run_job 'quiet' 0 -q -n 2 wordcount "$work/lines" -o "$work/out" &&
    { [ ! -s "$work/err" ] && [ ! -s "$work/stdout" ] && pass 'quiet' || fail 'quiet' 'it said something'; }
rm -rf "$work/out"
run_job 'bindings' 0 -q -n 2 --executors 1 --report-bindings wordcount "$work/lines" -o "$work/out" &&
    { grep -q 'rank 1' "$work/err" && grep -q 'rank 1' "$work/out/.trireme/bindings" && pass 'bindings' || fail 'bindings' 'not printed, or not kept'; }
if command -v script >/dev/null 2>&1; then
    rm -rf "$work/out"
    timeout "$JOB_SECONDS" script -qec "'$trireme' run -n 2 --split-size 64 wordcount '$work/many' -o '$work/out'" /dev/null >"$work/tty" 2>&1 </dev/null
    tr '\r\033' '<E' <"$work/tty" | grep -Eq '<E\[K(starting|mapping|reducing)' && grep -q 'done in' "$work/tty" && pass 'progress on a terminal' ||
        fail 'progress on a terminal' "$(head -c 300 "$work/tty")"
else
    skip 'progress on a terminal' 'no script(1) here'
fi

finish
