# How a node is reached: the one thing to change for another way than SSH. Read by plan.sh and apply.sh.
# shellcheck shell=sh

# Runs a command on a node, with this standard input and output, and ends as it does.
on_node() { # NODE COMMAND...
    node=$1
    shift
    ssh -o BatchMode=yes -o ConnectTimeout=10 "root@$node" "$@"
}
