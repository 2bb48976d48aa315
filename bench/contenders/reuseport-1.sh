# row: 4
# title: SO_REUSEPORT overlap, tcp_migrate_req = 1
# server: nginx
# application: listens with SO_REUSEPORT
# way: a second nginx joins the port, then the first one leaves (QUIT)
# needs: nginx
MIGRATE=1
. "$BENCH/reuseport.sh"

"$@"
