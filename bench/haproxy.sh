# haproxy as the server that is upgraded: it answers `/generation` itself and has the rest from an nginx that stays.
. "$BENCH/lib.sh"

haproxy_backend() { nginx_configure backend 1 8090 && nginx_run backend; }

haproxy_configure() {
    cat >haproxy.cfg <<END
global
    stats socket $PWD/admin.sock mode 600 level admin expose-fd listeners
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
frontend port
    bind :$PORT
    http-request return status 200 content-type text/plain string "$1" if { path /generation }
    default_backend nginx
backend nginx
    server nginx 127.0.0.1:8090
END
}

alone() {
    haproxy_backend
    haproxy_configure "$1"
    haproxy -D -f haproxy.cfg -p haproxy.pid
}
