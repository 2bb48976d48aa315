"""A server that does to whoever manages it what it can: hostile.py PORT NEIGHBOUR GENERATION FOLDER

It serves, by `server.py` beside it. All else ends with it, or when a minute is over.
"""

import os
import signal
import socket
import sys
import threading
import time

port, neighbour, generation, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
server = os.path.join(os.path.dirname(os.path.abspath(__file__)), "server.py")
END = time.monotonic() + 60


def again(act, pause):
    def loop():
        while time.monotonic() < END:
            try:
                act()
            except OSError:
                pass
            time.sleep(pause)

    threading.Thread(target=loop, daemon=True).start()


def bind_what_is_not_ours():
    for wanted in (neighbour, port, 0):
        for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
            with socket.socket() as stranger:
                stranger.setsockopt(socket.SOL_SOCKET, option, 1)
                stranger.bind(("0.0.0.0", wanted))
                stranger.listen()


def write_without_end():
    os.write(1, b"nothing to see here\n" * 4096)


def have_children():
    for _ in range(8):
        if os.fork() == 0:
            os._exit(0)
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                break
        except ChildProcessError:
            break


def stop_and_go_on():
    # The one that serves: whoever looks at it finds it stopped.
    server = os.getppid()
    os.kill(server, signal.SIGSTOP)
    time.sleep(0.02)
    os.kill(server, signal.SIGCONT)


def plant_names():
    for name, target in (("server.pid", "/etc/shadow"), ("agent.sock", "/run"), ("core", "/dev/zero")):
        path = os.path.join(folder, name)
        if not os.path.lexists(path):
            os.symlink(target, path)
    fifo = os.path.join(folder, "other.pid")
    if not os.path.exists(fifo):
        os.mkfifo(fifo)


def knock():
    for path in sys.argv[5:]:
        with socket.socket(socket.AF_UNIX) as control:
            control.connect(path)
            control.sendall(b"DELETE /v1/services/%d HTTP/1.1\r\n" % neighbour)


# The listener is in other hands as well, which do not let it go at SIGTERM.
if os.fork() == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # The server first, or it would not get its own port.
    while b"server.py" not in open(f"/proc/{os.getppid()}/cmdline", "rb").read():
        time.sleep(0.01)
    time.sleep(0.3)
    for act, pause in ((bind_what_is_not_ours, 0.001), (write_without_end, 0.001), (have_children, 0.01),
                       (stop_and_go_on, 0.5), (plant_names, 1), (knock, 0.1)):
        again(act, pause)
    while time.monotonic() < END and os.getppid() != 1:
        time.sleep(0.1)
    os._exit(0)
for number in range(3):
    holder = socket.socket(socket.AF_UNIX)
    holder.bind(b"\0\xff\xfe not a name %d %d" % (os.getpid(), number))
    os.set_inheritable(holder.fileno(), True)
environment = {"PATH": "/usr/bin:/bin", "LARGE": "x" * 100_000, "LISTEN_FDS": "3", "NOTIFY_SOCKET": "/run/systemd/notify"}
os.execve("/usr/bin/python3", ["python3", server, str(port), generation, "--reuse-port", "--listeners", "100"], environment)
