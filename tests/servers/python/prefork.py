"""A master that listens on nothing: prefork.py SERVER PORT GENERATION WORKERS

Its workers are servers of their own, each with a listener that shares the port. One that ends is replaced, SIGHUP adds one,
and SIGTERM ends all.
"""

import os
import signal
import subprocess
import sys

server, port, generation, count = sys.argv[1:]
workers = set()


def start(*_):
    command = [sys.executable, server, port, generation, "--reuse-port"]
    workers.add(subprocess.Popen(command).pid)


def end(*_):
    for worker in workers:
        os.kill(worker, signal.SIGTERM)
    os._exit(0)


signal.signal(signal.SIGHUP, start)
signal.signal(signal.SIGTERM, end)
for _ in range(int(count)):
    start()
while True:
    ended, _ = os.wait()
    workers.discard(ended)
    start()
