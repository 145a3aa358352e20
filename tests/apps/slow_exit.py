"""`ticking`, in a worker that takes a second to exit once it serves nothing any more."""

from __future__ import annotations

import atexit
import time

from tests.apps.ticking import app

__all__ = ["app"]

atexit.register(time.sleep, 1)
