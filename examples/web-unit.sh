#!/bin/sh
# What web.service calls: web-unit.sh attach NAME PORT | reload NAME COMMAND… | stop NAME
set -eu
what=$1
name=$2
shift 2

case $what in
    attach)
        # Until the server listens, attach ends with 3.
        for _ in $(seq 100); do
            agent attach --port "$1" --name "$name" && exit
            sleep 0.1
        done
        exit 1
        ;;
    reload)
        # A reload should end soon: the drain goes on after it. If it fails, the old version serves on.
        exec agent upgrade "$name" --wait settled -- "$@"
        ;;
    stop)
        # Later generations are in the agent's control group, where systemd ends nothing.
        pids=$(agent status "$name" --json | python3 -c '
import json, sys
for generation in json.load(sys.stdin)["services"][0]["generations"]:
    print(*generation["pids"])')
        agent detach "$name"
        # One of them may have ended by itself.
        kill $pids || true
        ;;
esac
