"""A small HTTP server whose answers tell its generation: server.py PORT GENERATION [options]"""

import argparse
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time

parser = argparse.ArgumentParser()
parser.add_argument("port", type=int)
parser.add_argument("generation", type=int)
parser.add_argument("--address", default="0.0.0.0")
parser.add_argument("--reuse-port", action="store_true")
parser.add_argument("--describe", metavar="FILE", help="write what the process was given")
parser.add_argument("--exit", type=int, help="end at once with this code")
parser.add_argument("--after", type=float, default=0, help="listen so many seconds later")
parser.add_argument("--note-term", metavar="FILE", help="write down each SIGTERM, and go on")
parser.add_argument("--stray", action="store_true", help="start a child that inherits the listener")
parser.add_argument("--deaf", action="store_true", help="accept nothing; close the listener at SIGUSR1 and live on")
parser.add_argument("--listen-before", type=int, default=0, help="listen so often elsewhere first")
options = parser.parse_args()


def serve(connection):
    body = f"{options.generation}\n".encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with connection, connection.makefile("rb") as requests:
        while requests.readline():
            close = False
            while (line := requests.readline().strip().lower()) != b"":
                close = close or line == b"connection: close"
            connection.sendall(head + body)
            if close:
                break


signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
if options.exit is not None:
    print("the configuration is broken", flush=True)
    sys.exit(options.exit)
if options.describe:
    with open(options.describe, "w") as file:
        given = {
            "directory": os.getcwd(),
            "environment": dict(os.environ),
            "user": os.getresuid(),
            "group": os.getresgid(),
            "groups": os.getgroups(),
            "open files": resource.getrlimit(resource.RLIMIT_NOFILE),
        }
        json.dump(given, file)
if options.note_term:

    def note(*_):
        with open(options.note_term, "a") as file:
            file.write("told\n")

    signal.signal(signal.SIGTERM, note)
time.sleep(options.after)
for _ in range(options.listen_before):
    with socket.socket() as elsewhere:
        elsewhere.listen()
listener = socket.socket(socket.AF_INET6 if ":" in options.address else socket.AF_INET)
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
if options.reuse_port:
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
listener.bind((options.address, options.port))
listener.listen(512)
if options.stray:
    subprocess.Popen(["sleep", "600"], pass_fds=[listener.fileno()])
if options.deaf:
    signal.sigwait({signal.SIGUSR1})
    listener.close()
    signal.pause()
while True:
    connection, _ = listener.accept()
    threading.Thread(target=serve, args=(connection,), daemon=True).start()
