# row: 3
# title: SO_REUSEPORT overlap, tcp_migrate_req = 0
# server: nginx
# application: listens with SO_REUSEPORT
# way: a second nginx joins the port, then the first one leaves (QUIT)
# needs: nginx
. "$BENCH/lib.sh"

start() {
    echo 0 >/proc/sys/net/ipv4/tcp_migrate_req
    run "$1"
}

run() {
    name=$(next_name)
    nginx_configure "$name" "$1" "$PORT reuseport"
    nginx_run "$name"
    echo "$name" >current
}

upgrade() {
    old=$(cat current)
    run "$1"
    kill -QUIT "$(cat "$old.pid")"
}

"$@"
