# row: 10
# title: gunicorn reload (HUP)
# server: gunicorn
# application: does it itself
# way: the master starts new workers, which load the program anew, and tells the old ones to finish
# rate: 200
# needs: gunicorn
. "$BENCH/gunicorn.sh"

start() {
    gunicorn_release "$1"
    gunicorn_run
}

upgrade() {
    gunicorn_release "$1"
    kill -HUP "$(cat gunicorn.pid)"
}

"$@"
