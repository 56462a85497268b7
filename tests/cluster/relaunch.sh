#!/bin/sh
# mpirun is lost and started again: killed, crashed, with hosts that do not answer, too often; the
# launcher itself is killed; a person ends it in between. Each time the result is the undisturbed one, what
# was committed is not run again, and nothing is left. And what `trireme status` says all the while.
. "${srcdir:-.}/tests/cluster/lib.sh"
LC_ALL=C
export LC_ALL

maps=40
mkdir "$work/gate"
yes 'a line of some words' | head -$maps >"$work/gate/input"
printf 'a\t40\nline\t40\nof\t40\nsome\t40\nwords\t40\n' >"$work/want"

# begin ARGUMENT…: the job in the background, until it waits in the middle; $job is the launcher.
begin() {
    rm -rf "$work/gate/open" "$work/gate/open.waiting"
    [ "${keep:-0}" = 1 ] || rm -rf "$work/out"
    launch "$@" &
    job=$!
    middle
}

# What waits at the gate would be overdue, and be run anew: that would say that the next launch waits there.
launch() {
    exec timeout --foreground -k 5 "$JOB_SECONDS" "$trireme" run -n 3 --speculate off --split-size 21 --partitions 2 -p gate="$work/gate/open" \
        -p after=20 "$@" "$kernels/kernel_gate.so" "$work/gate/input" -o "$work/out" >"$work/stdout" 2>"$work/err"
}

# Until FILE is there, a pattern is in it, or a process is gone: bounded, looked at ten times a second.
until_true() {
    for _ in $(seq $((JOB_SECONDS * 10))); do
        "$@" && return 0
        sleep 0.1
    done
    return 1
}
middle() { until_true test -e "$work/gate/open.waiting" || { fail "$what" 'the job never got so far'; return 1; }; }
says() { grep -Eq "$1" "$work/err"; }
child() { ps -o pid= --ppid "$1" | tr -d ' ' | head -1; }
launcher() { child "$job"; } # below timeout
mpirun_pid() { child "$(launcher)"; }

# Until a record of what is committed is on disk: events are a second behind at most.
noted() { [ "$(events task)" -ge "$1" ]; }

no_process() { [ -z "$(own_processes)" ]; }
no_process_left_soon() { until_true no_process || { fail "$1" "processes left: $(own_processes | tr '\n' ' ')"; return 1; }; }

# status NAME CODE PATTERN ARGUMENT…: `trireme status` ends with CODE and says PATTERN, in one error if CODE is 3.
status() {
    name=$1 code=$2 pattern=$3
    shift 3
    "$trireme" status "$@" >"$work/said" 2>"$work/err2"
    got=$?
    [ $got -eq "$code" ] || { fail "status: $name" "exit status $got, not $code: $(cat "$work/said" "$work/err2")"; return 1; }
    grep -Eq -- "$pattern" "$work/said" "$work/err2" || { fail "status: $name" "does not say $pattern: $(cat "$work/said" "$work/err2")"; return 1; }
    [ "$code" != 3 ] || [ "$(grep -c 'error: ' "$work/err2")" = 1 ] || { fail "status: $name" 'not one error'; return 1; }
    pass "status: $name"
}

# ended NAME CODE
ended() {
    wait $job
    got=$?
    [ $got -eq "$2" ] || { fail "$1" "exit status $got, not $2"; return 1; }
}

# whole NAME: the result is the undisturbed one, each launch has run only what was not committed
# before it, and nothing is left.
whole() {
    [ -s "$work/out/_SUCCESS" ] || { fail "$1" 'no _SUCCESS'; return 1; }
    parts "$work/out" | sort | cmp -s - "$work/want" || { fail "$1" 'another result'; return 1; }
    again=$(awk -v maps=$maps '
        function value(key) { match($0, "\"" key "\":[0-9]+"); return substr($0, RSTART + length(key) + 3, RLENGTH - length(key) - 3) + 0 }
        /"event":"launch"/ { launches++; committed = value("maps_committed"); first[launches] = committed; ran[launches] = 0 }
        /"event":"task"/ && /"phase":"map"/ { ran[launches]++ }
        /"event":"lost"/ { lost += value("count") }
        END {
            if (launches < 2) print "only " launches + 0 " launches"
            else if (first[launches] < 1) print "nothing was committed before"
            else if (first[launches] + ran[launches] - lost != maps) print first[launches] " committed, " ran[launches] " run, " lost + 0 " lost"
            else if (lost) print lost " outputs lost"
        }' "$event_record")
    [ -z "$again" ] || { fail "$1" "$again"; return 1; }
    nothing_left "$1"
}

# --- mpirun is lost -------------------------------------------------------------------------------

# An executor that was slow may come to the gate when its launch is lost already: the next launch is in the
# middle when it has said that it has begun, too. The ranks of the one before are gone by then.
launched() { [ "$(events launch)" -gt "$1" ]; }
lose() { # mpirun of this launch; the next is in the middle afterwards
    launches=$(events launch)
    rm -f "$work/gate/open.waiting"
    kill -9 "$(mpirun_pid)"
    middle && { until_true launched "$launches" || { fail "$what" 'there is no next launch'; return 1; }; }
}

half_done() { "$trireme" status "$work/out" 2>/dev/null | grep -q "maps      $1 of $maps done"; }
all_ready() { [ "$(events rank_ready)" -ge 3 ]; }
what='mpirun is killed'
if begin && until_true noted 10 && until_true half_done '[12][0-9]' && until_true all_ready; then
    status 'of a job that runs' 0 '^gate: running, mapping$' "$work/out"
    status 'who leads' 0 "leader    rank [0-2] on .*, pid [0-9]+, since term [1-9][0-9]* of launch 1; failovers: [0-9]" "$work/out/.trireme"
    status 'ranks' 0 '2  ready.*, pid [1-9]' "$work/out"
    status 'as JSON' 0 '"state":"running".*"leader_pid":[1-9].*"ranks":\[.*"attempts_failed":0' --json "$work/out"
    lose
    until_true half_done '[12][0-9]'
    status 'of the second launch' 0 'of launch 2;' "$work/out"
    : >"$work/gate/open"
    ended "$what" 0 && whole "$what" &&
        { says 'ended by signal 9 before the job was done: it is started again in 1 s \(1 of 2\)' || fail "$what" 'it does not say so'; } &&
        pass "$what"
    status 'of a job that is done' 0 '^gate: done, exit status 0$' "$work/out"
    status 'of a job that is done, as JSON' 0 '"state":"done".*"exit_status":0' --json "$work/out"
fi

what='mpirun is killed twice'
if begin --relaunch 3 && until_true noted 10 && lose && lose; then
    : >"$work/gate/open"
    ended "$what" 0 && whole "$what" && { says 'again in 2 s \(2 of 3\)' || fail "$what" 'it does not say so'; } && pass "$what"
fi

# The first launch may end the job while it dies; then there is nothing to be done again.
what='mpirun is killed at the end'
if begin; then
    kill -9 "$(mpirun_pid)"
    : >"$work/gate/open"
    ended "$what" 0 && parts "$work/out" | sort | cmp -s - "$work/want" && nothing_left "$what" && pass "$what" ||
        fail "$what" 'see above'
fi

# --overwrite is over when the first launch has made the output new.
begun_at() { head -1 "$event_record" | sed 's/.*"t":\([0-9]*\).*/\1/'; }
what='mpirun is killed, --overwrite'
if begin --overwrite && until_true noted 10; then
    before=$(begun_at)
    if lose; then
        : >"$work/gate/open"
        ended "$what" 0 && whole "$what" && { [ "$before" = "$(begun_at)" ] || fail "$what" 'it was begun anew'; } && pass "$what"
    fi
fi

# So it is when the first launch has done the job and nobody heard of it: this mpirun hides what
# its ranks say, and is lost once they have ended.
cat >"$work/mute" <<MUTE
#!/bin/sh
[ ! -e "$work/muted" ] || exec $mpirun "\$@"
: >"$work/muted"
$mpirun "\$@" >/dev/null 2>&1
kill -9 \$\$
MUTE
chmod +x "$work/mute"
what='done, but nobody heard of it'
: >"$work/gate/open"
before=$(stat -c %Y.%i "$work/out/_SUCCESS")
launch --overwrite --mpirun "$work/mute" &
job=$!
ended "$what" 0 && nothing_left "$what" &&
    if [ "$before" = "$(stat -c %Y.%i "$work/out/_SUCCESS")" ]; then fail "$what" 'it was not overwritten'
    elif ! says 'done already'; then fail "$what" 'it was done twice'
    else pass "$what"; fi

# Used up.
for times in 0 1; do
    what="mpirun is lost, --relaunch $times"
    if begin --relaunch $times && until_true noted 10; then
        [ $times = 0 ] || lose || continue
        kill -9 "$(mpirun_pid)"
        ended "$what" 5 || continue
        says 'error: .*the same command goes on with it' || { fail "$what" 'it does not say so'; continue; }
        # The same command goes on at once: nobody is at the output any more.
        sed -i 's/"written_ms":[0-9]*/"written_ms":1/' "$work/out/.trireme/status.json"
        status "of a job that was lost, --relaunch $times" 4 '^gate: lost; the same command goes on with it$' "$work/out"
        : >"$work/gate/open"
        launch &
        job=$!
        ended "$what" 0 && whole "$what" && pass "$what"
    fi
done

# What ends at once is lost as often as it is started; what cannot be started is not started again.
cat >"$work/broken" <<BROKEN
#!/bin/sh
echo >>"$work/started"
exit 9
BROKEN
printf '#!/there/is/no/such/shell\n' >"$work/unstartable"
chmod +x "$work/broken" "$work/unstartable"
refused 'an mpirun that ends' 5 'ended with status 9 before the job was done, 1 relaunch was made' --relaunch 1 \
    --mpirun "$work/broken" wordcount "$work/gate/input"
[ "$(wc -l <"$work/started")" = 2 ] && pass 'started twice' || fail 'started twice' "$(wc -l <"$work/started") times"
refused 'an mpirun that cannot be started' 5 'could not be started' --mpirun "$work/unstartable" wordcount "$work/gate/input"
says 'again' && fail 'not started again' 'it was' || pass 'not started again'
refused 'what the job says is final' 3 'nowhere' -n 2 wordcount "$work/nowhere"
says 'again' && fail 'final' 'it was started again' || pass 'final'

# One that hangs before a rank has said anything, or before all have started MPI, is ended, once for all.
# What rank 0 says when MPI has started is the end of it: this one hangs for longer, and then ends by itself.
stuck() { # NAME SECONDS PATTERN SCRIPT ARGUMENT…: the script is what is started as mpirun
    what=$1 seconds=$2 pattern=$3
    printf '#!/bin/sh\necho >>%s/started\n%s\n' "$work" "$4" >"$work/stuck"
    chmod +x "$work/stuck"
    shift 4
    rm -f "$work/started"
    refused "$what" 5 "$pattern" --start-timeout "$seconds" --mpirun "$work/stuck" "$@" wordcount "$work/gate/input" || return 1
    [ "$(wc -l <"$work/started")" = 1 ] && ! says 'started again' || fail "$what" 'it was started again'
}
say() { printf 'printf "\\036%%s %s 0\\n" "$TRIREME_LAUNCH" >&2' "$1"; }
no_rank='mpirun has started no rank' no_mpi='MPI has not started on all ranks'
stuck 'an mpirun that starts no rank' 300ms "error: $no_rank, so that mpirun was ended; the same command goes on" 'exec sleep 100' &&
    { says "$no_rank for 0.3 s: mpirun is ended" || fail "$what" 'it is not said'; }
stuck 'an mpirun that starts no rank, and does not end' 300ms "$no_rank" "trap '' TERM; sleep 100; sleep 100" -q
stuck 'MPI does not start' 3s "error: $no_mpi, so that mpirun was ended" "$(say began); exec sleep 100" &&
    { says "$no_mpi for 3 s: mpirun is ended" || fail "$what" 'it is not said'; }
stuck 'MPI has started' 2s 'mpirun ended with status 9' "$(say began); $(say ready); sleep 4; exit 9" --relaunch 0
cat >"$work/late" <<'LATE'
#!/bin/sh
[ "$OMPI_COMM_WORLD_RANK" = 0 ] || exec sleep 100
exec "$@"
LATE
chmod +x "$work/late"
# mpirun's last options come before the program: a rank starts by way of the script.
stuck 'a rank hangs before MPI' 3s "$no_mpi|$no_rank" "exec $mpirun \"\$@\"" -n 2 --mpirun-option "$work/late"
cat >"$work/heard" <<HEARD
#!/bin/sh
$mpirun "\$@" 2>"$work/heard.err"
got=\$?
cat "$work/heard.err" >&2
exit \$got
HEARD
chmod +x "$work/heard"
what='rank 0 says how far it is'
rm -rf "$work/out"
run_job "$what" 0 -n 2 --mpirun "$work/heard" wordcount "$work/gate/input" -o "$work/out" && {
    tr '\036' '@' <"$work/heard.err" | sed -n 's/^@[0-9a-f]* \(began\|ready\) .*/\1/p' | tr '\n' ' ' >"$work/signs"
    [ "$(cat "$work/signs")" = 'began ready ' ] && ! says 'began|ready' && nothing_left "$what" && pass "$what" ||
        fail "$what" "it says: $(cat "$work/signs")"
}

# --- Hosts that do not answer ---------------------------------------------------------------------

cat >"$work/agent" <<AGENT
#!/bin/sh
exit 255
AGENT
chmod +x "$work/agent"
printf 'localhost slots=2\nnowhere.invalid slots=3\n' >"$work/hosts"
OMPI_MCA_plm_rsh_agent=$work/agent
export OMPI_MCA_plm_rsh_agent
for how in "--host localhost:2,nowhere.invalid:3" "--hostfile $work/hosts"; do
    what="a host that is not there, ${how%% *}"
    rm -rf "$work/out"
    # shellcheck disable=SC2086
    run_job "$what" 0 -n 4 $how wordcount "$work/gate/input" -o "$work/out" || continue
    says '1 of 2 hosts do not answer and are left out: nowhere.invalid' || { fail "$what" 'it does not say which'; continue; }
    says '2 ranks are started, not 4' || { fail "$what" 'it does not say how many'; continue; }
    parts "$work/out" | sort | cmp -s - "$work/want" || { fail "$what" 'another result'; continue; }
    nothing_left "$what" && pass "$what"
done
refused 'no host is there' 5 'relaunch was made' --relaunch 1 --host nowhere.invalid:2 wordcount "$work/gate/input"
says 'no host answers: nowhere.invalid' && pass 'none answers' || fail 'none answers' 'it does not say so'
refused 'a hostfile that is not there' 3 'nofile' --hostfile "$work/nofile" wordcount "$work/gate/input"
refused 'a host that is a command' 5 'relaunch was made' --relaunch 1 --host "localhost,\$(touch $work/touched)" wordcount "$work/gate/input"
refused 'a host that is an option' 5 'relaunch was made' --relaunch 1 --host "-oProxyCommand=touch $work/touched" wordcount "$work/gate/input"
[ ! -e "$work/touched" ] && pass 'no command was run' || fail 'no command was run' 'it was'
unset OMPI_MCA_plm_rsh_agent

# --- The launcher is lost, or told to stop --------------------------------------------------------

what='the launcher is killed'
if begin && until_true noted 10; then
    kill -9 "$(launcher)"
    wait $job
    no_process_left_soon "$what" && {
        : >"$work/gate/open"
        launch &
        job=$!
        ended "$what" 0 && whole "$what" && pass "$what"
    }
fi

what='SIGTERM between two launches'
if begin && until_true noted 10; then
    kill -9 "$(mpirun_pid)"
    until_true says 'started again'
    kill -TERM "$(launcher)"
    ended "$what" 4 && no_process_left_soon "$what" && {
        says 'error: .*the same command goes on' || fail "$what" 'it does not say so'
        sed -i 's/"written_ms":[0-9]*/"written_ms":1/' "$work/out/.trireme/status.json"
        status 'of a job that was stopped' 4 'the same command goes on with it' "$work/out"
        : >"$work/gate/open"
        launch &
        job=$!
        ended "$what" 0 && whole "$what" && pass "$what"
    }
fi

# --- Status of what is none -----------------------------------------------------------------------

mkdir "$work/empty"
status 'of an empty directory' 3 "there is no job in '$work/empty'" "$work/empty"
status 'of a directory that is not there' 3 'there is no job in' "$work/nowhere"
status 'of nothing' 2 'error: which directory'
status 'with an unknown option' 2 "does not take '--yaml'" --yaml "$work/out"
record=$work/out/.trireme/status.json
cp "$record" "$work/record"
damaged() { # NAME PATTERN: with $work/bad as the record
    cp "$work/bad" "$record"
    status "$1" 3 "error: .*$2" "$work/out"
    status "$1, as JSON" 3 "error: .*$2" --json "$work/out"
    [ ! -s "$work/said" ] || fail "$1, as JSON" 'something was printed'
}
head -c 100 "$work/record" >"$work/bad"
damaged 'a record that is cut short' 'status.json. is damaged: no JSON'
printf '' >"$work/bad"
damaged 'an empty record' 'is damaged'
head -c 4096 /dev/urandom >"$work/bad"
damaged 'a record of random bytes' 'is damaged'
echo '{"a": [1, 2]}' >"$work/bad"
damaged 'a record of somebody else' 'is not the record of a job'
sed 's/"version":1/"version":9/' "$work/record" >"$work/bad"
damaged 'a record of a newer version' 'is of version 9'
cp "$work/record" "$record"
cp "$work/out/.trireme/identity" "$work/identity"
rm "$record"
rm "$work/out/_SUCCESS"
status 'without a record' 4 'left no record' "$work/out"
status 'without a record, as JSON' 4 'there is no record yet' --json "$work/out"
echo 'who?' >"$work/out/.trireme/identity"
status 'of a state directory that is damaged' 3 'not the identity of a job' "$work/out/.trireme"

rm -rf "$work/out"
run_job 'a job that fails' 1 -n 2 --max-attempts 1 -p how=exit "$kernels/kernel_bad.so" "$work/gate/input" -o "$work/out" &&
    status 'of a job that has failed' 1 ': failed, exit status 1$' "$work/out"

finish
