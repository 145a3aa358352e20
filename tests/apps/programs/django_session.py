"""Store a session of a user of Django and print its key."""

from __future__ import annotations

from importlib import import_module

from django.conf import settings

store = import_module(settings.SESSION_ENGINE).SessionStore()
store["_auth_user_id"] = "1"
store.save()
print(store.session_key)
