"""Serve tests.apps.sources with wsgiref, a thread for each client."""

from __future__ import annotations

import sys
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIServer, make_server

from tests.apps.sources import app


class Threads(ThreadingMixIn, WSGIServer):
    daemon_threads = True


make_server("127.0.0.1", int(sys.argv[1]), app, Threads).serve_forever()
