# row: 12
# title: nftables redirect
# server: nginx
# application: unmodified
# way: each version has a port of its own, a rule redirects new connections, conntrack remembers the others
# needs: nft nginx
. "$BENCH/lib.sh"

alone() { nginx_alone "$1"; }

run() {
    nginx_configure "version-$1-server" "$1" "$((PORT + $1))"
    nginx_run "version-$1-server"
}

# Loopback connections are translated where they leave; others would be in a chain of `prerouting`.
start() {
    run "$1"
    nft -f - <<END
table ip bench {
    chain out {
        type nat hook output priority -100
        tcp dport $PORT redirect to :$((PORT + $1))
    }
}
END
}

upgrade() {
    run "$1"
    undo "$1"
}

# The version before is still there. Both lines are one transaction.
undo() {
    nft -f - <<END
flush chain ip bench out
add rule ip bench out tcp dport $PORT redirect to :$((PORT + $1))
END
}

"$@"
