#!/bin/sh
# Deploys from a CI job: ci-deploy.sh PORT COMMAND…
# Deploys only over the generation that served when the job began (exit code 7 otherwise), does not wait for the drain, and ends
# with one line of JSON that later steps can read.
set -eu
port=$1
shift

serving() {
    agent status --port "$port" --json | python3 -c '
import json, sys
primary = [it["number"] for it in json.load(sys.stdin)["services"][0]["generations"] if it["state"] == "primary"]
print(primary[0] if primary else 0)'
}

before=$(serving)
if [ "$before" = 0 ]; then
    echo "no generation serves: start the server first" >&2
    exit 3
fi
# What a real job does here, such as building and fetching, takes time in which somebody else may deploy.
sh -c "${PREPARE:-:}"

code=0
agent upgrade --port "$port" --if-generation "$before" --wait settled -- "$@" || code=$?
printf '{"before": %s, "serves": %s, "code": %s}\n' "$before" "$(serving)" "$code"
exit "$code"
