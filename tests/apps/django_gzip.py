"""A Django with GZipMiddleware and a stream, as many have it, and one that it leaves alone."""

from __future__ import annotations

import time
from collections.abc import Iterator

import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, StreamingHttpResponse
from django.urls import path
from django.views.decorators.http import require_safe

settings.configure(
    ALLOWED_HOSTS=["*"],
    MIDDLEWARE=["django.middleware.gzip.GZipMiddleware"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="for a test",
)
django.setup()


def ticks(request: HttpRequest) -> Iterator[str]:
    if request.method == "HEAD":
        return
    yield "retry: 2000\n\n"
    for number in range(int(request.headers.get("Last-Event-ID", 0)) + 1, 1000):
        yield f"data: {number}\nid: {number}\n\n"
        time.sleep(0.2)


@require_safe
def stream(request: HttpRequest, **headers: str) -> StreamingHttpResponse:
    headers = {"Cache-Control": "no-cache", **headers}
    return StreamingHttpResponse(ticks(request), content_type="text/event-stream", headers=headers)


urlpatterns = [
    path("stream", stream),
    path("untouched", stream, {"Content-Encoding": "identity"}),
]
app = get_wsgi_application()
