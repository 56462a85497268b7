#!/bin/sh
# The bugs that scripts/mutate plants can still be planted, and docs/mutations.md has each of them: a change of
# the code that one is made in shows here, not when mutate is run the next time.
set -u
top=$(cd "${srcdir:-.}" && pwd)
command -v patch >/dev/null 2>&1 || { echo 'skipped: there is no patch command'; exit 77; }
count=0 failed=0
for bug in "$top"/tests/mutations/*.patch; do
    name=$(basename "$bug" .patch)
    count=$((count + 1))
    if ! patch -s -f -d "$top" -p1 --dry-run <"$bug"; then
        echo "tests/mutations/$name.patch no longer applies"
        failed=$((failed + 1))
    fi
    if ! grep -q "(\`$name\`)" "$top/docs/mutations.md"; then
        echo "docs/mutations.md does not have $name"
        failed=$((failed + 1))
    fi
done
echo "mutations: $count bugs, $failed failed"
[ "$count" -gt 0 ] && [ "$failed" -eq 0 ]
