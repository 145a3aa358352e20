"""DATABASE is a postgresql URL, or sqlite without one; MIDDLEWARE names classes to put in front."""

from __future__ import annotations

import os
import tempfile
from typing import Any
from urllib.parse import urlsplit


def database(url: str | None) -> dict[str, Any]:
    age = os.environ.get("CONN_MAX_AGE", "0")
    common: dict[str, Any] = {
        "ATOMIC_REQUESTS": os.environ.get("ATOMIC") == "1",
        "CONN_MAX_AGE": None if age == "None" else int(age),
    }
    if url is None:
        file = os.environ.get("FILE", f"{tempfile.gettempdir()}/unused.sqlite")
        return {"ENGINE": "django.db.backends.sqlite3", "NAME": file, **common}
    parts = urlsplit(url)
    pool = {"pool": {"min_size": 1, "max_size": 4}} if os.environ.get("POOL") == "1" else {}
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": parts.path.removeprefix("/").partition("?")[0],
        "HOST": parts.hostname,
        "PORT": parts.port,
        "USER": parts.username,
        "OPTIONS": pool,
        **common,
    }


ALLOWED_HOSTS = ["*"]
ASGI_APPLICATION = os.environ.get("ASGI")
DATABASES = {"default": database(os.environ.get("DATABASE"))}
DEBUG = os.environ.get("DEBUG") == "1"
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    *filter(None, os.environ.get("APPS", "").split(",")),
]
INTERNAL_IPS = ["127.0.0.1"]
MIDDLEWARE = [
    *filter(None, os.environ.get("MIDDLEWARE", "").split(",")),
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
SSEKIT = {"URL": os.environ.get("HUB"), os.environ.get("HUB_OPTION", "HISTORY"): 100}
SESSION_ENGINE = os.environ.get("SESSION_ENGINE", "django.contrib.sessions.backends.db")
ROOT_URLCONF = "tests.apps.django_site.urls"
SECRET_KEY = os.environ.get("SECRET_KEY", "for a test, and long enough for it")
SECURE_REFERRER_POLICY = "same-origin"
STATIC_URL = "/static/"
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]
USE_I18N = True
USE_TZ = True
WSGI_APPLICATION = "tests.apps.django_site.wsgi.app"
