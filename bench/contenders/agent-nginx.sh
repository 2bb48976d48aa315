# row: 14
# title: agent, nginx
# server: nginx
# application: unmodified
# way: the agent launches the new version and steers new connections to it in the kernel
# controller: agent
# needs: agent nginx
. "$BENCH/agent.sh"

prepare() { nginx_configure "version-$1-server" "$1" "$PORT"; }
server() { echo "nginx -p $PWD -e $PWD/error.log -c $PWD/version-$1-server.conf"; }

"$@"
