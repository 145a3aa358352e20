"""Signing in and out, and a stream for each user, with the hub of the settings."""

from __future__ import annotations

from typing import Any

from django.contrib.auth import get_user_model, login, logout
from django.contrib.sessions.models import Session
from django.core.exceptions import PermissionDenied
from django.db import OperationalError, transaction
from django.http import HttpRequest, HttpResponse
from django.template import engines
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from ssekit import InvalidEvent
from ssekit.django import endpoint, hub, publish_on_commit

User = get_user_model()


def authorize(request: HttpRequest) -> list[str] | None:
    if "fail" in request.GET:
        raise OperationalError("too many connections")
    if "deny" in request.GET:
        raise PermissionDenied
    user = request.user
    return [f"user.{user.username}"] if user.is_authenticated else None


def sign_in(request: HttpRequest, name: str) -> HttpResponse:
    user, _ = User.objects.get_or_create(username=name)
    login(request, user, backend="django.contrib.auth.backends.ModelBackend")
    return HttpResponse("ok")


def sign_out(request: HttpRequest) -> HttpResponse:
    logout(request)
    return HttpResponse("ok")


@csrf_exempt
def change(request: HttpRequest, name: str, what: str) -> HttpResponse:
    user = User.objects.get(username=name)
    if what == "deactivate":
        user.is_active = False
        user.save()
    elif what == "password":
        user.set_password("another")
        user.save()
    elif what == "rename":
        user.first_name = "Ann"
        user.save()
    elif what == "delete":
        user.delete()
    elif what == "sessions":
        Session.objects.all().delete()
    return HttpResponse("ok")


def say(request: HttpRequest, name: str) -> HttpResponse:
    """Publish in a transaction, which ``?rollback`` undoes."""
    try:
        with transaction.atomic():
            Session.objects.create(session_key="written", expire_date="2000-01-01T00:00Z")
            publish_on_commit(f"user.{name}", request.GET["data"], request.GET.get("event"))
            Session.objects.filter(session_key="written").delete()
            if "rollback" in request.GET:
                raise LookupError
    except LookupError:
        pass
    except InvalidEvent:
        kept = Session.objects.filter(session_key="written").exists()
        return HttpResponse(f"InvalidEvent, and {'all' if kept else 'nothing'} was committed")
    return HttpResponse("ok")


def cursor(request: HttpRequest) -> HttpResponse:
    page: Any = engines["django"].from_string("{% load ssekit %}{% ssekit_cursor %}")
    return HttpResponse(page.render({}, request))


def position(request: HttpRequest) -> HttpResponse:
    return HttpResponse(hub.position())


urlpatterns = [
    path("events", endpoint(hub, authorize, heartbeat=0.5)),
    path("sign-in/<name>", sign_in),
    path("sign-out", sign_out),
    path("change/<name>/<what>", change),
    path("say/<name>", say),
    path("cursor", cursor),
    path("position", position),
]
