# row: 17
# title: agent, Redis
# server: redis
# application: unmodified
# way: the same with Redis and its own protocol; data is not moved
# protocol: redis
# clients: one-shot keep-alive
# controller: agent
# needs: agent redis-server
. "$BENCH/agent.sh"

server() { echo "redis-server --port $PORT --dir $PWD --dbfilename gen-$1.rdb"; }

"$@"
