# The agent in charge of the port of an unmodified server. A script says by `server` what starts a version, and makes by
# `prepare` what that needs.
. "$BENCH/lib.sh"

start() {
    alone "$1"
    agent attach --port "$PORT"
}

alone() {
    prepare "$1"
    background $(server "$1")
    until_true listens "$PORT"
}

upgrade() {
    prepare "$1"
    agent upgrade --port "$PORT" --wait switched --keep-old 10m -- $(server "$1")
}

undo() { agent undo --port "$PORT"; }

prepare() { :; }
