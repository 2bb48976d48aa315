# row: 7
# title: haproxy -sf
# server: haproxy
# application: does it itself
# way: a new haproxy binds the port with SO_REUSEPORT and tells the old one to finish
# needs: haproxy nginx
. "$BENCH/haproxy.sh"

start() { alone "$1"; }

upgrade() {
    haproxy_configure "$1"
    haproxy -D -f haproxy.cfg -p haproxy.pid -sf $(cat haproxy.pid)
}

"$@"
