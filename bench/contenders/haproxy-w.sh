# row: 8
# title: haproxy -W (passed listeners)
# server: haproxy
# application: does it itself
# way: the master starts a new worker, which gets the listeners of the old one
# needs: haproxy nginx
. "$BENCH/haproxy.sh"

start() {
    haproxy_backend
    haproxy_configure "$1"
    haproxy -W -D -f haproxy.cfg -p haproxy.pid
    until_true listens "$PORT"
}

upgrade() {
    haproxy_configure "$1"
    kill -USR2 "$(cat haproxy.pid)"
}

"$@"
