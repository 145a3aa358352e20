"""ssekit for Django (4.2 and later, under WSGI): return a stream from a view.

`StreamResponse` makes a response of a stream, and `streaming` decorates a view that returns one.
`endpoint` is a view for many users.  Under gunicorn's gevent worker such a response costs no
greenlet, and it never holds a database connection.

Add ``"ssekit.django"`` to ``INSTALLED_APPS`` and ``SSEKIT = {"URL": "sqlite:////var/lib/app/hub.db"}``
to your settings: then there are `hub`, the system checks, the template tags and the command
``ssekit_listen``, and signing out ends streams.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ssekit.lazy import exports

if TYPE_CHECKING:
    from ssekit.django.configuration import hub
    from ssekit.django.publishing import publish_on_commit
    from ssekit.django.response import StreamResponse, streaming
    from ssekit.django.views import endpoint

__all__ = ["StreamResponse", "endpoint", "hub", "publish_on_commit", "streaming"]

__getattr__ = exports(
    __name__,
    {
        "StreamResponse": "ssekit.django.response",
        "endpoint": "ssekit.django.views",
        "hub": "ssekit.django.configuration",
        "publish_on_commit": "ssekit.django.publishing",
        "streaming": "ssekit.django.response",
    },
)
