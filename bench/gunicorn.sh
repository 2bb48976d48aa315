# gunicorn with a small application that reads its version when a worker loads it.
. "$BENCH/lib.sh"

# Options of the contender come first.
gunicorn_run() {
    background gunicorn "$@" --chdir "$BENCH/servers" --bind "0.0.0.0:$PORT" --pid "$PWD/gunicorn.pid" \
        --worker-class gthread --workers 1 --threads 32 --keep-alive 60 \
        --env "BENCH_VERSION=$PWD/version" gunicorn_app:application
    until_true listens "$PORT"
}

# What workers load from now on.
gunicorn_release() { echo "$1" >version; }
