#!/bin/sh
# Bad input: one clear sentence that names the thing, its exit status, nothing left behind, no
# hang. Each case is one of the list in docs/running.md.
. "${srcdir:-.}/tests/cluster/lib.sh"
JOB_SECONDS=60
in=$work/in
mkdir "$in"
printf 'good\nbad\n' >"$in/two"
echo good >"$in/good"
: >"$in/empty"
: >"$in/empty2"

# Inputs.
refused 'missing input' 3 "/nowhere'? *.*(is not there|No such file)" -n 2 wordcount "$in/nowhere"
refused 'pattern without a match' 3 "nothing\*" -n 2 wordcount "$in/nothing*"
refused 'no input at all' 2 'input' -n 2 wordcount
refused 'empty inputs' 3 'empty' -n 2 wordcount "$in/empty" "$in/empty2"
refused 'missing list' 3 'nolist' -n 2 wordcount "@$in/nolist"
refused 'input is a device' 3 '/dev/zero' -n 2 wordcount /dev/zero
mkfifo "$in/pipe"
refused 'input is a pipe' 3 'pipe' -n 2 wordcount "$in/pipe"
if [ "$(id -u)" != 0 ]; then
    echo x >"$in/secret"
    chmod 0 "$in/secret"
    refused 'unreadable input' 3 'secret.*Permission denied' -n 2 wordcount "$in/secret"
else
    skip 'unreadable input' 'root reads everything'
fi
head -c 1234 /dev/zero >"$in/odd"
refused 'records that are not whole' 3 "odd.*100" -n 2 terasort "$in/odd"
printf 'some text' | gzip >"$in/broken.gz"
head -c 20 "$in/broken.gz" >"$in/short.gz"
begun=1
refused 'corrupt gzip' 3 'short.gz' -n 2 wordcount "$in/short.gz"
head -c 5000 /dev/zero | tr '\0' x >"$in/long"
refused 'line over the limit' 1 'long.*(--line-max|1024)' -n 2 --line-max 1K wordcount "$in/long"
begun=0

# Kernels.
refused 'unknown job' 3 "no job 'nosuchjob'" -n 2 nosuchjob "$in/good"
refused 'kernel that is not there' 3 'nosuch.so' -n 2 ./nosuch.so "$in/good"
refused 'not a shared object' 3 'not a shared object' -n 2 "$in/good" "$in/good"
refused 'missing symbol' 3 'trm_exported_job' -n 2 "$kernels/kernel_nothing.so" "$in/good"
refused 'unresolved symbol' 3 'nowhere_to_be_found' -n 2 "$kernels/kernel_unresolved.so" "$in/good"
refused 'another interface' 3 'version|interface' -n 2 "$kernels/kernel_old.so" "$in/good"
# A kernel that one rank does not see; mpirun starts each rank by way of a script.
cat >"$work/rank" <<'END'
#!/bin/sh
[ "$OMPI_COMM_WORLD_RANK" != 1 ] || export TRIREME_KERNEL_DIR=/nowhere
exec "$@"
END
cat >"$work/by_script" <<END
#!/bin/sh
for argument; do
    shift
    case \$argument in */trireme) set -- "\$@" "$work/rank" ;; esac
    set -- "\$@" "\$argument"
done
exec "$mpirun" "\$@"
END
chmod +x "$work/rank" "$work/by_script"
refused 'a kernel that one rank does not see' 3 "rank 1 on .*no job 'wordcount' in /nowhere" -n 3 --mpirun "$work/by_script" wordcount "$in/good"

# Options and parameters.
name='wrong options in an mpirun of one'\''s own, the rank that says so is the last'
timeout -k 60 "$JOB_SECONDS" "$mpirun" --oversubscribe -n 3 sh -c '[ "$OMPI_COMM_WORLD_RANK" != 0 ] || sleep 1; exec "$@"' sh \
    "$trireme" run --frob wordcount "$in/good" -o "$work/out" >"$work/stdout" 2>"$work/err"
got=$?
[ $got -eq 2 ] && [ "$(grep -c 'error: unknown option --frob' "$work/err")" = 1 ] && nothing_left "$name" && pass "$name" ||
    fail "$name" "exit status $got, or not said once"
refused 'unknown option' 2 'unknown option --frob' -n 2 --frob wordcount "$in/good"
refused 'number out of range' 2 'out of range' -n 2 --partitions 0 wordcount "$in/good"
refused 'tasks of a job with input' 2 "'wordcount' has some: say --split-size" -n 2 --tasks 3 wordcount "$in/good"
refused 'unknown parameter' 2 "no parameter 'nosuch'" -n 2 -p nosuch=1 wordcount "$in/good"
refused 'parameter that must be given' 2 "pattern" -n 2 grep "$in/good"
refused 'parameter of another type' 2 "records" -n 2 -p records=many teragen
refused 'too little memory' 2 'memory' -n 2 --memory 16M --executors 64 wordcount "$in/good"
refused 'no bad records' 2 'skip-bad-records 0 is out of range: 1 to 65536' -n 2 --skip-bad-records=0 wordcount "$in/good"
refused 'too many bad records' 2 'skip-bad-records .* is out of range' -n 2 --skip-bad-records=65537 wordcount "$in/good"
refused 'bad records that are no number' 2 "whole number, not 'some'" -n 2 --skip-bad-records=some wordcount "$in/good"
refused 'speculate how' 2 'speculate takes on or off' -n 2 --speculate perhaps wordcount "$in/good"

# Outputs.
mkdir "$work/foreign"
echo mine >"$work/foreign/file"
for option in '' --overwrite; do # no job is in it: it stays whatever is asked for
    what="foreign output${option:+, $option}"
    run_job "$what" 3 -n 2 $option wordcount "$in/good" -o "$work/foreign" &&
        { grep -q 'foreign.*no job in it: remove it yourself' "$work/err" && ! grep -q -- --overwrite "$work/err" &&
            [ "$(ls -A "$work/foreign")" = file ] && pass "$what" || fail "$what" 'not refused in one sentence, or changed'; }
done
run_job 'output is a file' 3 -n 2 wordcount "$in/good" -o "$in/good" &&
    { grep -q 'error: .*good' "$work/err" && [ "$(cat "$in/good")" = good ] && pass 'output is a file' ||
        fail 'output is a file' 'not said, or changed'; }
run_job 'output below a file' 3 -n 2 wordcount "$in/good" -o "$in/good/out" && pass 'output below a file'
ln -s "$work/foreign" "$work/link"
run_job 'output is a link' 3 -n 2 wordcount "$in/good" -o "$work/link" --overwrite
[ -e "$work/foreign/file" ] && pass 'a link is not followed by --overwrite' || fail 'a link is not followed by --overwrite' 'the file is gone'
refused 'input within the output' 3 'out/x' -n 2 wordcount "$work/out/x"
if run_job 'no such scratch' 5 -n 2 --scratch "$work/noscratch" wordcount "$in/good" -o "$work/out"; then
    grep -q 'noscratch' "$work/err" && pass 'no such scratch' || fail 'no such scratch' 'not named'
fi

# Full disks, where a small file system can be mounted.
mkdir "$work/small"
if mount -t tmpfs -o size=1m trireme-test "$work/small" 2>/dev/null; then
    head -c 8000000 /dev/urandom >"$in/records"
    head -c 8000000 /dev/urandom | od -An -tx8 -w16 >"$in/much"
    begun=1
    refused 'scratch is full' '[15]' 'No space left|full' -n 2 --max-attempts 1 --scratch "$work/small" terasort "$in/records"
    begun=0
    rm -rf "$work/small"/*
    run_job 'output is full' '[15]' -n 2 --max-attempts 1 wordcount "$in/much" -o "$work/small/out" \
        --state "$work/state" && { [ ! -e "$work/small/out/_SUCCESS" ] && grep -Eq 'No space left|full' "$work/err" &&
            pass 'output is full' || fail 'output is full' 'not said, or there is a _SUCCESS'; }
    umount "$work/small"
else
    skip 'full disks' 'no file system can be mounted here'
fi

# Kernels that misbehave: the record "bad" is at byte 5.
bad=$kernels/kernel_bad.so
for how in segfault:SIGSEGV abort:SIGABRT exit:'exited with status 7' late:'emit' key:'key of 81920 bytes' \
    value:'value of 81920 bytes' param:"'nothing'" say:"the record is 'bad'"; do
    refused "kernel: ${how%%:*}" 1 "${how#*:}" -n 2 --record-max 64K --max-attempts 2 -p "how=${how%%:*}" "$bad" "$in/two"
    [ "${how%%:*}" = late ] || grep -q "$in/two" "$work/err" || fail "kernel: ${how%%:*}" 'the input is not named'
done
grep -q 'these are my last words' "$work/err" || fail "kernel's last words" 'not shown'
refused 'kernel: loop' 1 'time|longer' -n 2 --max-attempts 1 --task-timeout 300ms -p how=loop "$bad" "$in/two"
if [ "$sanitized" = 1 ]; then
    skip 'kernel: leak' 'with a sanitizer there is no limit of a process'
else
    refused 'kernel: leak' 1 'memory' -n 2 --max-attempts 1 --memory 64M --executors 1 -p how=leak "$bad" "$in/two"
fi

# Without an mpirun.
rm -rf "$work/out"
timeout 60 env PATH="$work" LD_LIBRARY_PATH="$builddir/.libs" "$builddir/.libs/trireme" run -n 2 wordcount "$in/good" -o "$work/out" 2>"$work/err"
code=$?
{ [ $code -eq 5 ] && grep -q 'no mpirun on the PATH' "$work/err" && [ ! -e "$work/out" ]; } && pass 'no mpirun on the PATH' ||
    fail 'no mpirun on the PATH' "exit status $code"

finish
