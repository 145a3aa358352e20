"""ssekit for Django (4.2 and later, under WSGI): return a stream from a view.

`StreamResponse` makes a response of a stream, and ``streaming`` decorates a view that returns one.
Under gunicorn's gevent worker such a response costs no greenlet, and it never holds a database
connection.  Add ``"ssekit.django"`` to ``INSTALLED_APPS`` for the checks, the template tags and the
command, and ``SSEKIT = {"URL": ...}`` to your settings for `hub`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ssekit.lazy import exports

if TYPE_CHECKING:
    from ssekit.django.response import StreamResponse, streaming

__all__ = ["StreamResponse", "streaming"]

__getattr__ = exports(
    __name__,
    {
        "StreamResponse": "ssekit.django.response",
        "streaming": "ssekit.django.response",
    },
)
