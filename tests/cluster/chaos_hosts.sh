#!/bin/sh
# Hosts for tests/cluster/chaos: network namespaces, a veth pair each into a bridge in a namespace of its
# own, as tests/cluster/hosts.sh has them. Needs root and ip(8).
#
#   chaos_hosts.sh make ID DIRECTORY           makes them; what they need lies in DIRECTORY
#   chaos_hosts.sh cut | heal ID DIRECTORY N   takes the link of host N down, or up again
#   chaos_hosts.sh run ID DIRECTORY COMMAND…   runs trireme on host 1, with ranks on all of them
#   chaos_hosts.sh remove ID DIRECTORY
set -u
what=$1 id=$2 directory=$3
shift 3
hosts='1 2 3'
name() { echo "trm-$id-$1"; }
switch=$(name switch)

remove() {
    for h in $hosts; do
        ip netns pids "$(name "$h")" 2>/dev/null | while read -r pid; do kill -9 "$pid" 2>/dev/null; done
        ip netns delete "$(name "$h")" 2>/dev/null
    done
    ip netns delete "$switch" 2>/dev/null
}

make() {
    ip netns add "$switch" && ip -n "$switch" link add bridge type bridge && ip -n "$switch" link set bridge up || return 1
    for h in $hosts; do
        host=$(name "$h")
        mkdir -p "$directory/ompi$h" "$directory/tmp$h"
        ip netns add "$host" && ip -n "$host" link set lo up &&
            ip -n "$switch" link add "port$h" type veth peer name eth0 netns "$host" &&
            ip -n "$switch" link set "port$h" master bridge up && ip -n "$host" addr add "10.77.0.$h/24" dev eth0 &&
            ip -n "$host" link set eth0 up || return 1
    done
    # In place of ssh. A host whose link is down does not answer.
    cat >"$directory/agent" <<AGENT
#!/bin/sh
host=\${1##*.}
shift
[ ! -e "$directory/down\$host" ] || exit 255
exec ip netns exec "trm-$id-\$host" env TRIREME_HOST="host\$host" TMPDIR="$directory/tmp\$host" \\
    OMPI_MCA_orte_tmpdir_base="$directory/ompi\$host" sh -c "\$*"
AGENT
    chmod +x "$directory/agent"
}

case $what in
make) make || { remove; exit 1; } ;;
remove) remove ;;
cut) : >"$directory/down$1" && ip -n "$switch" link set "port$1" down ;;
heal) rm -f "$directory/down$1" && ip -n "$switch" link set "port$1" up ;;
run)
    program=$1
    shift 2 # and its "run"
    exec ip netns exec "$(name 1)" env TRIREME_HOST=host1 TMPDIR="$directory/tmp1" OMPI_MCA_plm_rsh_agent="$directory/agent" \
        OMPI_MCA_orte_tmpdir_base="$directory/ompi1" OMPI_MCA_orte_keep_fqdn_hostnames=1 OMPI_MCA_btl=tcp,self \
        OMPI_MCA_btl_tcp_if_include=10.77.0.0/24 OMPI_MCA_oob_tcp_if_include=10.77.0.0/24 \
        LD_LIBRARY_PATH="$(dirname "$program")/.libs" "$program" run --host 10.77.0.1:2,10.77.0.2:2,10.77.0.3:1 \
        --mpirun-option -x --mpirun-option LD_LIBRARY_PATH --mpirun-option -x --mpirun-option TRIREME_TEST_ID "$@"
    ;;
esac
