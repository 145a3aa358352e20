"""Read a project's stream with ssekit.testing."""

from __future__ import annotations

from ssekit.testing import connect
from tests.apps.django_site.wsgi import app

from tests.apps.django_site.urls import hub  # isort: skip - the project has to be set up first

with connect(app, "/events") as stream:
    print(next(stream).event)
    hub.publish("news", "it works")
    print(next(stream).data)
