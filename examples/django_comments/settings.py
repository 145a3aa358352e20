"""Comments with notifications; DATABASE_URL is a PostgreSQL's, and sqlite is used without one.

In PostgreSQL the hub is in the same database, so that a comment and its events are one transaction.
"""

import os
from pathlib import Path
from urllib.parse import urlsplit

FOLDER = Path(os.environ.get("DATA", Path(__file__).parent))
DATABASE = urlsplit(os.environ.get("DATABASE_URL", ""))

SECRET_KEY = os.environ.get("SECRET_KEY", "only for trying this example")
DEBUG = "SECRET_KEY" not in os.environ
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": DATABASE.path.removeprefix("/"),
        "USER": DATABASE.username,
        "PASSWORD": DATABASE.password,
        "HOST": DATABASE.hostname,
        "PORT": DATABASE.port,
    }
    if DATABASE.scheme
    else {"ENGINE": "django.db.backends.sqlite3", "NAME": FOLDER / "comments.sqlite3"}
}
HUB = DATABASE.geturl() or f"sqlite:///{FOLDER}/hub.db"
SSEKIT = {"URL": os.environ.get("SSEKIT_URL", HUB)}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "ssekit.django",
    "comments",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
LOGIN_URL = "/admin/login/"
ROOT_URLCONF = "urls"
STATIC_URL = "/static/"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
USE_TZ = True
