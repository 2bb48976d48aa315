# What the contenders' scripts have in common. They are run as `sh contenders/NAME.sh start|upgrade|undo VERSION`, in a
# network namespace and an empty directory of their own. A command returns when the contender would say that it is done.
# What still runs in the end is killed with the cgroup of the run.
# `alone 1` starts the same server without anything that an upgrade needs, to compare the speed with.
#
# A server tells its version: `/generation` is the number on a line, `/stream` four megabytes of such lines, and an upload
# to `/upload` is answered with the number.
set -eu

PORT=8080

# Most have no way back of their own: the version before is brought in like a new one.
undo() { upgrade "$1"; }
# Most that upgrade themselves have nothing beside them before the first upgrade.
alone() { start "$1"; }

# Waits until a command succeeds, at most ten seconds.
until_true() {
    tries=0
    until "$@"; do
        tries=$((tries + 1))
        [ "$tries" -lt 1000 ] || { echo "waited in vain: $*" >&2; exit 1; }
        sleep 0.01
    done
}

# One that has ended may have nobody yet who waits for it.
gone() { ! grep -q ') [^ZX] ' "/proc/$1/stat" 2>/dev/null; }
listens() { grep -qi ":$(printf %04X "$1") [0-9A-F]*:0000 0A" /proc/self/net/tcp /proc/self/net/tcp6; }
# For servers that do not make a daemon of themselves.
background() { "$@" >>output.log 2>&1 </dev/null & }

# The files of a version.
content() {
    [ ! -d "version-$1" ] || return 0
    mkdir "version-$1"
    echo "$1" >"version-$1/generation"
    yes "$1" | head -c 4194304 >"version-$1/stream"
}

# nginx_configure NAME VERSION LISTEN: writes NAME.conf.
nginx_configure() {
    content "$2"
    cat >"$1.conf" <<END
worker_processes 1;
pid $PWD/$1.pid;
error_log $PWD/error.log crit;
events { worker_connections 4096; }
http {
    access_log off;
    keepalive_requests 1000000;
    client_body_temp_path $PWD/body;
    proxy_temp_path $PWD/proxy;
    fastcgi_temp_path $PWD/fastcgi;
    uwsgi_temp_path $PWD/uwsgi;
    scgi_temp_path $PWD/scgi;
    server {
        listen $3;
        root $PWD/version-$2;
        # An upload is answered when all of it is there: mirror waits for the body, nothing else here would.
        location = /upload { mirror /ignored; error_page 404 405 =200 /generation; }
        location = /ignored { internal; return 204; }
    }
}
END
}

# Returns when it listens.
# By its full path: at a binary upgrade nginx starts what it was started as.
nginx_run() { "$(command -v nginx)" -p "$PWD" -e "$PWD/error.log" -c "$PWD/$1.conf"; }

nginx_alone() { nginx_configure nginx "$1" "$PORT" && nginx_run nginx; }

# A name that no server of this run has had.
next_name() {
    number=$(($(cat number 2>/dev/null || echo 0) + 1))
    echo "$number" >number
    echo "server-$number"
}
