"""Commits, and is killed before Django calls anything that waits for the commit."""

from __future__ import annotations

import os
import signal

import django
from django.db import transaction

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.apps.django_site.settings")
django.setup()

from ssekit.django import publish_on_commit

try:
    with transaction.atomic():
        publish_on_commit("news", "rolled back")
        raise LookupError
except LookupError:
    pass
with transaction.atomic():
    transaction.on_commit(lambda: os.kill(os.getpid(), signal.SIGKILL))
    publish_on_commit("news", "committed")
