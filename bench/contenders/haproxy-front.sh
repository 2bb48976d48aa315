# row: 13
# title: haproxy in front (TCP)
# server: nginx
# application: unmodified
# way: each version has a port of its own, and the proxy is told over its socket where new connections go
# needs: haproxy nginx socat
. "$BENCH/lib.sh"

tell() { echo "$1" | socat - "UNIX-CONNECT:$PWD/admin.sock" >>output.log; }

alone() { nginx_alone "$1"; }

run() {
    port=$((PORT + $1))
    nginx_configure "version-$1-server" "$1" "$port"
    nginx_run "version-$1-server"
}

start() {
    run "$1"
    cat >haproxy.cfg <<END
global
    stats socket $PWD/admin.sock mode 600 level admin
defaults
    mode tcp
    timeout connect 5s
    timeout client 60s
    timeout server 60s
frontend port
    bind :$PORT
    default_backend version
backend version
    server current 127.0.0.1:$port
END
    haproxy -D -f haproxy.cfg -p haproxy.pid
}

upgrade() {
    run "$1"
    undo "$1"
}

# The version before is still there.
undo() { tell "set server version/current addr 127.0.0.1 port $((PORT + $1))"; }

"$@"
