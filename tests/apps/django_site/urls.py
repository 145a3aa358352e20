"""Streams behind views that use the database, and addresses to publish and to look inside."""

from __future__ import annotations

import os
from typing import Any

from django.apps import apps
from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.urls import include, path
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe
from django.views.decorators.vary import vary_on_headers

from ssekit import Hub, Stream, every
from ssekit.django import StreamResponse, streaming

hub = Hub(os.environ.get("NEWS_HUB", "memory:"))


def use_the_database() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")


@require_safe
@vary_on_headers("Cookie")
def events(request: HttpRequest) -> StreamResponse:
    use_the_database()
    request.session["seen"] = request.session.get("seen", 0) + 1  # saved after the view
    return StreamResponse(hub.stream("news", heartbeat=0.2), request)


@csrf_exempt  # so that a POST reaches the stream
@streaming
def decorated(request: HttpRequest) -> Any:
    use_the_database()
    return hub.stream("news") if "ok" in request.GET else HttpResponse("no", status=403)


@streaming
def ticking(request: HttpRequest) -> Any:
    use_the_database()
    return Stream(lambda: ({"tick": number} for number, _ in enumerate(every(0.05))))


@streaming
def writing(request: HttpRequest) -> Any:
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO written VALUES (1)")
    return hub.stream("news")


def publishing(request: HttpRequest) -> HttpResponse:
    return HttpResponse(hub.publish("news", request.GET["data"]).id)


def inside(request: HttpRequest) -> HttpResponse:
    """How many streams the fan-out serves."""
    return HttpResponse(str(hub.stats().process.taken_over))


urlpatterns = [
    path("events", events),
    path("decorated", decorated),
    path("ticking", ticking),
    path("writing", writing),
    path("publish", publishing),
    path("inside", inside),
]
if apps.is_installed("ssekit.django"):
    urlpatterns.append(path("users/", include("tests.apps.django_site.users")))
if apps.is_installed("debug_toolbar"):
    urlpatterns.append(path("__debug__/", include("debug_toolbar.urls")))
