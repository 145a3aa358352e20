"""Says which host name it was asked for; behind `TrustedHosts` only a known one arrives here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [environ.get("HTTP_HOST", "").encode()]
