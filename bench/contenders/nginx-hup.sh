# row: 5
# title: nginx reload (HUP)
# server: nginx
# application: does it itself
# way: the master starts new workers with the new configuration; it cannot change the program
# needs: nginx
. "$BENCH/lib.sh"

start() { nginx_alone "$1"; }

upgrade() {
    nginx_configure nginx "$1" "$PORT"
    kill -HUP "$(cat nginx.pid)"
}

"$@"
