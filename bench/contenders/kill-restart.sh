# row: 2
# title: kill and restart
# server: nginx
# application: unmodified
# way: the old nginx is told to end at once, and the new one started when it has
# needs: nginx
. "$BENCH/lib.sh"

start() { nginx_alone "$1"; }

upgrade() {
    pid=$(cat nginx.pid)
    kill -TERM "$pid"
    until_true gone "$pid"
    start "$1"
}

"$@"
