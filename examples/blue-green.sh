#!/bin/sh
# Deploys a version and takes it back if it fails a check: blue-green.sh PORT CHECK COMMAND…
# CHECK is a command for sh. It runs while all new connections go to the new version.
set -eu
port=$1
check=$2
shift 2

# The old version is kept for an hour, even once it has drained: until then, `agent undo` is instant.
agent upgrade --port "$port" --keep-old 1h --wait settled -- "$@"
if sh -c "$check"; then
    echo "the check passed: the new version stays"
else
    agent undo --port "$port"
    echo "the check failed: the old version serves again" >&2
    exit 8
fi
