"""Has its listener in a ring of io_uring only, without a descriptor, and accepts nothing: ring.py PORT"""

import ctypes
import signal
import socket
import sys

SETUP, REGISTER, REGISTER_FILES = 425, 427, 2
libc = ctypes.CDLL(None, use_errno=True)
listener = socket.create_server(("0.0.0.0", int(sys.argv[1])))
ring = libc.syscall(SETUP, 8, ctypes.create_string_buffer(120))
files = (ctypes.c_int * 1)(listener.fileno())
if ring < 0 or libc.syscall(REGISTER, ring, REGISTER_FILES, files, 1) < 0:
    sys.exit(f"no ring: errno {ctypes.get_errno()}")
listener.close()
signal.pause()
