"""A real Prometheus that scrapes a server of ours."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import urlopen

from tests.components import need
from tests.ports import free_port
from tests.servers import running
from tests.waiting import until

CONFIGURATION = """\
global:
  scrape_interval: 500ms
  scrape_timeout: 500ms
scrape_configs:
  - job_name: ssekit
    authorization:
      credentials: {token}
    static_configs:
      - targets: ["127.0.0.1:{port}"]
"""


class Prometheus:
    def __init__(self, url: str) -> None:
        self._url = url

    def ready(self) -> bool:
        """Return whether it answers queries."""
        with suppress(HTTPError), urlopen(f"{self._url}/-/ready") as answer:
            return bool(answer.status == 200)
        return False

    def ask(self, query: str) -> list[dict[str, Any]]:
        """Return the series that a query finds; it fails if Prometheus does not accept it."""
        with urlopen(f"{self._url}/api/v1/query?{urlencode({'query': query})}") as answer:
            said = json.loads(answer.read())
        assert said["status"] == "success", said
        result: list[dict[str, Any]] = said["data"]["result"]
        return result

    def value(self, query: str) -> float | None:
        """Return the value of a query that finds at most one series."""
        found = self.ask(query)
        assert len(found) <= 1, found
        return float(found[0]["value"][1]) if found else None


@contextmanager
def prometheus(folder: Path, port: int, token: str) -> Iterator[Prometheus]:
    """Run Prometheus, which scrapes 127.0.0.1:``port``."""
    program = need("prometheus")
    configuration = folder / "prometheus.yml"
    configuration.write_text(CONFIGURATION.format(token=token, port=port))
    own = free_port()
    command = [program, f"--config.file={configuration}", f"--storage.tsdb.path={folder}/data"]
    command += [f"--web.listen-address=127.0.0.1:{own}", "--log.level=warn"]
    command += ["--query.lookback-delta=5s"]
    with running(command, own, env={"GOMAXPROCS": "1"}, cwd=Path(os.sep)) as server:
        found = Prometheus(server.url)
        until(found.ready, 20, "Prometheus to be ready")
        until(lambda: found.value("up"), 20, "the first scrape")
        yield found
