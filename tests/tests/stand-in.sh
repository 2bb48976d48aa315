#!/bin/sh
# Stands in for the agent where its runner is tested: it leaves a process in a cgroup, and fails with exit code 5.
cgroup=$6
shift 6
mkdir -p "$cgroup/service/gen-2"
sleep 1000 &
echo "$!" >"$cgroup/service/gen-2/cgroup.procs"
echo "{\"pid\": $!, \"arguments\": \"$*\"}"
echo "not ready" >&2
exit 5
