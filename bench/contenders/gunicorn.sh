# row: 10
# title: gunicorn reload (HUP)
# server: gunicorn
# application: does it itself
# way: the master starts new workers, which load the program anew, and tells the old ones to finish
# rate: 200
# needs: gunicorn
. "$BENCH/lib.sh"

start() {
    content "$1"
    echo "$1" >version
    background gunicorn --chdir "$BENCH/servers" --bind "0.0.0.0:$PORT" --pid "$PWD/gunicorn.pid" \
        --worker-class gthread --workers 1 --threads 32 --keep-alive 60 \
        --env "BENCH_VERSION=$PWD/version" gunicorn_app:application
    until_true listens "$PORT"
}

upgrade() {
    content "$1"
    echo "$1" >version
    kill -HUP "$(cat gunicorn.pid)"
}

"$@"
