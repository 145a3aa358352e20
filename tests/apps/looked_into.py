"""The application of the module that APP names, and at /inside what is open within its process."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any

module: Any = import_module(os.environ["APP"])


def inside() -> dict[str, int]:
    """The streams that the fan-out serves, and the connections that SQLAlchemy's pool lent."""
    found = {"taken": module.hub.stats().process.taken_over}
    if hasattr(module, "db"):
        with module.app.app_context():
            found["lent"] = module.db.engine.pool.checkedout()
    return found


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    if environ["PATH_INFO"] == "/inside":
        start_response("200 OK", [("Content-Type", "application/json")])
        return [json.dumps(inside()).encode()]
    return module.app(environ, start_response)  # type: ignore[no-any-return]
