"""A client that speaks what the standard library does not: HTTP/2 and TLS, by way of curl."""

from __future__ import annotations

import os
import select
import subprocess
from collections.abc import Mapping

from tests.clients import Answer
from tests.components import need


class Curl(Answer):
    """One stream through curl, a stand-in for `tests.clients.Client`.

    Its answer has to be in the ``version`` of HTTP that was asked for: curl takes an older one
    without a word.
    """

    def __init__(
        self, url: str, *, headers: Mapping[str, str] = {}, version: str = "2", timeout: float = 10
    ) -> None:
        super().__init__(timeout)
        command = [need("curl"), "--silent", "--show-error", "--no-buffer", "--insecure"]
        command += [f"--http{version}", "--max-time", "60", "--include"]
        for name, value in headers.items():
            command += ["--header", f"{name}: {value}"]
        self._wanted_version = version
        self._head: bytes | None = b""
        self.process = subprocess.Popen([*command, url], stdout=subprocess.PIPE)

    def __enter__(self) -> Curl:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self, seconds: float | None = None) -> bool:
        assert self.process.stdout is not None
        descriptor = self.process.stdout.fileno()
        patience = self.timeout if seconds is None else seconds
        if self.ended or not select.select([descriptor], [], [], patience)[0]:
            return False
        data = os.read(descriptor, 65536)
        self.ended = not data
        if self._head is None:
            self._take(data)
        else:
            self._begin(self._head + data)
        return not self.ended

    def _begin(self, received: bytes) -> None:
        self._head, found, rest = received.partition(b"\r\n\r\n")
        if found:
            self._take_head(self._head)
            spoken = f"HTTP/{self.version} was spoken"
            assert self.version == self._wanted_version, spoken
            self._head = None
            self._take(rest)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
