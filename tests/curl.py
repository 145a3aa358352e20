"""A client that speaks what the standard library does not: HTTP/2 and TLS, by way of curl."""

from __future__ import annotations

import os
import select
import subprocess
import time
from collections.abc import Mapping

from ssekit import Decoder, Event
from tests.components import need


class Curl:
    """One stream through curl, decoded as it comes; a stand-in for `tests.clients.Client`."""

    def __init__(
        self, url: str, *, headers: Mapping[str, str] = {}, version: str = "2", timeout: float = 10
    ) -> None:
        command = [need("curl"), "--silent", "--show-error", "--no-buffer", "--insecure"]
        command += [f"--http{version}", "--max-time", "60"]
        # The version of HTTP that was spoken goes to standard error, in front of curl's own words.
        command += ["--write-out", "%{stderr}%{http_version}\n"]
        for name, value in headers.items():
            command += ["--header", f"{name}: {value}"]
        self.process = subprocess.Popen(
            [*command, url], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self.timeout = timeout
        self.decoder = Decoder()
        self.events: list[Event] = []
        self.ended = False

    def __enter__(self) -> Curl:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self, seconds: float) -> bool:
        """Wait for more; false if none came in time or the answer has ended."""
        assert self.process.stdout is not None
        descriptor = self.process.stdout.fileno()
        if self.ended or not select.select([descriptor], [], [], seconds)[0]:
            return False
        data = os.read(descriptor, 65536)
        self.events += self.decoder.feed(data)
        self.ended = not data
        return not self.ended

    def wait(self, count: int, seconds: float | None = None) -> list[Event]:
        """Return the first ``count`` events; fails if they do not come in time."""
        deadline = time.monotonic() + (self.timeout if seconds is None else seconds)
        while len(self.events) < count:
            left = deadline - time.monotonic()
            if left <= 0 or self.ended:
                self.close()
                assert self.process.stderr is not None
                raise AssertionError(f"{count} events wanted, got {self.events}")
            self.read(left)
        return self.events[:count]

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait()
        for pipe in (self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()
