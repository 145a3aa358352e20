"""The demo application for a WSGI server: ``gunicorn -k gevent wsgi:app``.

SSEKIT_URL      the hub's broker; by default a file in the user's state folder
SSEKIT_ORIGINS  the origins that may read the streams from other sites, or *
SSEKIT_TOKEN    what a request has to bear to publish; nobody may while it is unset
SSEKIT_ROOM     who may send messages from the page: local (default), open or off
"""

import os
from pathlib import Path

from ssekit.demo.app import create, origins_of
from ssekit.hub import default_url

app = create(
    os.environ.get("SSEKIT_URL") or default_url(),
    origins=origins_of(os.environ.get("SSEKIT_ORIGINS", "")),
    token=os.environ.get("SSEKIT_TOKEN"),
    room=os.environ.get("SSEKIT_ROOM") or "local",
    scripts=Path(__file__).parent / "scripts" / "cgi-bin",
)
