#!/bin/sh
# plan.sh TOPOLOGY OUT: asks every node how it is, and plans for all of them. OUT/NODE.json is the plan of each node that
# changes, OUT/comment.md shows them all. Exits with 1 if a node has no plan; the comment says which.
set -eu
. "$(dirname "$0")/hosts.sh"
topology=$1 out=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$out" "$work/states"

tunnelform validate "$topology"
tunnelform apply --dry-run --against empty --all-nodes --output json "$topology" >"$work/all.json" 2>/dev/null
jq -r '.nodes[].node' "$work/all.json" >"$work/nodes"

while read -r node; do
    # A file that is cut off must not pass for a state.
    if on_node "$node" tunnelform export --state </dev/null >"$work/state"; then
        mv "$work/state" "$work/states/$node.yaml"
    else
        echo "plan.sh: $node doesn't say how it is" >&2
    fi
done <"$work/nodes"

status=0
tunnelform apply --dry-run --against "$work/states" --all-nodes --out "$out" "$topology" >"$work/plans" || status=$?
cat "$work/plans"

set -- "$out"/*.json
{
    if [ -e "$1" ]; then
        tunnelform show --output markdown "$@"
    else
        echo "### tunnelform"
        echo
        echo "No node has a plan."
    fi
    if [ "$status" != 0 ]; then
        printf '\nWithout a plan:\n\n```\n'
        grep -E ' (no plan|[0-9]+ conflicts?)$' "$work/plans" | head -n 50
        printf '```\n'
    fi
} >"$out/comment.md"
exit "$status"
