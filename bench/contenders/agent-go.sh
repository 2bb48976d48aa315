# row: 16
# title: agent, Go
# server: go
# application: unmodified
# way: the same with an HTTP server in Go
# controller: agent
# needs: agent go-server
. "$BENCH/agent.sh"

server() { echo "go-server -listen :$PORT -generation $1"; }

"$@"
