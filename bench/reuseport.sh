# Two nginx on one port while one takes over from the other. A script says by MIGRATE what becomes of connections in the
# queue of the one that leaves (`tcp_migrate_req`).
. "$BENCH/lib.sh"

start() {
    echo "$MIGRATE" >/proc/sys/net/ipv4/tcp_migrate_req
    run "$1"
}

alone() { nginx_alone "$1"; }

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
