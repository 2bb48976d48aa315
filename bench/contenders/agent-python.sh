# row: 17
# title: agent, Python
# server: python
# application: unmodified
# way: the same with Python's own file server, which keeps no connection and has room for five in its queue
# clients: one-shot stream
# rate: 50
# controller: agent
# needs: agent python3
. "$BENCH/agent.sh"

prepare() { content "$1"; }
server() { echo "python3 -m http.server $PORT --directory $PWD/version-$1"; }

"$@"
