# row: 11
# title: gunicorn binary upgrade (USR2, WINCH)
# server: gunicorn
# application: does it itself
# way: the old master starts the new one with its listeners, is told to end its workers, and stays for the way back
# rate: 200
# needs: gunicorn
. "$BENCH/gunicorn.sh"

# Only a daemon heeds WINCH.
start() {
    gunicorn_release "$1"
    gunicorn_run --daemon
    until_true [ -s gunicorn.pid ]
}

upgrade() {
    # As long as the one before is there, another upgrade is ignored: one has to end it, with those of its workers that
    # still have connections. The new master takes its name.
    if [ -e gunicorn.pid.2 ]; then
        before=$(cat gunicorn.pid)
        for worker in $(workers "$before"); do kill -KILL "$worker"; done
        kill -TERM "$before"
        until_true [ ! -e gunicorn.pid.2 ]
    fi
    gunicorn_release "$1"
    kill -USR2 "$(cat gunicorn.pid)"
    until_true [ -s gunicorn.pid.2 ]
    until_true has_other_workers "$(cat gunicorn.pid.2)" ""
    kill -WINCH "$(cat gunicorn.pid)"
}

# The old master is still there, and so are the listeners.
undo() {
    gunicorn_release "$1"
    old=$(cat gunicorn.pid)
    leaving=$(workers "$old")
    kill -HUP "$old"
    until_true has_other_workers "$old" "$leaving"
    kill -TERM "$(cat gunicorn.pid.2)"
}

# The new master is a child of the old one, too.
workers() { xargs -n 1 <"/proc/$1/task/$1/children" | grep -vx "$(cat gunicorn.pid.2)" || :; }
has_other_workers() { workers "$1" | grep -qvxF -e "${2:-none}"; }

"$@"
