"""Ask the host 10.99.0.1 for a stream and print its bytes."""

from __future__ import annotations

import socket
import sys

viewer = socket.create_connection(("10.99.0.1", 8000))
viewer.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
while data := viewer.recv(65536):
    sys.stdout.buffer.write(data)
    sys.stdout.flush()
