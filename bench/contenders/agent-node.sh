# row: 15
# title: agent, Node
# server: node
# application: unmodified
# way: the same with an HTTP server in Node
# controller: agent
# needs: agent node
. "$BENCH/agent.sh"

server() { echo "node $SERVERS/node/server.js $PORT $1"; }

"$@"
