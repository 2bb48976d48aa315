# row: 18
# title: agent, Redis
# server: redis
# application: unmodified
# way: the same with Redis and its own protocol; data is not moved
# protocol: redis
# clients: one-shot keep-alive
# controller: agent
# needs: agent redis-server
. "$BENCH/agent.sh"

# Otherwise it answers only one of the addresses of loopback, and clients come from many.
server() { echo "redis-server --port $PORT --protected-mode no --dir $PWD --dbfilename gen-$1.rdb"; }

"$@"
