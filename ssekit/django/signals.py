"""Streams end when their user or session may read no more.

Signing out, a deleted session, a deactivated or deleted user, and a changed password end the
streams of `ssekit.django.views.endpoint`, on every worker, within a second.  ``QuerySet.update``
sends no signal: after ``User.objects.filter(...).update(is_active=False)`` call
``hub.revoke(subject=str(user.pk))``.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any

from django.apps import apps
from django.contrib.auth import get_user_model
from django.contrib.auth.signals import user_logged_out
from django.db import transaction
from django.db.models.signals import post_delete, post_save
from django.utils import timezone

from ssekit.django.configuration import hub
from ssekit.django.views import session_id

SOON = 60.0
"""Seconds for which a session may still look valid to another request, after it was ended."""


def connect() -> None:
    """Connect the signals of the apps that are installed."""
    if not apps.is_installed("django.contrib.auth"):
        return
    user = get_user_model()
    user_logged_out.connect(_logged_out, dispatch_uid="ssekit.logged_out")
    post_save.connect(_user_saved, sender=user, dispatch_uid="ssekit.user_saved")
    post_delete.connect(_user_deleted, sender=user, dispatch_uid="ssekit.user_deleted")
    if apps.is_installed("django.contrib.sessions"):
        from django.contrib.sessions.models import Session

        post_delete.connect(_session_deleted, sender=Session, dispatch_uid="ssekit.session_deleted")


def _logged_out(request: Any, **_: Any) -> None:
    # The signal comes before the session is deleted.
    session = getattr(request, "session", None)
    if session is not None and session.session_key:
        _end_session(session.session_key)


def _session_deleted(instance: Any, **_: Any) -> None:
    if instance.expire_date > timezone.now():  # else its grants have expired with it
        _end_session(instance.session_key)


def _end_session(session_key: str) -> None:
    end = partial(hub.revoke, session=session_id(session_key), before=time.time() + SOON)
    transaction.on_commit(end)


def _user_saved(instance: Any, created: bool, **_: Any) -> None:
    if created:
        return
    # AbstractBaseUser keeps a password that was just set until the user is saved.
    if not getattr(instance, "is_active", True) or getattr(instance, "_password", None) is not None:
        _end_user(instance)


def _user_deleted(instance: Any, **_: Any) -> None:
    _end_user(instance)


def _end_user(user: Any) -> None:
    transaction.on_commit(partial(hub.revoke, subject=str(user.pk)))
