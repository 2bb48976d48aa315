# row: 19
# title: Node alone, others started beside it
# server: node
# application: unmodified
# way: nothing is upgraded: another Node starts on a port of its own each time, to tell what its start takes from the first
# upgrades: no
# needs: node
. "$BENCH/lib.sh"

start() {
    background node "$SERVERS/node/server.js" "$((PORT + $1 - 1))" "$1"
    until_true listens "$((PORT + $1 - 1))"
}

upgrade() { start "$1"; }
undo() { :; }

"$@"
