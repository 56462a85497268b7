#!/bin/sh
# The yardsticks of tests/bench are right: count_two against sort and uniq, radix_two against
# sort. TRM_TEST_SEED replays a run.
set -eu
here=${builddir:-.}/tests/bench
seed=${TRM_TEST_SEED:-1}
LC_ALL=C
export LC_ALL
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' HUP INT TERM

wrong() {
    echo "$* (TRM_TEST_SEED=$seed)"
    exit 1
}

# count WHAT: text on standard input.
count() {
    cat >"$dir/text"
    tr -s ' \t\n\v\f\r' '\n\n\n\n\n\n' <"$dir/text" | grep -a . | sort | uniq -c |
        awk '{ print $2 "\t" $1 }' >"$dir/expected" || true
    "$here/count_two" "$dir/text" "$dir/counted" 2>"$dir/said" || wrong "count_two failed: $(cat "$dir/said")"
    cmp -s "$dir/expected" "$dir/counted" || wrong "count_two counted $1 wrong"
}

# draw LINES WORDS MOST: lines of words of 1 … MOST letters, white space of all kinds between.
draw() {
    awk -v seed="$seed$1" -v lines="$1" -v words="$2" -v most="$3" 'BEGIN {
        srand(seed)
        split(" |  |\t|\r|\v|\f", gap, "|")
        for (i = 0; i < lines; i++) {
            line = ""
            for (n = int(rand() * 12); n > 0; n--) {
                w = int(exp(rand() * log(words)))
                word = substr("abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz", 1 + w % 7, 1 + w * 31 % most) w
                line = line word gap[1 + int(rand() * 6)]
            }
            print line
        }
    }'
}

count "nothing" </dev/null
printf 'one' | count "one word"
printf ' \n\t ' | count "white space"
printf 'abcdefghijklmnop abcdefghijklmnopq\nabcdefghijklmnopr abcdefghijklmnop' | count "words around 16 bytes"
draw 2000 100 12 | count "short words"
draw 3000 2000 40 | count "long words"
draw 60000 300000 14 | count "many words" # more than the first table has room for
{ head -c 700000 /dev/zero | tr '\0' x; echo; draw 100 50 9; } | count "a word longer than a piece"
cat "${srcdir:-.}"/*/*.h "${srcdir:-.}"/*/*.c | count "source code"

# sort_records WHAT: records of 99 bytes and a newline on standard input.
sort_records() {
    cat >"$dir/records"
    sort -s -t '
' -k 1.1,1.10 "$dir/records" >"$dir/expected"
    "$here/radix_two" "$dir/records" "$dir/sorted" 2>"$dir/said" || wrong "radix_two failed: $(cat "$dir/said")"
    cat "$dir/sorted.0" "$dir/sorted.1" >"$dir/sorted"
    cmp -s "$dir/expected" "$dir/sorted" || wrong "radix_two sorted $1 wrong"
}

# keys RECORDS LETTERS: random keys of so many different letters.
keys() {
    awk -v seed="$seed$1" -v records="$1" -v letters="$2" 'BEGIN {
        srand(seed)
        for (i = 0; i < records; i++) {
            key = ""
            for (k = 0; k < 10; k++)
                key = key sprintf("%c", 33 + int(rand() * letters))
            printf "%s  %032X  %053d\n", key, i, i
        }
    }'
}

keys 1 90 | sort_records "one record"
keys 3 90 | sort_records "three records"
keys 20000 90 | sort_records "random keys"
keys 20000 2 | sort_records "keys that repeat"
keys 5000 1 | sort_records "equal keys"
keys 15000 5 | sort -r | sort_records "keys in falling order"
if "$here/radix_two" "$dir/text" "$dir/sorted" 2>/dev/null; then
    wrong "radix_two took a file that is not of records"
fi
echo "baselines: passed"
