#!/bin/sh
# Several hosts, made of network namespaces: what crosses hosts is fetched over MPI, compressed
# when that pays, and the result is the same. A rank of another host that dies does not end the
# job. Needs root and `ip`.
. "${srcdir:-.}/tests/cluster/lib.sh"
LC_ALL=C
export LC_ALL
needs_namespaces

hosts=3
switch=trm-$$-switch
name() { echo "trm-$$-$1"; }

remove_hosts() {
    for h in $(seq $hosts); do
        ip netns pids "$(name "$h")" 2>/dev/null | while read -r pid; do kill -9 "$pid" 2>/dev/null; done
        ip netns delete "$(name "$h")" 2>/dev/null
    done
    ip netns delete $switch 2>/dev/null
}
trap 'remove_hosts; clean_up' EXIT

# One namespace a host, veth pairs into a bridge in a namespace of its own.
make_hosts() {
    ip netns add $switch && ip -n $switch link add bridge type bridge && ip -n $switch link set bridge up || return 1
    for h in $(seq $hosts); do
        host=$(name "$h")
        ip netns add "$host" && ip -n "$host" link set lo up &&
            ip -n $switch link add "port$h" type veth peer name eth0 netns "$host" &&
            ip -n $switch link set "port$h" master bridge up && ip -n "$host" addr add "10.77.0.$h/24" dev eth0 &&
            ip -n "$host" link set eth0 up || return 1
    done
}
make_hosts 2>"$work/err" || { echo "skipped: $(head -1 "$work/err")"; exit 77; }

# In place of ssh: each host has a name of its own, by which ranks know who shares one, and a
# directory of its own for Open MPI, whose daemons believe that they are on one host.
mkdir "$work/ompi1" "$work/ompi2" "$work/ompi3"
cat >"$work/agent" <<AGENT
#!/bin/sh
address=\$1
shift
exec ip netns exec "trm-$$-\${address##*.}" env TRIREME_HOST="host\${address##*.}" \
    OMPI_MCA_orte_tmpdir_base="$work/ompi\${address##*.}" sh -c "\$*"
AGENT
chmod +x "$work/agent"

# over NAME CODE ARGUMENT…: trireme run on all hosts, two ranks each on the first two, one on the
# last. Now and then Open MPI's daemons do not find each other at the begin: that is tried again.
over() {
    what=$1 code=$2
    shift 2
    for try in 1 2 3; do
        start_over "$@"
        grep -q 'ORTE\|unable to reliably start\|status 139' "$work/err" || break
        rm -rf "$work/out"
    done
    [ "$got" -eq "$code" ] || { fail "$what" "exit status $got, not $code (try $try)"; return 1; }
}

start_over() {
    ip netns exec "$(name 1)" env TRIREME_HOST=host1 OMPI_MCA_plm_rsh_agent="$work/agent" \
        OMPI_MCA_orte_tmpdir_base="$work/ompi1" \
        OMPI_MCA_orte_keep_fqdn_hostnames=1 OMPI_MCA_btl=tcp,self OMPI_MCA_btl_tcp_if_include=10.77.0.0/24 \
        OMPI_MCA_oob_tcp_if_include=10.77.0.0/24 timeout -k 5 "$JOB_SECONDS" "$trireme" run -n 5 \
        --host 10.77.0.1:2,10.77.0.2:2,10.77.0.3:1 --mpirun-option -x --mpirun-option LD_LIBRARY_PATH \
        --mpirun-option -x --mpirun-option TMPDIR --mpirun-option -x --mpirun-option TRIREME_TEST_ID \
        "$@" >"$work/stdout" 2>"$work/err"
    got=$?
}
LD_LIBRARY_PATH=$builddir/.libs${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export LD_LIBRARY_PATH

counter() { sed -n "s/.*\"$1\": *\([0-9]*\).*/\1/p" "$work/out/_SUCCESS" | head -1; }

"$trireme" gen text --bytes 8M --seed 11 -o "$work/text" 2>"$work/err" || { fail 'gen text' 'failed'; finish; }
tr -cs '[:alnum:]' '\n' <"$work/text" | tr '[:upper:]' '[:lower:]' | grep . | sort | uniq -c |
    awk '{print $2 "\t" $1}' | sort >"$work/want"

for how in auto none zlib; do
    rm -rf "$work/out"
    over "compress $how" 0 --compress $how --executors 1 --split-size 512K wordcount -p lower=true "$work/text" -o "$work/out" || continue
    parts "$work/out" | sort | cmp -s - "$work/want" || { fail "compress $how" 'another result than coreutils'; continue; }
    remote=$(counter shuffle_remote_bytes)
    [ "${remote:-0}" -gt 0 ] || { fail "compress $how" 'nothing crossed hosts'; continue; }
    nothing_left "compress $how" && pass "compress $how ($remote bytes between hosts)"
done

finish
