"""Kill the greenlets that serve streams, and count the objects that remain."""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()
import gc
import sys

import gevent

from ssekit import Hub, Stream

hub = Hub()


def waiting():
    yield "first"
    gevent.sleep(60)


apps = {"subscription": hub.stream("news"), "source": Stream(waiting)}
app = apps[sys.argv[1]]


def serve():
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/"}
    blocks = app(environ, lambda status, headers: None)
    try:
        for _ in blocks:
            pass
    finally:
        blocks.close()


def serve_some():
    servers = [gevent.spawn(serve) for _ in range(200)]
    gevent.sleep(0.05)
    for server in servers:
        server.kill(block=False)
    gevent.joinall(servers)
    gevent.sleep(0.1)
    del servers, server
    gc.collect()
    return len(gc.get_objects())


staying = gevent.spawn(serve)
counts = [serve_some() for _ in range(6)]
print(counts[-1] - counts[0])
