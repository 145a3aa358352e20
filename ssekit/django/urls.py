"""Addresses of ssekit's own: ``path("ssekit/", include("ssekit.django.urls"))`` serves ssekit.js.

``{% ssekit_script %}`` finds it there.  The file may be served from elsewhere as well, by whatever
serves `ssekit.browser.files` or a copy of it; nothing else in a project needs these addresses.
"""

from __future__ import annotations

from django.urls import path

from ssekit.django.files import file

app_name = "ssekit"
urlpatterns = [path("<str:name>", file, name="file")]
