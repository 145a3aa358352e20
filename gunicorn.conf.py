"""gunicorn reads this file from the current folder without being told."""

from ssekit.gunicorn import *  # noqa: F403
