"""A Django with GZipMiddleware and a stream, as many have it."""

from __future__ import annotations

import time
from collections.abc import Iterator

import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, StreamingHttpResponse
from django.urls import path

settings.configure(
    ALLOWED_HOSTS=["*"],
    MIDDLEWARE=["django.middleware.gzip.GZipMiddleware"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="for a test",
)
django.setup()


def ticks() -> Iterator[str]:
    yield "retry: 2000\n\n"
    for number in range(1, 1000):
        yield f"data: {number}\nid: {number}\n\n"
        time.sleep(0.2)


def stream(request: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse(
        ticks(), content_type="text/event-stream", headers={"Cache-Control": "no-cache"}
    )


urlpatterns = [path("stream", stream)]
app = get_wsgi_application()
