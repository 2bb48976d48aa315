# row: 9
# title: tableflip (Go)
# server: go
# application: written for it
# way: the server starts its successor with its listeners, and shuts down
# needs: tableflip-server
. "$BENCH/lib.sh"

start() {
    echo "$1" >version
    background tableflip-server -listen ":$PORT" -version version -pid server.pid
    until_true listens "$PORT"
    until_true [ -s server.pid ]
}

upgrade() {
    # As long as the one before has connections, another upgrade is refused: one has to end it.
    if [ -s before.pid ] && ! gone "$(cat before.pid)"; then
        before=$(cat before.pid)
        kill -KILL "$before"
        until_true gone "$before"
    fi
    old=$(cat server.pid)
    echo "$old" >before.pid
    echo "$1" >version
    kill -HUP "$old"
    until_true changed "$old"
}

changed() { pid=$(cat server.pid) && [ -n "$pid" ] && [ "$pid" != "$1" ]; }

"$@"
