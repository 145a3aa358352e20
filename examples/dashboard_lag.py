"""Draw how far a slow viewer is behind, with keys and without: python dashboard_lag.py lag.svg

A server of its own streams five metrics that change 40 times a second each.  Two viewers read 4 KB
a second: one of events with keys, one of events without.  What is drawn is measured: the age of the
newest event that each has read, second by second.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import parse_qs, urlencode

from ssekit import Decoder, Hub
from ssekit.hub import default_url

SECONDS, RATE, READ = int(os.environ.get("SECONDS", "60")), 40, 4096
PAD = "." * 100  # as long as real ones
COLOURS = {"with keys": "#1a7f37", "without": "#cf222e"}


def app(environ, start_response):  # type: ignore[no-untyped-def]
    hub = streams.setdefault("hub", Hub(default_url(), history=20_000))
    channel = parse_qs(environ["QUERY_STRING"])["channel"][0]
    return hub.stream(channel)(environ, start_response)


streams: dict[str, Hub] = {}


def publish(stop: threading.Event) -> None:
    with Hub(default_url()) as hub:
        due = time.monotonic()
        while not stop.is_set():
            for metric in "abcde":
                data = {"metric": metric, "at": time.time(), "pad": PAD}
                hub.publish("with keys", data, key=metric)
                hub.publish("without", data)
            due += 1 / RATE
            stop.wait(max(0, due - time.monotonic()))


def connect(port: int, channel: str, last_event_id: str) -> socket.socket:
    """Ask for the stream, with a buffer as small as a slow line's."""
    viewer = socket.socket()
    viewer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, READ)
    viewer.connect(("127.0.0.1", port))
    query = urlencode({"channel": channel, "last_event_id": last_event_id})
    viewer.sendall(f"GET /?{query} HTTP/1.0\r\n\r\n".encode())
    return viewer


def watch(port: int, channel: str, lags: list[float]) -> None:
    """Read slowly, come back as a browser does, and note the lag each second."""
    decoder, newest = Decoder(), time.time()
    viewer = connect(port, channel, "")
    for _ in range(SECONDS):
        second = time.monotonic()
        data = b""
        with suppress(ConnectionError):
            data = viewer.recv(READ)
        if not data:
            viewer.close()
            last, decoder = decoder.last_event_id, Decoder()
            viewer = connect(port, channel, last)
        for event in decoder.feed(data):
            if event.event == "message":
                newest = json.loads(event.data)["at"]
        lags.append(time.time() - newest)
        time.sleep(max(0, 1 - (time.monotonic() - second)))
    viewer.close()


def drawing(lags: dict[str, list[float]]) -> str:
    """Return the lags as an SVG: seconds to the right, seconds of lag upwards."""
    top = max(max(line) for line in lags.values())
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 260" font-family="sans-serif">'
    ]
    parts.append('<rect width="640" height="260" fill="#fff"/>')
    parts.append(f'<text x="10" y="20" font-size="13">seconds behind, up to {top:.0f}</text>')
    parts.append(f'<text x="630" y="252" font-size="13" text-anchor="end">{SECONDS} s</text>')
    for n, (name, line) in enumerate(lags.items()):
        points = " ".join(
            f"{10 + 620 * i / (len(line) - 1):.0f},{235 - 200 * lag / top:.0f}"
            for i, lag in enumerate(line)
        )
        colour = COLOURS[name]
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>'
        )
        label = f"{name}: {line[-1]:.1f} s at the end"
        parts.append(
            f'<text x="10" y="{45 + 18 * n}" font-size="13" fill="{colour}">{label}</text>'
        )
    return "\n".join([*parts, "</svg>\n"])


def main(target: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    stop = threading.Event()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SSEKIT_URL"] = f"sqlite:///{folder}/hub.db"
        command = [sys.executable, "-m", "gunicorn", "-k", "gevent", "--config", "/dev/null"]
        command += ["--bind", f"127.0.0.1:{port}", "--chdir", str(Path(__file__).parent)]
        server = subprocess.Popen([*command, "dashboard_lag:app"])  # noqa: S603 - our own
        try:
            while server.poll() is None:
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                except OSError:
                    time.sleep(0.1)
            lags: dict[str, list[float]] = {name: [] for name in COLOURS}
            viewers = [threading.Thread(target=watch, args=(port, *one)) for one in lags.items()]
            publisher = threading.Thread(target=publish, args=(stop,))
            for thread in (*viewers, publisher):
                thread.start()
            for thread in viewers:
                thread.join()
            stop.set()
            publisher.join()
        finally:
            server.terminate()
            server.wait()
    Path(target).write_text(drawing(lags))


if __name__ == "__main__":
    main(sys.argv[1])
