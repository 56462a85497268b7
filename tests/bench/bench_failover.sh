# shellcheck shell=sh
# What it costs when the leader, a worker or the whole launch is lost: the section `failover` of
# bench.sh, which sources this. Jobs are of tests/bench/kernel_paced.c, 5 ranks of one executor.
# Times are the job's own (events.jsonl, milliseconds since 1970, one machine); what kills takes the
# time in front of kill(1).
paced=$here/tests/bench/.libs/kernel_paced.so
kills=${BENCH_KILLS:-50}
paced_tasks=${BENCH_PACED_TASKS:-2500}
resumed_tasks=${BENCH_RESUMED_TASKS:-100000}

now_ms() { date +%s%3N; }
# event OUT NAME [TERM]: when it was noted first, by the master of that term or one after it.
event() {
    awk -v name="\"event\":\"$2\"" -v from="${3:-0}" '
        function number(key) { return match($0, "\"" key "\":[0-9]+") ? substr($0, RSTART + length(key) + 3, RLENGTH - length(key) - 3) : 0 }
        /"event":"launch"/ { term = number("term") + 1000000 * number("epoch") }
        index($0, name) && term >= from { print number("t"); exit }' "$1/.trireme/events.jsonl" 2>/dev/null
}
# field OUT NAME: of the status record.
field() { sed -n "s/.*\"$2\":\"\{0,1\}\([a-z0-9]*\).*/\1/p" "$1/.trireme/status.json" 2>/dev/null | head -n 1; }
maps_done() { sed -n 's/.*"map":{"total":[0-9]*,"done":\([0-9]*\).*/\1/p' "$1/.trireme/status.json" 2>/dev/null; }
voters_live() { # OUT
    tr '{' '\n' <"$1/.trireme/status.json" | sed -n '/"voter":true/s/.*"pid":\([0-9]*\).*/\1/p' |
        while read -r pid; do kill -0 "$pid" 2>/dev/null || exit 1; done
}
# wait_until WHAT COMMAND…: for a minute at the most.
wait_until() {
    what=$1
    shift
    for _ in $(seq 1200); do
        "$@" && return 0
        sleep 0.05
    done
    die "failover: $what did not come about"
}
leads_since() { [ "$(field "$1" term)" -ge "$2" ] 2>/dev/null && kill -0 "$(field "$1" leader_pid)" 2>/dev/null; } # OUT TERM
has_done() { [ "$(maps_done "$1")" -ge "$2" ] 2>/dev/null; } # OUT TASKS
has_event() { [ -n "$(event "$@")" ]; }
is_asleep() { # OUT: nothing has been done for a second
    before=$(maps_done "$1")
    sleep 1
    [ "$before" = "$(maps_done "$1")" ]
}
# begin OUT ARGUMENT…: in the background, its process is $running.
begin() {
    out=$1
    shift
    clean "$out"
    "$trireme" run --quiet -o "$out" "$@" "$paced" >"$dir/said" 2>&1 &
    running=$!
    wait_until 'the first task' has_event "$out" task
    wait_until 'a record of who leads' leads_since "$out" 1
}
stop() {
    kill -TERM "$running"
    wait "$running" || :
}

# quantile FILE Q: of sorted numbers.
quantile() { sort -n "$1" | awk -v q="$2" '{ v[NR] = $1 } END { i = int(q * NR + 0.999999); print v[i < 1 ? 1 : i] }'; }

# lose_leaders NAME ARGUMENT…: kills leaders until there were enough; NAME.elected and NAME.assigned have
# the milliseconds until the next one leads, and gives out a task.
lose_leaders() {
    name=$1
    shift
    : >"$dir/$name.elected"
    : >"$dir/$name.assigned"
    lost=0
    while [ "$lost" -lt "$kills" ]; do
        begin "$dir/failover" -n 5 --executors 1 --tasks 1000000 "$@"
        for _ in 1 2 3; do # a majority must live
            [ "$lost" -lt "$kills" ] || break
            term=$(field "$dir/failover" term)
            wait_until 'voters that live' voters_live "$dir/failover"
            leader=$(field "$dir/failover" leader_pid)
            killed=$(now_ms)
            kill -9 "$leader"
            wait_until 'a task from the next leader' has_event "$dir/failover" first_order $((1000001 + term))
            echo $(($(event "$dir/failover" launch $((1000001 + term))) - killed)) >>"$dir/$name.elected"
            echo $(($(event "$dir/failover" first_order $((1000001 + term))) - killed)) >>"$dir/$name.assigned"
            wait_until 'a record of the next leader' leads_since "$dir/failover" $((term + 1))
            lost=$((lost + 1))
            say "  $name: $lost of $kills leaders lost, the last one for $(tail -n 1 "$dir/$name.assigned") ms"
        done
        stop
    done
    clean "$dir/failover"
}
row_of_losses() { # NAME TEXT GOAL
    echo "| $2 | $(quantile "$dir/$1.elected" 0.5) | $(quantile "$dir/$1.assigned" 0.5) |" \
        "$(quantile "$dir/$1.assigned" 0.99) | $3 |"
}

paced_job() { "$trireme" run --quiet -n 5 --executors 1 --tasks "$paced_tasks" -p ms=20 -o "$1" "$paced" >"$dir/said" 2>&1; }
# The job's own time, from its first launch to its end, in milliseconds.
took() { echo $(($(event "$1" end) - $(event "$1" launch))); }

# Loses the leader after a quarter and one more rank after half of the tasks; what the ranks that are
# left could have done at best goes to the file of ideals.
lose_two() {
    begin "$dir/lossy" -n 5 --executors 1 --tasks "$paced_tasks" -p ms=20
    began=$(event "$dir/lossy" launch)
    wait_until 'a quarter of the tasks' has_done "$dir/lossy" $((paced_tasks / 4))
    term=$(field "$dir/lossy" term)
    first=$(now_ms)
    kill -9 "$(field "$dir/lossy" leader_pid)"
    wait_until 'the next leader' leads_since "$dir/lossy" $((term + 1))
    wait_until 'half of the tasks' has_done "$dir/lossy" $((paced_tasks / 2))
    leader=$(field "$dir/lossy" leader_pid)
    worker=$(tr '{' '\n' <"$dir/lossy/.trireme/status.json" | sed -n '/"state":"ready"/s/.*"pid":\([0-9]*\).*/\1/p' | grep -vx "$leader" | head -n 1)
    second=$(now_ms)
    kill -9 "$worker"
    wait "$running" || die 'the job that loses two ranks failed'
    calc "$second - $began + (5 * $1 - 5 * ($first - $began) - 4 * ($second - $first)) / 3" '%.0f\n' >>"$dir/ideals"
    took "$dir/lossy" >>"$dir/lossy.ms"
}
same_parts() { # OUT OUT
    for part in "$1"/part-*; do cmp -s "$part" "$2/${part##*/}" || return 1; done
}

# What the log takes, of all batches with their padding, in bytes: LOG.
log_bytes() {
    "$trireme" log "$1" | awk '/^segment/ { total += last; last = $3 } /^end at offset/ { print total + $4 }'
}
voters_job() { job "$dir/voters-$1" 5 --executors 1 --voters "$1" --tasks "$tasks" "$empty"; }
for voters in 1 3 5; do
    eval "run_voters_$voters() { voters_job $voters; }
        clean_voters_$voters() { clean '$dir/voters-$voters'; }"
done

resume_once() {
    gate=$dir/gate
    clean "$gate"
    set -- -n 5 --executors 1 --tasks "$resumed_tasks" -p gate="$gate" -p after=$((resumed_tasks / 2))
    begin "$dir/resumed" "$@"
    wait_until 'half of the tasks' has_done "$dir/resumed" $((resumed_tasks / 2 - 5000))
    wait_until 'tasks that wait' is_asleep "$dir/resumed"
    half=$(maps_done "$dir/resumed")
    stop
    : >"$gate"
    again=$(now_ms)
    "$trireme" run --quiet -o "$dir/resumed" "$@" "$paced" >"$dir/said" 2>&1 || die 'the job that goes on failed'
    echo $(($(event "$dir/resumed" first_order 2000000) - again)) >>"$dir/resumed.ms"
    echo $(($(event "$dir/resumed" launch 2000000) - again)) >>"$dir/relaunched.ms"
}

section_failover() {
    made "$paced"
    lose_leaders busy -p ms=20 -p busy
    lose_leaders quick --election-timeout 100ms -p ms=20
    : >"$dir/whole.ms" && : >"$dir/lossy.ms" && : >"$dir/ideals"
    for run in $(seq "$runs"); do
        say "  a job that loses two ranks, run $run of $runs"
        clean "$dir/whole" && paced_job "$dir/whole" || die 'the paced job failed'
        took "$dir/whole" >>"$dir/whole.ms"
        lose_two "$(took "$dir/whole")"
        same_parts "$dir/whole" "$dir/lossy" || die 'the job that has lost two ranks has another result'
    done
    : >"$dir/resumed.ms" && : >"$dir/relaunched.ms"
    for run in $(seq "$runs"); do
        say "  a job that goes on, run $run of $runs"
        resume_once
    done
    in_turn voters_1 voters_3 voters_5
    whole=$(quantile "$dir/whole.ms" 0.5) lossy=$(quantile "$dir/lossy.ms" 0.5) ideal=$(quantile "$dir/ideals" 0.5)
    echo "## Losing the leader"
    echo
    echo "5 ranks with one executor each; tasks of 20 ms. Milliseconds from kill -9 of the leader until the next" \
        "one leads and until it has given out its first task; $kills leaders each."
    echo
    echo "| | leads, median | first task, median | first task, 99 of 100 | goal |"
    echo "| --- | --- | --- | --- | --- |"
    row_of_losses busy "default timeouts, all cores busy with the tasks" "under 1000"
    row_of_losses quick "\`--election-timeout 100ms\`, tasks that sleep" "under 300"
    echo
    echo "## A job that loses its leader and a worker"
    echo
    echo "$paced_tasks tasks of 20 ms that sleep, 5 ranks; the leader dies after a quarter, another rank after" \
        "half of them. At best: what the ranks that are left can do, from the moments they were left."
    echo
    echo "| | s |"
    echo "| --- | --- |"
    echo "| nobody dies | $(calc "$whole / 1000" %.3f) |"
    echo "| two die, at best | $(calc "$ideal / 1000" %.3f) |"
    echo "| two die | $(calc "$lossy / 1000" %.3f) |"
    echo
    echo "$(calc "100 * ($lossy / $ideal - 1)" %.1f)% slower than at best (goal: under 15%)."
    echo
    echo "## Going on with half a job"
    echo
    echo "$resumed_tasks tasks that do nothing, of which about $half were done; from the command until the" \
        "next launch leads $(quantile "$dir/relaunched.ms" 0.5) ms, until its first task is given out" \
        "$(quantile "$dir/resumed.ms" 0.5) ms (goal: under 2000), mpirun's start included."
    echo
    echo "## What the replicated log costs"
    echo
    echo "$tasks empty tasks, 5 ranks with one executor each on $(nproc) cores."
    echo
    echo "| voters | s | tasks/s | bytes of the log a task |"
    echo "| --- | --- | --- | --- |"
    for voters in 1 3 5; do
        bytes_of_log=$(log_bytes "$dir/voters-$voters/.trireme/log/e1.r0")
        echo "| $voters | $(median voters_$voters) ($(spread voters_$voters)) | $(calc "$tasks / $(median voters_$voters)" %.0f) |" \
            "$(calc "$bytes_of_log / $tasks" %.1f) |"
    done
    echo
    echo "The log is cut where a snapshot covers it, so that the bytes of more than a few hundred thousand tasks" \
        "are those of the rest."
    echo
}
