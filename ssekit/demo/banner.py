"""What ``scripts/serve`` prints before gunicorn starts: ``python -m ssekit.demo.banner HOST:PORT``.

It ends with an error if the address is in use, which gunicorn would report after several tries.
"""

from __future__ import annotations

import errno
import os
import platform
import socket
import sys
from importlib.metadata import version

import ssekit
from ssekit.demo.room import link_key
from ssekit.demo.settings import room_of

TEXT = """\
------------------------------- ssekit -------------------------------
ssekit {ssekit}   Python {python}   gunicorn {gunicorn}   gevent {gevent}
page      {page}
streams   /clock   /hello   /scripts/clock.py   /events?channel=room
hosts     {hosts}
room      {room}
publish   {publish}
----------------------------------------------------------------------
Press Ctrl+C to stop."""
ROOMS = {
    "off": "closed (SSEKIT_ROOM)",
    "link": "open to everybody who has the link above",
    "open": "open to everybody who can load the page",
}


def main(bind: str) -> None:
    host, _, port = bind.rpartition(":")
    try:
        if port.isdecimal():
            socket.create_server((host, int(port))).close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            sys.exit(
                f"ssekit: {bind} is already in use; choose another address: "
                f"SSEKIT_BIND={host}:{int(port) + 1} scripts/serve"
            )
    mode, secret = room_of(os.environ)
    key = f"?key={link_key(secret)}" if mode == "link" else ""
    token = os.environ.get("SSEKIT_TOKEN")
    print(
        TEXT.format(
            ssekit=ssekit.__version__,
            python=platform.python_version(),
            gunicorn=version("gunicorn"),
            gevent=version("gevent"),
            page=f"http://{bind.replace('0.0.0.0', '127.0.0.1')}/{key}",  # noqa: S104
            hosts=f"localhost {os.environ.get('SSEKIT_HOSTS', '(others: SSEKIT_HOSTS)')}",
            room=ROOMS.get(mode, mode),
            publish="with SSEKIT_TOKEN" if token else "off (SSEKIT_TOKEN is not set)",
        )
    )


if __name__ == "__main__":
    main(sys.argv[1])
