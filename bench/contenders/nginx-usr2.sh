# row: 6
# title: nginx binary upgrade (USR2, QUIT)
# server: nginx
# application: does it itself
# way: the old master starts the new one with its listeners, and is told to leave
# needs: nginx
. "$BENCH/lib.sh"

start() { nginx_alone "$1"; }

upgrade() {
    # As long as the one before has connections, another upgrade is ignored: one has to end it.
    if [ -e nginx.pid.oldbin ]; then
        before=$(cat nginx.pid.oldbin)
        kill -TERM "$before"
        until_true gone "$before"
        until_true [ ! -e nginx.pid.oldbin ]
    fi
    nginx_configure nginx "$1" "$PORT"
    kill -USR2 "$(cat nginx.pid)"
    until_true [ -s nginx.pid.oldbin ]
    until_true [ -s nginx.pid ]
    kill -QUIT "$(cat nginx.pid.oldbin)"
}

"$@"
