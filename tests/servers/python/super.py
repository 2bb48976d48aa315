"""A super-server: makes listeners and passes each on to a server of its own: super.py USER PORT…"""

import os
import signal
import socket
import subprocess
import sys

user, ports = int(sys.argv[1]), [int(port) for port in sys.argv[2:]]
listeners = [socket.create_server(("0.0.0.0", port), backlog=512) for port in ports]
server = os.path.join(os.path.dirname(os.path.abspath(__file__)), "server.py")
for port, listener in zip(ports, listeners):
    number = listener.fileno()
    command = [sys.executable, server, str(port), "1", "--inherited", str(number)]
    subprocess.Popen(command, pass_fds=[number], user=user, group=user, extra_groups=[])
signal.pause()
