#!/bin/sh
# Records that kill kernels, by --skip-bad-records: found, left out, counted, written aside; in every
# way to die, of every kind of input, through a failover and a resume; and no others.
. "${srcdir:-.}/tests/cluster/lib.sh"
LC_ALL=C
export LC_ALL
kernel=$kernels/kernel_poison.so

# Lines 57 and 131 kill; 3 spoils the memory, of which the kernel dies at 5. These are of the first task.
for i in $(seq 200); do
    case $i in 57 | 131) echo 'die' ;; 3) echo 'rot x' ;; 5) echo 'use y' ;; 6) echo 'use z' ;; *) echo "good a b $i" ;; esac
done >"$work/lines"
grep -v '^die\|^rot' "$work/lines" | tr ' ' '\n' | sort | uniq -c | awk '{ print $2 "\t" $1 }' | sort >"$work/good"

# skipped NAME COUNT RECORD…: the output is that of all other records; these lie aside.
skipped() {
    name=$1 count=$2
    shift 2
    parts "$work/out" | sort | cmp -s - "$work/good" || { fail "$name" 'another result'; return 1; }
    grep -q "map_records_skipped  *$count\$" "$work/err" || { fail "$name" "not $count are counted"; return 1; }
    grep -q "$count bad record.* left out" "$work/err" || { fail "$name" 'it is not said at the end'; return 1; }
    aside=$(find "$work/out/.trireme/skipped" -type f | while read -r file; do sed 1d "$file"; echo; done | grep . | sort)
    [ "$aside" = "$(printf '%s\n' "$@" | sort)" ] || { fail "$name" "aside lie: $aside"; return 1; }
    [ -z "$(find "$work/out/.trireme/skipped" \( -type f ! -perm 600 -o -type d ! -perm 700 \))" ] ||
        { fail "$name" 'others may read them'; return 1; }
    "$trireme" status --json "$work/out" | grep -q "\"records_skipped\":$count" || { fail "$name" 'status does not say it'; return 1; }
    found=$(grep -c '"event":"skipped"' "$work/out/.trireme/events.jsonl")
    [ "$found" = "$count" ] || [ "$name" = 'its leader is killed' ] || { fail "$name" "$found events, not $count"; return 1; }
    nothing_left "$name" || return 1
    pass "$name"
}

# poisoned NAME OPTION…: a whole job
poisoned() {
    name=$1
    shift
    rm -rf "$work/out"
    run_job "$name" 0 -n 2 --executors 2 --split-size 400 --skip-bad-records "$@" "$kernel" "$work/lines" -o "$work/out"
}

# ---- In every way, without a failed attempt that counts; many tasks, and all in one.
dying='segfault abort exit fail leak'
[ "$sanitized" = 0 ] || dying='segfault abort exit fail' # a process has no limit of memory there
for how in $dying; do
    poisoned "$how" -p how=$how --max-attempts 1 --memory 128M && skipped "$how" 3 die 'rot x' die
done
[ "$sanitized" = 1 ] || grep -q 'memory limit' "$work/err" || fail "$name" 'it is not what it died of'
poisoned loop -p how=loop --max-attempts 1 --task-timeout 3s && skipped loop 3 die 'rot x' die
poisoned 'one task' --split-size 1M --max-attempts 1 && skipped 'one task' 3 die 'rot x' die

# ---- Other inputs.
gzip -c "$work/lines" >"$work/lines.gz"
rm -rf "$work/out"
run_job gzip 0 -n 2 --executors 1 --skip-bad-records "$kernel" "$work/lines.gz" -o "$work/out" && skipped gzip 3 die 'rot x' die

# ---- What is no record's fault counts as ever: a kernel that dies once, one that dies of every record,
# one that dies of two records and may skip one.
cp "$work/lines" "$work/all"
{ echo 'sulk'; grep -v '^die\|^rot' "$work/all"; } >"$work/lines"
if poisoned 'it dies once' -p once="$work/once"; then
    if grep -q map_records_skipped "$work/err" || ! grep -q 'attempts_failed  *1$' "$work/err"; then
        fail "$name" 'a record is left out, or no failure is counted'
    else
        pass "$name"
    fi
fi
yes die | head -50 >"$work/lines"
refused 'every record' 1 'kills the kernel, and 16 records of it .* are skipped already: .*SIGSEGV' \
    -n 1 --executors 1 --skip-bad-records "$kernel" "$work/lines"
cp "$work/all" "$work/lines"
refused 'more than may be' 1 'kills the kernel, and 2 records .--skip-bad-records. are skipped already' \
    -n 1 --executors 1 --skip-bad-records=2 "$kernel" "$work/lines"
refused 'without the option' 1 'failed 2 times.*SIGSEGV' -n 1 --executors 1 --max-attempts 2 "$kernel" "$work/lines"

# ---- A skip outlives the launch, and the leader: it is found once.
# One task waits, and perhaps its second attempt: two more executors are free to look for records.
echo 'wait here' >>"$work/lines"
gate=$work/gate
grep -v '^die\|^rot' "$work/lines" | tr ' ' '\n' | sort | uniq -c | awk '{ print $2 "\t" $1 }' | sort >"$work/good"
begin() { # NAME RANKS: until a record is left out
    name=$1
    rm -rf "$work/out" "$gate"
    long $2 2>"$work/err" &
    job=$!
    await 'a record is left out' is_left_out || { fail "$name" "$why"; return 1; }
}
is_left_out() { [ "$(events skipped)" -gt 0 ]; }
long() { # RANKS
    exec timeout -k 5 "$JOB_SECONDS" "$trireme" run -n "$1" --executors 2 --split-size 60 -p gate="$gate" --skip-bad-records \
        "$kernel" "$work/lines" -o "$work/out"
}
if begin 'it is interrupted and resumed' 2; then
    kill -TERM $job
    wait $job
    code=$?
    [ $code -eq 4 ] || fail "$name" "exit status $code"
    : >"$gate"
    (long 1 2>"$work/err")
    skipped "$name" 3 die 'rot x' die
fi
if begin 'its leader is killed' 3; then
    # Of its last second the events may be missing.
    kill -9 "$("$trireme" status --json "$work/out" | sed 's/.*"leader_pid":\([0-9]*\).*/\1/')"
    : >"$gate"
    wait $job
    skipped "$name" 3 die 'rot x' die
fi

finish
