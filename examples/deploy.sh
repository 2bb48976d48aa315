#!/bin/sh
# Deploys a version: deploy.sh PORT COMMAND…
# Ends with 0 only if the new version serves.
set -u
port=$1
shift

agent upgrade --port "$port" --drain-timeout "${DRAIN_TIMEOUT:-10m}" -- "$@"
code=$?
case $code in
    0) echo "deployed" ;;
    5) echo "not deployed: the new version did not become ready, the old one serves" >&2 ;;
    6) echo "deployed, but connections of the old version were cut off" >&2; code=0 ;;
    7) echo "not deployed: another deploy is under way" >&2 ;;
    8) echo "not deployed: the new version failed after the switch, the old one serves again" >&2 ;;
    130) echo "interrupted: the deploy goes on, see 'agent status'" >&2 ;;
    *) echo "not deployed, exit code $code: see the message above, and 'agent status'" >&2 ;;
esac
exit "$code"
