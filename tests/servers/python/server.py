"""A small HTTP server whose answers tell its generation: server.py PORT GENERATION [options]"""

import argparse
import json
import os
import resource
import selectors
import socket
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
parser.add_argument("--listen-before", type=int, default=0, help="listen so often elsewhere first")
parser.add_argument("--listeners", type=int, default=1, help="listen so often (with --reuse-port)")
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
time.sleep(options.after)
for _ in range(options.listen_before):
    with socket.socket() as elsewhere:
        elsewhere.listen()


def listen():
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if options.reuse_port:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind((options.address, options.port))
    listener.listen(512)
    return listener


if options.listeners > 1:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
listeners = selectors.DefaultSelector()
for _ in range(options.listeners):
    listeners.register(listen(), selectors.EVENT_READ)
while True:
    for ready, _ in listeners.select():
        connection, _ = ready.fileobj.accept()
        threading.Thread(target=serve, args=(connection,), daemon=True).start()
