#!/bin/sh
# A process dies in front of its n-th call that changes the output, the state or a log: write, sync,
# rename, mkdir, unlink, open with O_CREAT (tests/support/crash_at.c). The same command is given again,
# and everything must be as if nothing had happened, for every n: parts and _SUCCESS byte by byte,
# no part to be seen that is not committed, no committed part made again, nothing left behind.
#
#   CRASH_EACH     calls of a role that are tried, drawn from TRM_TEST_SEED; `all`: every one; 7
#   CRASH_ONLY     one of them again, as a failure prints it: "CASE ROLE N HOW"; HOW is plain, torn (half of
#                  the write is done) or power (what is not synced is lost)
#   CRASH_CASES    of those below; all
# `make soak-crash` tries all.
. "${srcdir:-.}/tests/cluster/lib.sh"
LC_ALL=C
export LC_ALL
seed=${TRM_TEST_SEED:-1}
each=${CRASH_EACH:-7}
shim=$builddir/tests/support/.libs/crash_at.so
committed=$builddir/tests/cluster/committed
if [ "$sanitized" = 1 ]; then
    echo "skipped: a sanitizer wants to be preloaded first"
    exit 77
fi
[ -e "$shim" ] && [ -x "$committed" ] || { echo "skipped: $shim is not built"; exit 77; }

awk 'BEGIN { for (i = 0; i < 60; i++) print "a" i % 7, "b" i % 3, "the" }' >"$work/words"
"$trireme" gen records --ascii --bytes 6000 -o "$work/records" >/dev/null 2>&1 || { fail 'gen records' 'failed'; finish; }

# --- The cases: what is run, and which of its processes die -------------------------------------------
arguments() { # CASE
    case $1 in
    one) echo "-n 1 --executors 1 --split-size 200 --partitions 5 --relaunch 0 wordcount $work/words" ;;
    three) echo "-n 3 --executors 1 --split-size 200 --partitions 5 --relaunch 0 --election-timeout 200ms wordcount $work/words" ;;
    sorted) echo "-n 2 --executors 1 --split-size 1500 --partitions 3 --relaunch 0 terasort $work/records" ;;
    again) echo "-n 1 --executors 1 --split-size 200 --partitions 5 --relaunch 0 --overwrite wordcount $work/words" ;;
    apart) echo "-n 1 --executors 1 --split-size 400 --partitions 3 --relaunch 0 --state $work/state wordcount $work/words" ;;
    esac
}
roles() {
    case $1 in
    one) echo 'rank0 crew0' ;;
    three) echo 'rank0 rank1 crew1' ;;
    sorted) echo 'rank0 crew0' ;;
    again | apart) echo 'rank0' ;;
    esac
}

# run CASE [VARIABLE=VALUE…]: the command; its status is in $got.
run() {
    case=$1
    shift
    # shellcheck disable=SC2046
    env "$@" timeout -k 5 "$JOB_SECONDS" "$trireme" run $(arguments "$case") -o "$work/out" >"$work/stdout" 2>"$work/err"
    got=$?
}
# crash CASE ROLE N HOW: runs it with the shim. calls: how many there were; what: the last one.
crash() {
    rm -f "$work/note"
    head -c 65536 /dev/zero >"$work/note"
    run "$1" LD_PRELOAD="$shim" TRM_CRASH_NOTE="$work/note" TRM_CRASH_UNDER="$work/out:$work/state" TRM_CRASH_ROLE="$2" \
        TRM_CRASH_AT="$3" TRM_CRASH_HOW="$4"
    calls=$(od -An -tu8 -N 8 "$work/note" | tr -d ' ')
    dead=$(od -An -tu8 -j 8 -N 8 "$work/note" | tr -d ' ')
    what=$(head -c 512 "$work/note" | tail -c +17 | tr -d '\000' | sed "s|$work/||g")
}

# What must not depend on where a task ran.
manifest() { grep -o '"[a-z_0-9A-Z-]*":\|[^":]*"[^"]*"\|[0-9]*' "$1" | tr -d '\n' | sed 's/"shuffle_[a-z_]*":[0-9]*//g'; }
# wanted CASE: keeps what an undisturbed run makes.
wanted() {
    rm -rf "$work/out" "$work/state" "$work/want"
    run "$1"
    [ $got -eq 0 ] || { fail "$1" "the undisturbed run: exit status $got"; return 1; }
    mkdir "$work/want"
    cp "$work/out"/part-* "$work/want"
    manifest "$work/out/_SUCCESS" >"$work/want/manifest"
}
# What is there before the launch that dies.
prepare() {
    rm -rf "$work/out" "$work/state"
    [ "$1" != again ] || cp -r "$work/old" "$work/out"
    find "$work/out" -maxdepth 1 -name 'part-*' -printf '%i\n' 2>/dev/null >"$work/replaced"
}

# --- What must hold --------------------------------------------------------------------------------
known() { # what the log knows to be committed, from a copy of it
    rm -rf "$work/copy"
    cp -r "$1/log" "$work/copy" 2>/dev/null
    "$committed" "$work/copy"
}
# At any moment: what can be seen is committed and right; _SUCCESS only beside all of it.
seen_is_committed() {
    state=$work/out/.trireme
    [ ! -e "$work/state/log" ] || state=$work/state
    known "$state" >"$work/known" || { why="$(tail -n 1 "$work/known")"; return 1; }
    for part in "$work/out"/part-*; do
        [ -e "$part" ] || continue
        file=${part##*/}
        number=$(echo "${file#part-}" | sed 's/^0*\(.\)/\1/')
        [ "$1" = again ] && cmp -s "$part" "$work/old/$file" && continue # of the output that is replaced
        cmp -s "$part" "$work/want/$file" || { why="$file is there and is not right"; return 1; }
        grep -q "^part $number " "$work/known" || { why="$file is to be seen and is not committed"; return 1; }
    done
    [ -e "$work/out/_SUCCESS" ] || return 0
    [ "$1" = again ] && cmp -s "$work/out/_SUCCESS" "$work/old/_SUCCESS" && return 0
    manifest "$work/out/_SUCCESS" | cmp -s - "$work/want/manifest" || { why='_SUCCESS is there and is not right'; return 1; }
    for part in "$work/want"/part-*; do
        cmp -s "$part" "$work/out/${part##*/}" || { why="_SUCCESS is there and ${part##*/} is not"; return 1; }
    done
}
# The files of committed parts, wherever they lie: NUMBER INODE.
committed_files() {
    sed -n 's/^part \([0-9]*\) .*/\1/p' "$work/known" | while read -r number; do
        name=$(printf 'part-%05d' "$number")
        find "$work/out" "$work/out/.trireme/attempts" -maxdepth 1 -name "$name*" -printf "$number %i\n" 2>/dev/null
    done | awk 'FNR == NR { replaced[$1] = 1; next } !($2 in replaced)' "$work/replaced" -
}
all_is_right() {
    (cd "$work/out" && find . -maxdepth 1 -name 'part-*' | sort) >"$work/have"
    (cd "$work/want" && find . -maxdepth 1 -name 'part-*' | sort) | cmp -s - "$work/have" || { why="other parts: $(tr '\n' ' ' <"$work/have")"; return 1; }
    [ -e "$work/out/_SUCCESS" ] || { why='no _SUCCESS'; return 1; }
    seen_is_committed "$1" || return 1
    left=$(find "$work/out" "$work/state" -name '*.new' 2>/dev/null; find "$work/out" -path '*/attempts/*')
    [ -z "$left" ] || { why="left behind: $left"; return 1; }
    left=$(find "$work/out" "$work/state" -maxdepth 3 -path '*/log/e[0-9]*' 2>/dev/null | sed 's|.*/log/e\([0-9]*\).*|\1|' | sort -u | wc -l)
    [ "$left" = 1 ] || [ "$died_done" = 1 ] || { why="the logs of $left launches"; return 1; }
    no_process_left && no_scratch_left
}

# attempt CASE ROLE N HOW: false if something is wrong. reached=0: there is no n-th call.
attempt() {
    name="$1 $2 $3 $4"
    prepare "$1"
    crash "$@"
    reached=$dead
    no_process_left || { fail "$name" "$what: $why"; return 1; }
    [ "$dead" = 1 ] || [ $got -eq 0 ] || { fail "$name" "nobody died, exit status $got"; return 1; }
    [ $got -ne 124 ] || { fail "$name" "dead in $what: the launch does not end"; return 1; }
    seen_is_committed "$1" || { fail "$name" "dead in $what: $why"; return 1; }
    committed_files >"$work/files"
    died_done=0
    [ ! -e "$work/out/_SUCCESS" ] || died_done=1
    first=$got
    [ $got -eq 0 ] || run "$1"
    [ $got -eq 0 ] || { fail "$name" "dead in $what: exit status $first, then $got"; return 1; }
    all_is_right "$1" || { fail "$name" "dead in $what: exit status $first, then: $why"; return 1; }
    [ "$1$died_done" != again1 ] || return 0 # what is done is replaced, as it says
    while read -r number inode; do
        [ "$(stat -c %i "$work/out/$(printf 'part-%05d' "$number")")" = "$inode" ] || { fail "$name" "dead in $what: part $number was made again"; return 1; }
    done <"$work/files"
}

# draw MOST COUNT: so many different numbers from 1 to MOST, in order.
draw() {
    awk -v seed="$seed$1" -v most="$1" -v count="$2" 'BEGIN {
        srand(seed)
        for (i = 1; i <= most; i++) number[i] = i
        for (i = 1; i <= count && i <= most; i++) {
            j = i + int(rand() * (most - i + 1)); t = number[i]; number[i] = number[j]; number[j] = t; print number[i]
        }
    }' | sort -n
}

# --- The way through ----------------------------------------------------------------------------------
run one && wanted one && cp -r "$work/out" "$work/old" || finish
if [ -n "${CRASH_ONLY:-}" ]; then
    # shellcheck disable=SC2086
    set -- $CRASH_ONLY
    wanted "$1" && attempt "$@" && pass "$CRASH_ONLY: $what"
    finish
fi
for this in ${CRASH_CASES:-one three sorted again apart}; do
    wanted "$this" || continue
    for role in $(roles "$this"); do
        prepare "$this"
        crash "$this" "$role" 0 plain
        most=$calls tried=0 wrong=0
        [ $got -eq 0 ] && [ "$most" -gt 0 ] || { fail "$this $role" "with the shim alone: exit status $got, $most calls"; continue; }
        if [ "$each" = all ]; then numbers=$(seq $((most * 2))); else numbers=$(draw "$most" "$each"); fi
        beyond=0
        for n in $numbers; do
            case $(((n + seed) % 3)) in 0) how=plain ;; 1) how=torn ;; *) how=power ;; esac
            if attempt "$this" "$role" "$n" $how; then tried=$((tried + 1)); else wrong=$((wrong + 1)) && rm -rf "$work/scratch"/trireme-*; fi
            if [ "$reached" = 1 ]; then beyond=0; else beyond=$((beyond + 1)); fi
            [ $beyond -lt 3 ] || break
        done
        [ $wrong -gt 0 ] || pass "$this $role: $tried of about $most calls (TRM_TEST_SEED=$seed)"
    done
done
finish
