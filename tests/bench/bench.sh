#!/bin/sh
# Whole jobs, measured: `make bench`. Prints its results as Markdown on standard output, what
# it is doing on standard error.
#
# Times are of whole processes by the wall clock, mpirun's start included, medians of RUNS.
# What is compared is run in turn, A B A B …, in the same minutes on the same files, which lie
# in the page cache; nothing is dropped. Every result is checked: parts against the yardstick's
# output, byte by byte.
#
#   BENCH_BYTES    size of the inputs; 1G
#   BENCH_ONLY     sections, with commas: wordcount,terasort,tasks,start,idle,memory,scaling,compress,core,failover
#   BENCH_RUNS     runs of each; 5
#   BENCH_WARM     bytes of memory that are touched before each run; three times BENCH_BYTES
#   BENCH_DIR      where a temporary directory is made; $TMPDIR, or /tmp
#   BENCH_TASKS    empty tasks; 1000000
#   BENCH_MEMORY   of a rank in terasort (and twice that for sort); 256M
#   BENCH_KILLS    leaders that are killed, in each of two ways; 50
#   BENCH_PACED_TASKS, BENCH_RESUMED_TASKS   of the jobs that lose ranks, that go on; 2500, 100000
#   BENCH_LIMIT    of a rank in the section on memory, whose input is 4 times BENCH_BYTES; 128M
set -eu

here=$(cd "${builddir:-.}" && pwd)
source=$(cd "${srcdir:-.}" && pwd)
bytes=${BENCH_BYTES:-1G}
runs=${BENCH_RUNS:-5}
tasks=${BENCH_TASKS:-1000000}
memory=${BENCH_MEMORY:-256M}
limit=${BENCH_LIMIT:-128M}
sections=${BENCH_ONLY:-wordcount,terasort,tasks,start,idle,memory,scaling,compress,core,failover}
trireme=$here/trireme
TRIREME_KERNEL_DIR=$here/examples/.libs
OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
OMPI_MCA_rmaps_base_oversubscribe=1
LC_ALL=C
export TRIREME_KERNEL_DIR OMPI_ALLOW_RUN_AS_ROOT OMPI_ALLOW_RUN_AS_ROOT_CONFIRM \
    OMPI_MCA_rmaps_base_oversubscribe LC_ALL

dir=$(mktemp -d "${BENCH_DIR:-${TMPDIR:-/tmp}}/trireme-bench.XXXXXX")
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' HUP INT TERM
TMPDIR=$dir
export TMPDIR

# --- Numbers ------------------------------------------------------------------------

say() { printf '%s\n' "$*" >&2; }
die() {
    say "bench: $*"
    [ ! -s "$dir/said" ] || tail -n 20 "$dir/said" >&2
    exit 1
}
# calc EXPRESSION [FORMAT]
calc() { awk "BEGIN { printf \"${2:-%.2f}\", $1 }"; }
size_of() { stat -c %s "$1"; }
in_bytes() {
    echo "$1" | awk '{ n = $1 + 0; u = toupper(substr($1, length($1)))
        printf "%.0f", n * (u == "K" ? 1024 : u == "M" ? 1048576 : u == "G" ? 1073741824 : 1) }'
}
warm_bytes=$(in_bytes "${BENCH_WARM:-0}")
[ "$warm_bytes" != 0 ] || warm_bytes=$((3 * $(in_bytes "$bytes")))
mega() { calc "$1 / 1e6" %.0f; }
now() { date +%s.%N; }

# median NAME: of its runs, in seconds.
median() {
    sort -n "$dir/times/$1" | awk '{ v[NR] = $1 }
        END { printf "%.3f", NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'
}
spread() { sort -n "$dir/times/$1" | awk 'NR == 1 { low = $1 } END { printf "%.2f–%.2f", low, $1 }'; }
rate() { calc "$2 / 1e6 / $(median "$1")" %.0f; }
ratio() { calc "$(median "$2") / $(median "$1")"; }

# once NAME: runs the function run_NAME, and adds its time. First all find the machine alike: the
# device has nothing left to do, and memory that was free is as warm for one as for the other (a
# virtual machine gives it back to its host, and every first touch of a page then costs microseconds,
# which would fall on whoever does not come after a job that has just freed much).
once() {
    "clean_$1"
    sync
    head -c "$warm_bytes" /dev/zero >"$dir/warm"
    rm "$dir/warm"
    begin=$(now)
    "run_$1" >"$dir/said" 2>&1 || die "$1 failed"
    end=$(now)
    calc "$end - $begin" '%.4f\n' >>"$dir/times/$1"
}
# in_turn NAME…: all of them, A B A B …, as often as `runs` says.
in_turn() {
    for name in "$@"; do : >"$dir/times/$name"; done
    for run in $(seq "$runs"); do
        for name in "$@"; do
            say "  $name, run $run of $runs"
            once "$name"
        done
    done
}

# --- What is run --------------------------------------------------------------------

# job OUT RANKS ARGUMENT…: a job into a directory that is not there.
job() {
    out=$1 ranks=$2
    shift 2
    "$trireme" run -n "$ranks" --quiet -o "$out" "$@"
}
clean() { rm -rf "$@"; }
made() { [ -e "$1" ] || die "$1 has not been made"; }

make_text() {
    [ -e "$dir/text" ] || "$trireme" gen text --bytes "$bytes" -o "$dir/text"
    cat "$dir/text" >/dev/null
}
# make_records FILE SIZE
make_records() {
    [ -e "$1" ] || "$trireme" gen records --ascii --bytes "$2" -o "$1"
    cat "$1" >/dev/null
}
# counter OUT NAME: of the job's manifest.
counter() { sed -n "s/.*\"$2\" *: *\([0-9][0-9]*\).*/\1/p" "$1/_SUCCESS" | head -n 1 | grep . || echo 0; }
# same_counts OUT: the parts, merged, are what count_two has written.
same_counts() {
    sort -m "$1"/part-* | cmp -s - "$dir/count_two" || die "$1: the counts are wrong"
}
same_records() {
    cat "$1"/part-* | cmp -s - "$dir/sorted" || die "$1: the records are not as sort has them"
}

run_wordcount_2() { job "$dir/wc2" 2 wordcount "$dir/text"; }
clean_wordcount_2() { clean "$dir/wc2"; }
run_wordcount_1() { job "$dir/wc1" 1 wordcount "$dir/text"; }
clean_wordcount_1() { clean "$dir/wc1"; }
run_wordcount_4() { job "$dir/wc4" 4 wordcount "$dir/text"; }
clean_wordcount_4() { clean "$dir/wc4"; }
run_count_two() { "$here/tests/bench/count_two" "$dir/text" "$dir/count_two"; }
clean_count_two() { clean "$dir/count_two"; }

# Each mawk counts half of the lines' bytes; their counts are sorted and added up.
run_two_mawks() {
    half=$(($(size_of "$dir/text") / 2))
    { head -c "$half"; head -n 1; } <"$dir/text" | mawk "$mawk_count" >"$dir/mawk.0" &
    first=$!
    tail -c +$((half + 1)) "$dir/text" | tail -n +2 | mawk "$mawk_count" >"$dir/mawk.1"
    wait "$first"
    sort "$dir/mawk.0" "$dir/mawk.1" |
        mawk -F '\t' '$1 != word { if (NR > 1) print word "\t" n; word = $1; n = 0 } { n += $2 }
            END { if (NR) print word "\t" n }' >"$dir/mawk"
}
mawk_count='{ for (i = 1; i <= NF; i++) n[$i]++ } END { for (w in n) print w "\t" n[w] }'
clean_two_mawks() { clean "$dir/mawk" "$dir/mawk.0" "$dir/mawk.1"; }

run_terasort_2() { job "$dir/ts2" 2 --memory "$memory" terasort "$dir/records"; }
clean_terasort_2() { clean "$dir/ts2"; }
run_terasort_1() { job "$dir/ts1" 1 --memory "$memory" terasort "$dir/records"; }
clean_terasort_1() { clean "$dir/ts1"; }
run_terasort_4() { job "$dir/ts4" 4 --memory "$memory" terasort "$dir/records"; }
clean_terasort_4() { clean "$dir/ts4"; }
run_sort() { sort --parallel=2 -S "$sort_bytes" -T "$dir" -o "$dir/sorted" "$dir/records"; }
clean_sort() { clean "$dir/sorted"; }
run_radix_two() { "$here/tests/bench/radix_two" "$dir/records" "$dir/radix"; }
clean_radix_two() { clean "$dir/radix.0" "$dir/radix.1"; }
run_radix_two_sync() { "$here/tests/bench/radix_two" --sync "$dir/records" "$dir/radix"; }
clean_radix_two_sync() { clean_radix_two; }

empty=$here/tests/bench/.libs/kernel_empty.so
run_tasks() { job "$dir/tasks" 2 --tasks "$tasks" "$empty"; }
clean_tasks() { clean "$dir/tasks"; }
run_one_task() { job "$dir/one" 2 --tasks 1 "$empty"; }
clean_one_task() { clean "$dir/one"; }
run_empty_mpi() { "$mpirun" -n 2 "$here/tests/bench/empty_mpi"; }
clean_empty_mpi() { :; }
mpirun=${MPIRUN:-mpirun}

for codec in none zlib auto; do
    eval "run_terasort_$codec() { job '$dir/ts-$codec' 2 --memory $memory --compress $codec terasort '$dir/records'; }
        clean_terasort_$codec() { clean '$dir/ts-$codec'; }"
done

# --- Sections -----------------------------------------------------------------------

about_machine() {
    echo "## Machine"
    echo
    echo "- $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), $(nproc) cores," \
        "$(free -g | awk '/^Mem/ { print $2 }') GiB of memory, Linux $(uname -r)"
    echo "- inputs and outputs on $(stat -f -c %T "$dir"), inputs in the page cache"
    echo "- $("$mpirun" --version | head -n 1); $(sort --version | head -n 1);" \
        "$(mawk -W version 2>/dev/null | head -n 1)"
    echo "- compiled by $("${CC:-gcc}" --version | head -n 1)"
    echo "- trireme $(cd "$source" && git describe --always --dirty 2>/dev/null || echo of a release);" \
        "load before the start: $(cut -d ' ' -f 1-3 /proc/loadavg)"
    echo "- medians of $runs runs; in brackets the fastest and the slowest"
    echo
}

# row NAME BYTES TEXT [OF]: a line of a table of rates; OF: how many times as fast as it.
row() {
    echo "| $3 | $(median "$1") ($(spread "$1")) | $(rate "$1" "$2") |${4:+ $(ratio "$1" "$4") |}"
}

section_wordcount() {
    make_text
    size=$(size_of "$dir/text")
    set -- wordcount_2 count_two
    ! command -v mawk >/dev/null 2>&1 || set -- "$@" two_mawks
    in_turn "$@"
    same_counts "$dir/wc2"
    [ ! -e "$dir/mawk" ] || cmp -s "$dir/mawk" "$dir/count_two" || die "mawk has counted otherwise"
    echo "## Word count"
    echo
    echo "$(mega "$size") MB of text (\`trireme gen text --bytes $bytes\`: 100,000 words, Zipf's law," \
        "skew 1), $(wc -l <"$dir/count_two") of them different; \`trireme run -n 2 wordcount\`."
    echo
    echo "| | s | MB/s | times count_two |"
    echo "| --- | --- | --- | --- |"
    row wordcount_2 "$size" "trireme, 2 ranks" count_two
    row count_two "$size" "count_two (two processes, by hand)" count_two
    [ ! -e "$dir/mawk" ] || row two_mawks "$size" "two mawks" count_two
    echo
    echo "Goals: at least 250 MB/s (is $(rate wordcount_2 "$size")), at least 0.60 of count_two" \
        "(is $(ratio wordcount_2 count_two)). Others, measured earlier on a machine like the author's over" \
        "256 MiB: a plain one-process counter 141 MB/s, Mimir with combiner 64, two mawks 62, Thrill 54," \
        "MR-MPI 51, KMR 27."
    echo
}

section_terasort() {
    make_records "$dir/records" "$bytes"
    size=$(size_of "$dir/records")
    sort_bytes=$((2 * $(in_bytes "$memory")))
    in_turn terasort_2 sort radix_two radix_two_sync
    same_records "$dir/ts2"
    cat "$dir/radix.0" "$dir/radix.1" | cmp -s - "$dir/sorted" || die "radix_two has sorted otherwise"
    echo "## TeraSort"
    echo
    echo "$((size / 100)) records of 100 bytes (\`trireme gen records --ascii\`: printable keys, a line each, so" \
        "that sort(1) sorts the same bytes); \`trireme run -n 2 --memory $memory terasort\`;" \
        "\`LC_ALL=C sort --parallel=2 -S $((sort_bytes >> 20))M\`. trireme syncs its parts before it" \
        "commits them; sort does not; radix_two is given both ways, and takes what memory it wants."
    echo
    echo "| | s | MB/s | times sort |"
    echo "| --- | --- | --- | --- |"
    row terasort_2 "$size" "trireme, 2 ranks, synced" sort
    row sort "$size" "sort --parallel=2, not synced" sort
    row radix_two "$size" "radix_two (two threads, by hand), not synced" sort
    row radix_two_sync "$size" "radix_two --sync" sort
    echo
    echo "Goals: at least 2.00 times sort (is $(ratio terasort_2 sort)), at least 0.50 of radix_two" \
        "(is $(ratio terasort_2 radix_two); of radix_two --sync $(ratio terasort_2 radix_two_sync))."
    echo
}

# peak FIELD RANK NAME FILE: the largest of a field over the processes of a report.
peak() {
    awk -v field="$1" -v rank="$2" -v name="$3" \
        '(rank == "" || $3 == rank) && $7 ~ name && $field > most { most = $field } END { print most + 0 }' "$4"
}

section_tasks() {
    in_turn tasks one_task
    clean_tasks
    "$here/tests/bench/peak_memory" "$dir/report.many" "$trireme" run -n 2 --quiet --tasks "$tasks" "$empty" \
        -o "$dir/tasks" >"$dir/said" 2>&1 || die "the tasks failed"
    clean_one_task
    "$here/tests/bench/peak_memory" "$dir/report.one" "$trireme" run -n 2 --quiet --tasks 1 "$empty" \
        -o "$dir/one" >"$dir/said" 2>&1 || die "the task failed"
    # The rank itself: neither its crew nor what it was started by.
    many=$(peak 6 0 '^(lt-)?trireme$' "$dir/report.many")
    one=$(peak 6 0 '^(lt-)?trireme$' "$dir/report.one")
    echo "## Empty tasks"
    echo
    echo "$tasks map tasks that do nothing, 2 ranks, the durable log on: \`trireme run -n 2 --tasks $tasks\`" \
        "of tests/bench/kernel_empty.c. The rate is of the whole job less that of one task."
    echo
    echo "| | s |"
    echo "| --- | --- |"
    echo "| $tasks tasks | $(median tasks) ($(spread tasks)) |"
    echo "| 1 task | $(median one_task) ($(spread one_task)) |"
    echo
    echo "- $(calc "$tasks / ($(median tasks) - $(median one_task))" %.0f) tasks/s;" \
        "$(calc "$tasks / $(median tasks)" %.0f) with the start (goal: at least 50,000)"
    echo "- rank 0's own process had $many KiB at most, with one task $one KiB:" \
        "$(calc "($many - $one) * 1024 / $tasks" %.0f) bytes a task (goal: under 200)"
    echo
}

section_start() {
    in_turn one_task empty_mpi
    echo "## A job with nothing to do"
    echo
    echo "| | s |"
    echo "| --- | --- |"
    echo "| \`trireme run -n 2\`, one empty task | $(median one_task) ($(spread one_task)) |"
    echo "| \`mpirun -n 2\`, MPI_Init and MPI_Finalize | $(median empty_mpi) ($(spread empty_mpi)) |"
    echo
    echo "$(calc "$(median one_task) - $(median empty_mpi)") s more than an empty mpirun (goal: under 0.30)."
    echo
}

section_memory() {
    large=$((4 * $(in_bytes "$bytes")))
    make_records "$dir/large" "$large"
    clean "$dir/ts-large"
    say "  terasort of $large bytes, --memory $limit"
    "$here/tests/bench/peak_memory" "$dir/report.large" "$trireme" run -n 2 --quiet --memory "$limit" terasort \
        "$dir/large" -o "$dir/ts-large" >"$dir/said" 2>&1 || die "terasort with little memory failed"
    [ "$(cat "$dir/ts-large"/part-* | wc -c)" -eq "$(size_of "$dir/large")" ] || die "terasort with little memory has lost records"
    cat "$dir/ts-large"/part-* | sort -c || die "terasort with little memory has not sorted"
    allowed=$(($(in_bytes "$limit") / 1024))
    echo "## Memory"
    echo
    echo "TeraSort of $(mega "$large") MB, 2 ranks, \`--memory $limit\` a rank. Every process is sampled each 10 ms" \
        "(tests/bench/peak_memory.c). own: anonymous and shared memory, shared pages in equal parts;" \
        "pss: with mapped files, which the system can drop; hwm: what the kernel has seen mapped at any" \
        "time, shared and file pages counted whole."
    echo
    echo "| process | rank | own MiB | of the limit | pss MiB | hwm MiB |"
    echo "| --- | --- | --- | --- | --- | --- |"
    sort -k 3,3 -k 4,4nr "$dir/report.large" | awk -v allowed="$allowed" '
        $3 != "-" { printf "| %s | %s | %.1f | %.0f%% | %.1f | %.1f |\n", $7, $3, $4 / 1024, 100 * $4 / allowed,
            $5 / 1024, $6 / 1024; sum[$3] += $4 }
        END { for (rank in sum) printf "| all of rank %s, at most | %s | %.1f | %.0f%% | | |\n", rank, rank,
            sum[rank] / 1024, 100 * sum[rank] / allowed }'
    echo
    echo "The largest process has $(calc "100 * $(peak 4 '' . "$dir/report.large") / $allowed" %.0f)% of its" \
        "rank's limit (goal: at most 115%)."
    echo
    clean "$dir/ts-large" "$dir/large"
}

section_scaling() {
    make_text
    make_records "$dir/records" "$bytes"
    text_size=$(size_of "$dir/text")
    size=$(size_of "$dir/records")
    in_turn wordcount_1 wordcount_2 wordcount_4 terasort_1 terasort_2 terasort_4
    for ranks in 1 4; do
        sort -m "$dir/wc$ranks"/part-* >"$dir/merged"
        sort -m "$dir/wc2"/part-* | cmp -s - "$dir/merged" || die "$ranks ranks count otherwise"
        cat "$dir/ts2"/part-* >"$dir/merged"
        cat "$dir/ts$ranks"/part-* | cmp -s - "$dir/merged" || die "$ranks ranks sort otherwise"
    done
    rm -f "$dir/merged"
    echo "## Ranks"
    echo
    echo "The same inputs as above on $(nproc) cores; more ranks than cores are more than the machine has."
    echo
    echo "| ranks | word count s | MB/s | times 1 rank | TeraSort s | MB/s | times 1 rank |"
    echo "| --- | --- | --- | --- | --- | --- | --- |"
    for ranks in 1 2 4; do
        echo "| $ranks | $(median wordcount_$ranks) | $(rate wordcount_$ranks "$text_size") |" \
            "$(ratio wordcount_$ranks wordcount_1) | $(median terasort_$ranks) | $(rate terasort_$ranks "$size") |" \
            "$(ratio terasort_$ranks terasort_1) |"
    done
    echo
}

section_compress() {
    make_records "$dir/records" "$bytes"
    size=$(size_of "$dir/records")
    in_turn terasort_none terasort_zlib terasort_auto
    echo "## Compression"
    echo
    echo "TeraSort as above, \`--memory $memory\`, 2 ranks on one host, by \`--compress\`; bytes as the job has counted them."
    echo
    echo "| | s | MB/s | runs, raw MB | runs, written MB | read in place MB | over MPI MB | merge passes MB |"
    echo "| --- | --- | --- | --- | --- | --- | --- | --- |"
    for codec in none zlib auto; do
        out=$dir/ts-$codec
        echo "| $codec | $(median terasort_$codec) ($(spread terasort_$codec)) | $(rate terasort_$codec "$size") |" \
            "$(mega "$(counter "$out" run_bytes_raw)") | $(mega "$(counter "$out" run_bytes_stored)") |" \
            "$(mega "$(counter "$out" shuffle_local_bytes)") | $(mega "$(counter "$out" shuffle_remote_bytes)") |" \
            "$(mega "$(counter "$out" merge_bytes)") |"
    done
    echo
}

# ticks PID: of the processor, of the system's 100 a second.
ticks() { awk '{ print $14 + $15 }' "/proc/$1/stat"; }
# ranks_of OUT: "leads PID" or "follows PID".
ranks_of() {
    leading=$(field "$1" leader_pid)
    cat "$1/.trireme/status.json" 2>/dev/null | tr '{' '\n' | sed -n 's/.*"rank":[0-9]*,.*"pid":\([0-9]*\).*"state":"ready".*/\1/p' |
        while read -r pid; do [ "$pid" = "$leading" ] && echo "leads $pid" || echo "follows $pid"; done
}
all_idle() { [ "$(ranks_of "$1" | wc -l)" -eq 4 ] && [ "$(field "$1" phase)" = mapping ]; }
# Ranks whose executors sleep.
section_idle() {
    seconds=10
    clean "$dir/idle"
    "$trireme" run --quiet -n 4 --executors 1 --tasks 4 -p ms=$((seconds * 1000 + 8000)) -o "$dir/idle" "$paced" >"$dir/said" 2>&1 &
    running=$!
    wait_until 'a job whose ranks are idle' all_idle "$dir/idle"
    sleep 3 # what a beginning costs is over
    ranks_of "$dir/idle" | while read -r role pid; do echo "$role $pid $(ticks "$pid")"; done >"$dir/idle.ranks"
    sleep "$seconds"
    echo "## Idle ranks"
    echo
    echo "4 ranks on 2 cores whose executors sleep, their own processes for $seconds s: the share of a core."
    echo
    echo "| | % |"
    echo "| --- | --- |"
    while read -r role pid before; do
        echo "| $role | $(calc "($(ticks "$pid") - $before) / $seconds") |"
    done <"$dir/idle.ranks"
    echo
    echo "Goal: under 2."
    echo
    wait "$running" || die 'the job whose ranks are idle failed'
}

section_core() {
    echo "## Consensus and the log by themselves"
    echo
    echo '```'
    "$here/tests/bench/bench_raft"
    echo
    "$here/tests/bench/bench_log" "$dir"
    echo '```'
    echo
}

# shellcheck source=tests/bench/bench_failover.sh
. "$source/tests/bench/bench_failover.sh"

made "$trireme"
made "$here/tests/bench/count_two"
mkdir "$dir/times"
about_machine
for section in $(echo "$sections" | tr , ' '); do
    case $section in
    wordcount | terasort | tasks | start | idle | memory | scaling | compress | core | failover) ;;
    *) die "there is no section '$section'" ;;
    esac
    say "bench: $section"
    "section_$section"
done
