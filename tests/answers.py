"""A request without a server: ``status, headers, body = request("GET", app)``."""

from __future__ import annotations

from typing import Any


def request(method: str, app: Any, **environ: str) -> tuple[int, dict[str, str], bytes]:
    seen: list[Any] = []

    def start_response(status: str, headers: list[tuple[str, str]]) -> None:
        seen.append((int(status[:3]), dict(headers)))

    body = b"".join(app({"REQUEST_METHOD": method, **environ}, start_response))
    return *seen[0], body
