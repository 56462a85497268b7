#!/bin/sh
# `trireme log` over the logs of real jobs: what it says is what a reader made from docs/log-format.md
# says; what a crash leaves it forgives, what a crash cannot explain it names; it changes nothing.
. "${srcdir:-.}/tests/cluster/lib.sh"
LC_ALL=C
export LC_ALL
reader=$builddir/tests/cluster/read_log
[ -x "$reader" ] || { echo "skipped: $reader is not built"; exit 77; }

sums() { find "$1" -type f -exec cksum {} + | sort; }
# said CODE ARGUMENT…: runs it; its words are in $work/said and $work/err.
said() {
    code=$1
    shift
    "$trireme" log "$@" >"$work/said" 2>"$work/err"
    got=$?
    [ $got -eq "$code" ] || { why="exit status $got, not $code"; return 1; }
}
# agree NAME LOG: the reader says the same, word for word.
agree() {
    said 0 --entries "$2" || { fail "$1" "$why"; return 1; }
    "$reader" "$2" >"$work/read" 2>"$work/registers" || { fail "$1" "the reader: $(tail -n 1 "$work/read")"; return 1; }
    cmp -s "$work/said" "$work/read" || { fail "$1" "$(diff "$work/said" "$work/read" | head -n 3)"; return 1; }
}
# agree_all NAME: in all logs of the job in $work/out, and the command names them all.
agree_all() {
    before=$(sums "$work/out")
    count=0
    for log in "$work/out/.trireme/log"/e*.r*; do
        agree "$1" "$log" || return 1
        count=$((count + 1))
    done
    said 0 "$work/out" || { fail "$1" "$why"; return 1; }
    [ "$(grep -c "^$work/out/.trireme/log/e" "$work/said")" = $count ] || { fail "$1" 'not all logs are named'; return 1; }
    for epoch in "$work/out/.trireme/log"/epoch-*; do
        "$reader" --epoch "$epoch" >"$work/read" || { fail "$1" "$(cat "$work/read")"; return 1; }
    done
    [ "$before" = "$(sums "$work/out")" ] || { fail "$1" 'the files have changed'; return 1; }
}

name='the log of a finished job'
rm -rf "$work/out"
run_job "$name" 0 -n 3 --tasks 60000 "$builddir/tests/bench/.libs/kernel_empty.so" -o "$work/out" && agree_all "$name" && {
    [ $count = 3 ] || fail "$name" "$count logs, not 3"
    grep -q 'voters 0 1 2$' "$work/read" && [ "$(find "$work/out/.trireme/log/e1.r0" -name 'segment-*' | wc -l)" -gt 1 ] &&
        pass "$name" || fail "$name" 'not three voters, or one segment only'
}
name='any directory of it will do'
for at in out out/.trireme out/.trireme/log out/.trireme/log/e1.r1; do
    said 0 "$work/$at" && tail -n 1 "$work/said" | grep -q '^log [0-9a-f]*: entries 1 to ' || { fail "$name" "$at: $why"; at=; break; }
done
[ -z "$at" ] || pass "$name"

# What a crash leaves, and what none can explain. The last batch, and the block in front of it:
log=$work/out/.trireme/log/e1.r0
said 0 "$log"
newest=$(printf '%s/segment-%016x' "$log" "$(sed -n 's/^end at offset [0-9]* of segment \([0-9]*\).*/\1/p' "$work/said")")
last=$(sed -n 's/^ *\([0-9]*\) *#.*/\1/p' "$work/said" | tail -n 1)
cp -r "$work/out" "$work/sound"
flip() { # FILE OFFSET
    byte=$(od -An -tu1 -j "$2" -N 1 "$1" | tr -d ' ')
    printf "$(printf '\\%03o' $((255 - byte)))" | dd of="$1" bs=1 seek="$2" conv=notrunc 2>/dev/null
}
restore() { rm -rf "$work/out" && cp -r "$work/sound" "$work/out"; }
# torn NAME: it is forgiven, and said; what was before it is there.
torn() {
    agree "$1" "$log" || return 1
    grep -q "^end at offset .*, behind it an unfinished write" "$work/said" && pass "$1" || fail "$1" 'not said'
}
# damaged NAME FILE OFFSET: refused by name and place, by both; the other logs are shown all the same.
damaged() {
    before=$(sums "$work/out")
    said 3 "$work/out" || { fail "$1" "$why"; return 1; }
    [ "$(grep -c 'error: ' "$work/err")" = 1 ] && grep 'error: ' "$work/err" | grep -q "$2.*offset $3[: ]" ||
        { fail "$1" "does not name $2, offset $3"; return 1; }
    [ "$(grep -c '^log [0-9a-f]*: entries ' "$work/said")" = 2 ] && grep -q '^damaged: ' "$work/said" ||
        { fail "$1" 'the other logs are not shown'; return 1; }
    ! "$reader" "$log" >"$work/read" 2>/dev/null && grep -q "^damaged: $2: offset $3: " "$work/read" ||
        { fail "$1" "the reader says: $(tail -n 1 "$work/read")"; return 1; }
    [ "$before" = "$(sums "$work/out")" ] && pass "$1" || fail "$1" 'the files have changed'
}
flip "$newest" $((last + 30)) && torn 'a torn last record'
restore && truncate -s $((last + 20)) "$newest" && torn 'a file that ends within the last record'
restore && first=$log/segment-0000000000000001
flip "$first" 4100 && damaged 'a bad first record' "$first" 4096
restore && flip "$first" 70 && damaged 'a bad header' "$first" 0
restore && flip "$first" 12288 && damaged 'a bad record in the middle' "$first" \
    "$("$reader" "$log" 2>/dev/null | sed -n 's/^damaged: .*: offset \([0-9]*\): .*/\1/p')"
# In the newest segment only what was written later can say that a place had been durable.
restore
at=$(awk -v name="segment $((0x${newest##*-}))" 'index($0, name ":") == 1 { here = 1; next } /^segment/ { here = 0 }
    here && $2 ~ /^#/ && $1 % 4096 == 0 { print $1; exit }' "$work/said")
said 0 "$log" && [ -n "$at" ] && [ "$at" -lt "$last" ] && flip "$newest" $((at + 24)) && damaged 'a bad record of the newest segment' "$newest" "$at"
restore && rm "$first" && name='a missing segment' &&
    if said 3 "$work/out" && grep 'error: ' "$work/err" | grep -q "$log: segment 1 is missing"; then pass "$name"; else fail "$name" "${why:-not said}"; fi
name='a log whose directory is empty is none'
restore && rm "$log"/segment-* && said 0 "$work/out" && [ "$(grep -c '^log [0-9a-f]*: ' "$work/said")" = 2 ] && pass "$name" || fail "$name" "$why"

# A job that went on: its log begins with a snapshot, and the register says whose the launch is.
name='the log of a job that went on'
mkdir "$work/gate"
gate=$work/gate/open
yes 'a line of some words' | head -40 >"$work/gate/input"
set -- -n 3 --split-size 21 --partitions 2 -p gate="$gate" -p after=20 "$kernels/kernel_gate.so" "$work/gate/input" -o "$work/out"
rm -rf "$work/out"
"$trireme" run "$@" >"$work/stdout" 2>"$work/err" &
job=$!
await 'the job gets to the gate' test -e "$gate.waiting" || fail "$name" "$why"
kill -TERM $job
wait $job
: >"$gate"
run_job "$name" 0 "$@" && agree_all "$name" &&
    { grep -q '^snapshot of entry' "$work/said" && grep -q '^epoch 2, 3 ranks, voters 0 1 2' "$work/read" && pass "$name" || fail "$name" 'no snapshot'; }
name='a bad snapshot'
log=$(find "$work/out/.trireme/log" -name 'e2.r0')
snapshot=$(find "$log" -name 'snapshot-*')
[ -n "$snapshot" ] && flip "$snapshot" 100 && damaged "$name" "$snapshot" 56

# No log at all.
none() { # NAME DIRECTORY
    said 3 "$2" || { fail "$1" "$why"; return 1; }
    [ ! -s "$work/said" ] && [ "$(wc -l <"$work/err")" = 1 ] && grep -q "error: there is no log in '$2'" "$work/err" && pass "$1" ||
        fail "$1" 'something else is said'
}
mkdir "$work/empty" "$work/foreign" "$work/foreign/log" "$work/foreign/log/e1.r0"
echo 'not a segment' >"$work/foreign/log/e1.r0/segment-1"
echo 'text' >"$work/foreign/segment.txt"
none 'an empty directory' "$work/empty"
none 'a directory of something else' "$work/foreign"
none 'a directory that is not there' "$work/nowhere"
none 'a file' "$work/foreign/segment.txt"
name='a file that is named like a segment'
echo 'not a segment' >"$work/foreign/segment-0000000000000001"
said 3 "$work/foreign" && grep 'error: ' "$work/err" | grep -q 'segment-0000000000000001.*offset 0' && pass "$name" || fail "$name" "${why:-not said}"
name='a newer format'
restore && printf '\002' | dd of="$first" bs=1 seek=8 conv=notrunc 2>/dev/null
said 3 "$work/out" && grep 'error: ' "$work/err" | grep -q "$first.*version 2" && pass "$name" || fail "$name" "${why:-not said}"
# Root reads everything, unless it is told not to.
name='a log that may not be read'
restore && chmod 0 "$work/out/.trireme"
ordinary=
[ "$(id -u)" != 0 ] || ordinary='setpriv --bounding-set -dac_override,-dac_read_search'
if [ -n "$ordinary" ] && ! $ordinary true 2>/dev/null; then
    skip "$name" 'root, and no setpriv'
else
    $ordinary "$trireme" log "$work/out" >"$work/said" 2>"$work/err"
    [ $? -eq 3 ] && [ "$(wc -l <"$work/err")" = 1 ] && grep -q "error: .*$work/out/.trireme.*: Permission denied" "$work/err" &&
        pass "$name" || fail "$name" 'something else is said'
fi
chmod 700 "$work/out/.trireme"
name='usage'
said 2 && said 2 --nonsense "$work/out" && said 2 "$work/out" "$work/out" && said 0 --help && pass "$name" || fail "$name" "$why"

if [ -c /dev/full ]; then
    for command in "log $work/out" "status $work/out" "status --json $work/out" jobs 'jobs wordcount' version help 'run --help' 'gen --help'; do
        name="a disk that is full: trireme ${command%%/*}"
        "$trireme" $command >/dev/full 2>"$work/err"
        got=$?
        [ $got -eq 5 ] && [ "$(grep -c 'error: .* could not be written' "$work/err")" = 1 ] && pass "$name" || fail "$name" "exit status $got"
    done
else
    skip 'a disk that is full' 'there is no /dev/full'
fi

finish
