"""A WSGI application whose answers tell its version, which is read when the program is loaded."""

import os

with open(os.environ["BENCH_VERSION"], encoding="ascii") as file:
    LINE = f"{int(file.read())}\n".encode()
STREAM = (LINE * (4 * 1024 * 1024 // len(LINE) + 1))[: 4 * 1024 * 1024]


def application(environment, start_response):
    path = environment["PATH_INFO"]
    body = STREAM if path == "/stream" else LINE
    if path == "/upload":
        environment["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
