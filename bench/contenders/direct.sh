# row: 1
# title: no upgrade
# server: nginx
# application: unmodified
# way: nginx alone, which is left as it is: what the machine and the clients lose and wait by themselves
# upgrades: no
# needs: nginx
. "$BENCH/lib.sh"

start() { nginx_alone "$1"; }
upgrade() { :; }

"$@"
