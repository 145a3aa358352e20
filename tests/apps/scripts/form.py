"""A CGI script of a WSGI application that uses ``write`` and reads the request's body."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from ssekit.cgi import run


def app(environ, start_response):
    body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
    start_response("200 OK", [("Content-Type", "text/plain")])(b"write ")
    return [environ["PATH_INFO"].encode("latin-1"), b" ", body]


run(app)
