#!/bin/sh
# The examples under a real mpirun, on text that is on every Debian machine, with 1, 2 and 4 ranks,
# against programs that have nothing to do with them: tr, sort, uniq, grep and awk.
# shellcheck source=tests/cluster/lib.sh
. "${srcdir:-.}/tests/cluster/lib.sh"
LC_ALL=C
export LC_ALL

records=30000
licenses=/usr/share/common-licenses
headers=/usr/include
for input in $licenses $headers; do
    [ -d "$input" ] || { echo "skipped: $input is not there"; exit 77; }
done

# Enough for several tasks, little enough for a test. A job reads a directory's files by name.
mkdir "$work/text"
find $licenses $headers -type f | sort | awk 'NR % 16 == 0' | while read -r path; do
    cp "$path" "$work/text/$(echo "$path" | tr / _)"
done
find "$work/text" -type f -size +0 | sort >"$work/files"
[ "$(wc -l <"$work/files")" -gt 20 ] || { echo "skipped: there is too little text on this machine"; exit 77; }

# job NAME RANKS ARGUMENT…: must be done, and leave nothing but its output.
job() {
    name="$1, $2 ranks"
    kernel=$1 ranks=$2
    shift 2
    rm -rf "$work/out"
    run_job "$name" 0 -q -n "$ranks" --executors 2 --memory 64M --split-size 1M "$kernel" "$@" -o "$work/out" || return 1
    nothing_left "$name"
}

# same EXPECTED FOUND: two files, of the last job.
same() {
    if cmp -s "$1" "$2"; then
        pass "$name"
    else
        diff "$1" "$2" | head -5 | cut -c 1-200 >"$work/err"
        fail "$name" "the output is not what it must be"
    fi
}

# ---- wordcount ----

words() { xargs cat <"$work/files" | tr -cs '[:alnum:]' '\n' | grep .; }
words | sort | uniq -c | awk '{ print $2 "\t" $1 }' >"$work/counts"
words | tr '[:upper:]' '[:lower:]' | sort | uniq -c | awk '{ print $2 "\t" $1 }' >"$work/lowered"
for ranks in 1 2 4; do
    job wordcount $ranks "$work/text" && parts "$work/out" | sort -t "$(printf '\t')" -k 1,1 >"$work/got" &&
        same "$work/counts" "$work/got"
done
job wordcount 2 -p lower=true --gzip --partitions 3 "$work/text" &&
    parts "$work/out" | gzip -dc | sort -t "$(printf '\t')" -k 1,1 >"$work/got" && same "$work/lowered" "$work/got"
for part in "$work/out"/part-*; do
    gzip -dc "$part" | cut -f 1 | sort -c || fail "wordcount" "$part is not sorted"
done

# ---- grep ----

pattern='^#[[:space:]]*define[[:space:]]+[A-Z_]+\(|GNU (Lesser )?General'
xargs grep -aE "$pattern" -h <"$work/files" >"$work/lines"
xargs grep -aHbiE 'license' <"$work/files" >"$work/places"
for ranks in 1 2 4; do
    job grep $ranks -p "pattern=$pattern" "$work/text" && parts "$work/out" >"$work/got" && same "$work/lines" "$work/got"
done
job grep 2 -p pattern=license -p ignore-case -p path -p offset "$work/text" && parts "$work/out" >"$work/got" &&
    same "$work/places" "$work/got"

# ---- invertedindex ----

# word, document: once each; then one line a word.
while read -r path; do
    tr -cs '[:alnum:]' '\n' <"$path" | tr '[:upper:]' '[:lower:]' | grep . | sort -u |
        awk -v document="${path##*/}" '{ print $1 "\t" document }'
done <"$work/files" | sort | awk -F '\t' '
    ($1 "") != word { if (NR > 1) print word "\t" list; word = $1 ""; list = $2; next }
    { list = list " " $2 }
    END { print word "\t" list }' | sort >"$work/index"
for ranks in 1 2 4; do
    job invertedindex $ranks -p names "$work/text" && parts "$work/out" | sort >"$work/got" && same "$work/index" "$work/got"
done

# ---- teragen, terasort, teravalidate ----

# Records without a byte that is a newline, for sort: teragen's are binary, so as hexadecimal.
as_lines() { od -An -v -tx1 -w100; }
job teragen 2 --tasks 8 -p "records=$records" && pass "teragen, 2 ranks" && mv "$work/out" "$work/generated"
parts "$work/generated" | as_lines | sort -s -k 1,10 >"$work/sorted"
checksum=$(sed -n 's/.*"checksum": *\([0-9]*\).*/\1/p' "$work/generated/_SUCCESS")
for ranks in 1 2 4; do
    job terasort $ranks --partitions 5 "$work/generated/part-*" && parts "$work/out" | as_lines >"$work/got" &&
        same "$work/sorted" "$work/got"
done
mv "$work/out" "$work/valid"
[ -n "$checksum" ] || fail teragen "its checksum is not in _SUCCESS"
strict="-p strict -p records=$records -p checksum=$checksum"
# shellcheck disable=SC2086 # the words of $strict are options
for ranks in 1 2 4; do
    job teravalidate $ranks $strict "$work/valid/part-*" && parts "$work/out" >"$work/got" &&
        if grep -qx "records	$records" "$work/got" && grep -qx 'errors	0' "$work/got"; then
            pass "$name"
        else
            fail "$name" "$(cat "$work/got")"
        fi
done

# spoiled NAME: the parts in $work/spoiled must be refused.
spoiled() {
    rm -rf "$work/out"
    # shellcheck disable=SC2086
    run_job "teravalidate, $1" 1 -q -n 2 --max-attempts 1 teravalidate $strict "$work/spoiled/part-*" -o "$work/out" &&
        nothing_left "teravalidate, $1" && pass "teravalidate, $1"
    rm -rf "$work/spoiled"
}
copy() { cp -R "$work/valid" "$work/spoiled" && rm -rf "$work/spoiled/.trireme" "$work/spoiled/_SUCCESS"; }
part="part-00002"
copy && head -c 5000 "$work/valid/$part" >"$work/spoiled/$part" && spoiled "records are missing"
copy && head -c 100 "$work/valid/$part" | cat - "$work/valid/$part" >"$work/spoiled/$part" && spoiled "a record twice"
copy && { tail -c 100 "$work/valid/$part"; head -c -100 "$work/valid/$part"; } >"$work/spoiled/$part" &&
    spoiled "the last record first"
copy && mv "$work/spoiled/part-00003" "$work/part" && mv "$work/spoiled/$part" "$work/spoiled/part-00003" &&
    mv "$work/part" "$work/spoiled/$part" && spoiled "two parts in each other's place"
copy && printf X | dd of="$work/spoiled/$part" bs=1 seek=4050 conv=notrunc 2>/dev/null && spoiled "a byte has changed"

finish
