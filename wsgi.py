"""The demo application for a WSGI server: ``gunicorn -k gevent wsgi:app``.

SSEKIT_URL      the hub's broker; by default a file in the user's state folder
SSEKIT_HOSTS    the host names it answers to, besides those of this machine (localhost, 127.0.0.1)
SSEKIT_ORIGINS  the origins that may read the streams from other sites, or *
SSEKIT_TOKEN    the token that a request needs to publish; while it is unset, nobody can
SSEKIT_ROOM     who may send messages from the page: off, open, or (default) link
SSEKIT_SECRET   what the room's tokens are made from; by default kept in the user's state folder
"""

from pathlib import Path

from ssekit.demo.settings import from_environment

app = from_environment(Path(__file__).parent / "scripts" / "cgi-bin")
