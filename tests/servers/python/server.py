"""A small HTTP server whose answers tell its generation: server.py PORT GENERATION [options]"""

import argparse
import json
import os
import resource
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time

parser = argparse.ArgumentParser()
parser.add_argument("port", type=int)
parser.add_argument("generation", type=int)
parser.add_argument("--address", action="append", help="can be given again; the default is 0.0.0.0")
parser.add_argument("--reuse-port", action="store_true")
parser.add_argument("--no-reuse-address", action="store_true", help="as a server that nobody meant to restart")
parser.add_argument("--describe", metavar="FILE", help="write what the process was given")
parser.add_argument("--exit", type=int, help="end at once with this code")
parser.add_argument("--after", type=float, default=0, help="listen so many seconds later")
parser.add_argument("--note-term", metavar="FILE", help="write down each SIGTERM, and go on")
parser.add_argument("--exec-at-hup", action="store_true", help="start anew in place at SIGHUP")
parser.add_argument("--stray", action="store_true", help="start a child that inherits the listener, and lives on at SIGTERM")
parser.add_argument("--deaf", action="store_true", help="accept nothing; close the listener at SIGUSR1 and live on")
parser.add_argument("--listen-before", type=int, default=0, help="listen so often elsewhere first")
parser.add_argument("--accept-after", type=float, default=0, help="accept so many seconds after listening")
parser.add_argument("--rehearse", type=int, default=0, help="listen so often for a moment first, as a check of the configuration")
parser.add_argument("--defer", action="store_true", help="TCP_DEFER_ACCEPT")
parser.add_argument("--silent", action="store_true", help="accept, and say nothing ever")
parser.add_argument("--hang-up", action="store_true", help="accept, and close at once")
parser.add_argument("--die-after", type=float, help="die so many seconds after the first connection, between two answers")
parser.add_argument("--prefork", action="store_true", help="a master that listens, and workers that die and are started again")
parser.add_argument("--accept-only", type=int, metavar="N", help="accept nobody any more after so many")
parser.add_argument("--reopen", action="store_true", help="close the listener at SIGUSR1, and open it again at the next one")
parser.add_argument("--crash-at", type=int, metavar="N", help="die as soon as so many connections have sent something: probes send nothing")
parser.add_argument("--last-words", metavar="FILE", help="write the clients of all of them before")
parser.add_argument("--idle", type=int, default=0, metavar="N", help="start so many children that inherit the listener and do nothing")
parser.add_argument("--listeners", type=int, default=1, help="listen so often (with --reuse-port)")
parser.add_argument("--inherited", type=int, metavar="FD", help="listen on nothing: somebody passed this listener on")
parser.add_argument("--beside", type=int, metavar="PORT", help="listen there too")
parser.add_argument("--child", type=int, metavar="PORT", help="start another server there")
parser.add_argument("--pid-file", metavar="FILE", help="write the number there; removed at SIGTERM, whoever is named in it")
parser.add_argument("--empty-pid-file", action="store_true", help="empty it at SIGTERM, as who may not remove it")
parser.add_argument("--control", metavar="PATH", help="listen on this Unix socket too; removed at SIGTERM")
options = parser.parse_args()


def serve(connection):
    body = f"{options.generation}\n".encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with connection, connection.makefile("rb") as requests:
        if options.crash_at and requests.peek(1):
            count_to_crash()
        while requests.readline():
            close, length = False, 0
            while (line := requests.readline().strip().lower()) != b"":
                close = close or line == b"connection: close"
                if line.startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            requests.read(length)
            connection.sendall(head + body)
            if close:
                break


signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
if options.exec_at_hup:
    signal.signal(signal.SIGHUP, lambda *_: os.execv(sys.executable, [sys.executable, *sys.argv]))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
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


def listen(address, alone):
    listener = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, not options.no_reuse_address)
    if options.reuse_port:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if ":" in address:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not alone)
    listener.bind((address, options.port))
    if options.defer:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 30)
    listener.listen(512)
    listener.setblocking(False)
    return listener


def count_to_crash():
    # Whoever is accepted from here on would be missing in the last words.
    accepting.acquire()
    asked.append(None)
    if len(asked) < options.crash_at:
        accepting.release()
        return
    if options.last_words:
        with open(options.last_words + ".part", "w") as file:
            json.dump(clients, file)
        os.rename(options.last_words + ".part", options.last_words)
    os.kill(os.getpid(), signal.SIGKILL)


if options.listeners > 1:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
addresses = (options.address or ["0.0.0.0"]) * options.listeners
alone = len(set(addresses)) == 1
for _ in range(options.rehearse):
    for listener in [listen(address, alone) for address in addresses]:
        listener.close()
    time.sleep(0.05)
if options.inherited is not None:
    listeners = [socket.socket(fileno=options.inherited)]
    listeners[0].setblocking(False)
else:
    listeners = [listen(address, alone) for address in addresses]
if options.beside:
    beside = socket.create_server(("0.0.0.0", options.beside))
if options.child:
    child = [sys.executable, __file__, str(options.child), str(options.generation)]
    subprocess.Popen(child)
while options.prefork:
    worker = os.fork()
    if worker == 0:
        time.sleep(0.05)
        os._exit(3)
    os.waitpid(worker, 0)
for _ in range(options.idle):
    if os.fork() == 0:
        while True:
            signal.pause()
ready = selectors.DefaultSelector()
for listener in listeners:
    ready.register(listener, selectors.EVENT_READ)
if options.control:
    if os.path.exists(options.control):
        os.unlink(options.control)
    control = socket.socket(socket.AF_UNIX)
    control.bind(options.control)
    control.listen()
if options.pid_file:
    written = open(options.pid_file, "w")
    print(os.getpid(), file=written, flush=True)
if options.pid_file or options.control:

    def leave(*_):
        if options.empty_pid_file:
            os.ftruncate(written.fileno(), 0)
            os._exit(0)
        for path in filter(None, (options.pid_file, options.control)):
            if os.path.exists(path):
                os.unlink(path)
        os._exit(0)

    signal.signal(signal.SIGTERM, leave)
clients, asked, accepting = [], [], threading.Lock()
if options.stray:
    deaf = lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN)
    passed = [listener.fileno() for listener in listeners]
    subprocess.Popen(["sleep", "600"], pass_fds=passed, preexec_fn=deaf)
if options.deaf:
    signal.sigwait({signal.SIGUSR1})
    for listener in listeners:
        listener.close()
    signal.pause()
if options.reopen:

    def toggle(*_):
        if listeners:
            while listeners:
                ready.unregister(listeners[0])
                listeners.pop(0).close()
        else:
            listeners.extend(listen(address, alone) for address in addresses)
            for listener in listeners:
                ready.register(listener, selectors.EVENT_READ)

    signal.signal(signal.SIGUSR1, toggle)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
time.sleep(options.accept_after)
held = []
end = None
while True:
    found = ready.select(0.01 if options.die_after else None)
    if end and time.monotonic() >= end:
        while threading.active_count() > 1:
            time.sleep(0.001)
        os._exit(1)
    for key, _ in found:
        with accepting:
            try:
                connection, client = key.fileobj.accept()
            except BlockingIOError:
                continue
            clients.append(client[1])
        if len(clients) == options.accept_only:
            signal.pause()
        connection.setblocking(True)
        if options.die_after and end is None:
            end = time.monotonic() + options.die_after
        if options.silent:
            held.append(connection)
            continue
        if options.hang_up:
            connection.close()
            continue
        threading.Thread(target=serve, args=(connection,), daemon=True).start()
