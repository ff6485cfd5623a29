#!/bin/sh
# apply.sh TOPOLOGY PLANS: carries out PLANS/NODE.json on each node, as they were reviewed. No node is touched before each
# has said that its plan still fits. Run again, it goes on where it failed.
set -eu
. "$(dirname "$0")/hosts.sh"
topology=$1 plans=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

set -- "$plans"/*.json
[ -e "$1" ] || {
    echo "apply.sh: no node changes"
    exit 0
}

# What was merged may be more than what was reviewed, and then it's another topology that these plans lead to.
for plan; do
    node=$(basename "$plan" .json)
    tunnelform render --output json --node "$node" "$topology" | jq -S . >"$work/merged"
    jq -S .topology "$plan" >"$work/reviewed"
    if [ "$(jq -r .origin.node "$plan")" != "$node" ] || ! cmp -s "$work/merged" "$work/reviewed"; then
        echo "apply.sh: the plan of $node is not for what $topology has of it now: plan again" >&2
        exit 1
    fi
done

status=0
for plan; do
    node=$(basename "$plan" .json)
    on_node "$node" tunnelform apply --dry-run - <"$plan" >"$work/trial" || {
        echo "apply.sh: $node can't carry out its plan" >&2
        status=1
    }
done
[ "$status" = 0 ] || {
    echo "apply.sh: no node was touched" >&2
    exit 1
}

for plan; do
    node=$(basename "$plan" .json)
    echo "$node:"
    on_node "$node" tunnelform apply - <"$plan" || {
        echo "apply.sh: stopped at $node" >&2
        exit 1
    }
done
