"""A real redis-server on a unix socket, that can be stopped, killed and started again."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.waiting import until

StartRedis = Callable[..., "RedisServer"]
"""The fixture ``start_redis``: starts a server of the test's own, which ends with the test."""


class RedisServer:
    """Keeps an append-only file, so that what it acknowledged survives its death."""

    def __init__(self, folder: Path, *options: str, program: str | None = None) -> None:
        self.path = folder / "redis.sock"
        self.url = f"unix://{self.path}"
        if program is None:
            from tests.components import need  # pytest's, which a bench does not have

            program = need("redis-server")
        self._command = [program, "--port", "0", "--unixsocket", str(self.path)]
        self._command += ["--dir", str(folder), "--save", "", "--appendonly", "yes"]
        # The default, everysec, writes late while the disk is busy: a kill then loses answers.
        self._command += ["--appendfsync", "always", *options]
        self._log = folder / "redis.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log)
        until(self._answers, 20, "redis-server to answer")

    def _answers(self) -> bool:
        try:
            return self.command("PING") == b"+PONG\r\n"
        except OSError:
            return False

    def command(self, *words: str) -> bytes:
        """Send one command; returns the raw answer, as far as it comes at once."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(str(self.path))
            parts = [f"*{len(words)}", *(f"${len(word)}\r\n{word}" for word in words), ""]
            connection.sendall("\r\n".join(parts).encode())
            answer = connection.recv(65536)
            if answer.startswith(b"$") and not answer.startswith(b"$-"):
                head, _, body = answer.partition(b"\r\n")
                while len(body) < int(head[1:]) + 2:
                    body += connection.recv(65536)
                return body[:-2]
            return answer

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        assert self.process is not None
        self.process.terminate()
        self.process.wait(20)

    def end(self) -> None:
        """Stop it wherever it is."""
        if self.process is not None and self.process.poll() is None:
            self.kill()
