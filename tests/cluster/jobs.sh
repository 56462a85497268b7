#!/bin/sh
# Whole jobs: 1, 2 and 4 ranks, started by `trireme run` and by mpirun, out of core, compressed in
# every way, interrupted and resumed, with ranks that die. Every result is compared with what
# coreutils make of the same input.
. "${srcdir:-.}/tests/cluster/lib.sh"
LC_ALL=C
export LC_ALL

"$trireme" gen text --bytes 20M --seed 7 -o "$work/text" >/dev/null 2>"$work/err" || { fail 'gen text' 'failed'; finish; }
tr -cs '[:alnum:]' '\n' <"$work/text" | tr '[:upper:]' '[:lower:]' | grep . | sort | uniq -c |
    awk '{print $2 "\t" $1}' | sort >"$work/want"

# same NAME: the output of the last job is what coreutils say.
same() {
    parts "$work/out" | sort | cmp -s - "$work/want" || { fail "$1" 'another result than coreutils'; return 1; }
    [ -s "$work/out/_SUCCESS" ] || { fail "$1" 'no _SUCCESS'; return 1; }
    nothing_left "$1" || return 1
    pass "$1"
}

counts() { # NAME ARGUMENT…: a word count of the text, into a new directory
    what=$1
    shift
    rm -rf "$work/out"
    run_job "$what" 0 "$@" wordcount -p lower=true "$work/text" -o "$work/out" && same "$what"
}

for ranks in 1 2 4; do counts "$ranks ranks" -n $ranks; done
counts 'several executors' -n 2 --executors 3 --partitions 7
counts 'small splits' -n 2 --split-size 64K
counts 'little memory' -n 2 --memory 16M --executors 1
for how in none zlib zlib:6 auto; do counts "compress $how" -n 2 --compress $how; done
for bind in core numa none; do counts "bind $bind" -n 2 --bind $bind; done
rm -rf "$work/out"
run_job 'gzip output' 0 -n 2 --gzip wordcount -p lower=true "$work/text" -o "$work/out" &&
    { zcat "$work"/out/part-*.gz | sort | cmp -s - "$work/want" && pass 'gzip output' || fail 'gzip output' 'another result'; }
gzip -c "$work/text" >"$work/text.gz"
rm -rf "$work/out"
run_job 'gzip input' 0 -n 2 wordcount -p lower=true "$work/text.gz" -o "$work/out" && same 'gzip input'
mkdir "$work/many"
split -n l/50 "$work/text" "$work/many/f"
rm -rf "$work/out"
run_job 'a directory of files' 0 -n 2 wordcount -p lower=true "$work/many" -o "$work/out" && same 'a directory of files'
find "$work/many" -type f | sort >"$work/list"
rm -rf "$work/out"
run_job 'a list of files' 0 -n 2 wordcount -p lower=true "@$work/list" -o "$work/out" && same 'a list of files'
rm -rf "$work/out"
run_job 'a pattern' 0 -n 2 wordcount -p lower=true "$work/many/*" -o "$work/out" && same 'a pattern'

# As ranks of an mpirun of the user's own.
rm -rf "$work/out"
timeout -k 5 "$JOB_SECONDS" "$mpirun" --oversubscribe -n 3 "$trireme" run wordcount -p lower=true "$work/text" -o "$work/out" \
    >"$work/stdout" 2>"$work/err" && same 'mpirun trireme run' || fail 'mpirun trireme run' "exit status $?"

# An output of its own is not made again; another job is refused; --overwrite replaces it.
counts 'once more, for what follows' -n 2
before=$(stat -c %Y.%i "$work/out/_SUCCESS")
run_job 'done already' 0 -n 2 wordcount -p lower=true "$work/text" -o "$work/out" &&
    { [ "$before" = "$(stat -c %Y.%i "$work/out/_SUCCESS")" ] && grep -q 'done already' "$work/err" && pass 'done already' ||
        fail 'done already' 'it was done again, or not said'; }
cp "$work/out/_SUCCESS" "$work/manifest" && rm "$work/out/_SUCCESS"
run_job '_SUCCESS is gone' 0 -n 2 wordcount -p lower=true "$work/text" -o "$work/out" &&
    { cmp -s "$work/manifest" "$work/out/_SUCCESS" && same '_SUCCESS is gone' || fail '_SUCCESS is gone' 'it is not as it was'; }
part=$(find "$work/out" -name 'part-*' | head -n 1)
mv "$part" "$work/part" && rm "$work/out/_SUCCESS"
run_job '_SUCCESS and a part are gone' 3 -n 2 wordcount -p lower=true "$work/text" -o "$work/out" && {
    grep 'error: ' "$work/err" | grep -q "$part" && [ ! -e "$work/out/_SUCCESS" ] && pass '_SUCCESS and a part are gone' ||
        fail '_SUCCESS and a part are gone' 'not said, or there is a _SUCCESS'
}
mv "$work/part" "$part" && cp "$work/manifest" "$work/out/_SUCCESS"
run_job 'another job in the same place' 3 -n 2 wordcount -p lower=false "$work/text" -o "$work/out" &&
    pass 'another job in the same place'
run_job 'overwrite' 0 -n 2 --overwrite wordcount -p lower=true "$work/text" -o "$work/out" && same 'overwrite'
rm -r "$work/out/.trireme"
run_job 'overwrite, by the manifest' 0 -n 2 --overwrite wordcount -p lower=true "$work/text" -o "$work/out" &&
    same 'overwrite, by the manifest'
run_job 'other options' 3 -n 2 --partitions 3 wordcount -p lower=true "$work/text" -o "$work/out" && {
    grep -q 'error: .*--partitions was not given and is 3 now' "$work/err" && pass 'other options' ||
        fail 'other options' 'not said'
}
for file in identity plan; do # a byte of it is another one
    name="damaged $file"
    cp "$work/out/.trireme/$file" "$work/whole"
    { head -c 20 "$work/whole"; printf '\377'; tail -c +22 "$work/whole"; } >"$work/out/.trireme/$file"
    run_job "$name" 3 -n 2 wordcount -p lower=true "$work/text" -o "$work/out" && {
        grep 'error: ' "$work/err" | grep -q "cannot be read: $work/out/.trireme/$file" && same "$name" || fail "$name" 'not said, or changed'
    }
    cp "$work/whole" "$work/out/.trireme/$file"
done
"$trireme" jobs wordcount >"$work/jobs" && grep -q -- '^ *-p lower=yes|no ' "$work/jobs" && pass 'what a job takes' ||
    fail 'what a job takes' "it is told otherwise: $(cat "$work/jobs")"

# Interrupted, then resumed: what is committed is not run again. The kernel waits for a file, so that
# the signal comes in the middle, whatever the machine's speed.
mkdir "$work/gate"
yes 'a line of some words' | head -40 >"$work/gate/input"
interrupted() { # NAME SIGNAL: leaves the job in $work/out half done
    rm -rf "$work/out" "$work/gate/open" "$work/gate/open.waiting"
    "$trireme" run -n 3 --split-size 21 --partitions 2 -p gate="$work/gate/open" -p after=20 "$kernels/kernel_gate.so" \
        "$work/gate/input" -o "$work/out" >"$work/stdout" 2>"$work/err" &
    job=$!
    await 'the job gets to the gate' test -e "$work/gate/open.waiting"
    kill -"$2" $job
    wait $job
    got=$?
    [ -e "$work/gate/open.waiting" ] || { fail "$1" "$why"; return 1; }
}
for signal in TERM INT; do
    interrupted "SIG$signal" $signal || continue
    [ $got -eq 4 ] || { fail "SIG$signal" "exit status $got, not 4"; continue; }
    no_process_left || { fail "SIG$signal" "$why"; continue; }
    [ ! -e "$work/out/_SUCCESS" ] || { fail "SIG$signal" 'there is a _SUCCESS'; continue; }
    : >"$work/gate/open"
    run_job "resumed after SIG$signal" 0 -n 3 --split-size 21 --partitions 2 -p gate="$work/gate/open" -p after=20 \
        "$kernels/kernel_gate.so" "$work/gate/input" -o "$work/out" || continue
    total=$(parts "$work/out" | awk '{n += $2} END {print n}')
    [ "$total" = 200 ] || { fail "resumed after SIG$signal" "$total words, not 200"; continue; }
    nothing_left "resumed after SIG$signal" && pass "resumed after SIG$signal"
done

# The logs of an interrupted job are lost, or only the file by which they are known: it does not begin as if
# there had been nothing, whatever is asked for, and goes on when they are there again.
gate_job() { # NAME CODE ARGUMENT…
    name=$1 code=$2
    shift 2
    run_job "$name" "$code" -n 3 --split-size 21 --partitions 2 -p gate="$work/gate/open" -p after=20 "$@" \
        "$kernels/kernel_gate.so" "$work/gate/input" -o "$work/out"
}
if interrupted 'the log is lost' TERM; then
    : >"$work/gate/open"
    log=$work/out/.trireme/log
    cp -r "$log" "$work/log"
    for lost in epoch-1 ''; do
        rm -rf "${log:?}/$lost"
        for option in --quiet --overwrite --unsafe-recover; do
            what="log/$lost is lost, $option"
            gate_job "$what" 3 $option || continue
            [ "$(grep -c 'error: ' "$work/err")" = 1 ] || { fail "$what" 'not one error'; continue; }
            grep 'error: ' "$work/err" | grep -q "no epoch-<n> is in $log.*remove the output directory" || { fail "$what" 'it is not said'; continue; }
            [ "$(events launch)" = 1 ] || { fail "$what" 'it has begun again'; continue; }
            no_process_left && pass "$what" || fail "$what" "$why"
        done
    done
    rm -rf "$log" && mv "$work/log" "$log"
    gate_job 'the log is there again' 0 && nothing_left 'the log is there again' && {
        total=$(parts "$work/out" | awk '{n += $2} END {print n}')
        [ "$total" = 200 ] && [ "$(events launch)" = 2 ] && pass 'the log is there again' || fail 'the log is there again' "$total words, not 200"
    }
fi

finish
