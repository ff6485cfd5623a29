#!/bin/bash
# demo.sh BINARY: two hosts with a router between them, each in a network namespace of its own, and an IPIP tunnel from
# one to the other: planned, applied, used, found in sync, changed in place, destroyed.
#
# `make demo` runs it on a kernel that has ipip. It changes nothing outside the namespaces that it makes.
set -euo pipefail

tunnelform=$(realpath "${1:?usage: demo.sh BINARY}")
cd "$(dirname "$0")"

say() { printf '\n# %s\n' "$*"; }

# Shows a command as a person would type it on the host, and runs it there.
on() { # HOST COMMAND [ARGUMENT...]
    local host=$1
    shift
    printf '%s$ %s\n' "$host" "${*/#$tunnelform/tunnelform}"
    ip netns exec "$host" "$@"
}

say 'Two hosts, 192.168.10.2 and 192.168.20.2, and a router between them'
for host in left router right; do ip netns add "$host"; done
trap 'for host in left router right; do ip netns del "$host"; done' EXIT
ip link add eth0 netns left type veth peer name left netns router
ip link add eth0 netns right type veth peer name right netns router
for host in left right; do
    ip -n "$host" link set lo up
    ip -n "$host" link set eth0 up
    ip -n router link set "$host" up
done
ip -n left address add 192.168.10.2/24 dev eth0
ip -n router address add 192.168.10.1/24 dev left
ip -n router address add 192.168.20.1/24 dev right
ip -n right address add 192.168.20.2/24 dev eth0
ip -n left route add default via 192.168.10.1
ip -n right route add default via 192.168.20.1
ip netns exec router sysctl -qw net.ipv4.ip_forward=1

say 'What would change?'
on left "$tunnelform" apply --dry-run point-to-point.yaml

say 'Change it, on both'
on left "$tunnelform" apply point-to-point.yaml
on right "$tunnelform" apply point-to-point-peer.yaml

say 'Echoes through the tunnel'
on left ping -c 3 -i 0.2 10.10.100.2
on left "$tunnelform" status point-to-point.yaml

say 'A second plan is empty'
on left "$tunnelform" apply --detailed-exitcode point-to-point.yaml

say 'Somebody changes the tunnel by hand; the difference is found and put right in place'
on left ip link set tun1 type ipip ttl 7
on left "$tunnelform" apply point-to-point.yaml

say 'Take it all away again'
on left "$tunnelform" destroy point-to-point.yaml
on right "$tunnelform" destroy point-to-point-peer.yaml
on left ip -brief address
