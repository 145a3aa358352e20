"""The keys that verify JSON Web Tokens: one, or a set (JWKS, RFC 7517) in a file or at a URL.

A set is kept in memory.  A token's header chooses a key by its id, and anybody can write a header:
so a set is looked at again for an unknown id at most once in `EVERY` seconds.
"""

from __future__ import annotations

import json
import logging
import threading
import time
import urllib.request
from os import PathLike, stat
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import jwt

log = logging.getLogger("ssekit.access")

EVERY = 10.0
"""Seconds between two looks at a set."""
TIMEOUT = 5.0
"""Seconds that the server of a set has to answer."""
LARGEST = 1024 * 1024
"""Bytes of a set at the most."""
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class KeyUnknown(Exception):
    """Raised if a token names a key that is not there, or none where there are several."""


class Keys(Protocol):
    """Something that finds the key of a token."""

    def find(self, kid: object) -> Any:
        """Return the key with this id, from a token's header.  Raises `KeyUnknown`."""


class FixedKey:
    """The one key of all tokens, whatever id they name."""

    def __init__(self, key: str | bytes) -> None:
        self._key = key

    def find(self, kid: object) -> Any:
        return self._key


class KeySet:
    """A set that `_load` reads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._keys: dict[str | None, jwt.PyJWK] = {}
        self._looked_at = -EVERY

    def find(self, kid: object) -> Any:
        key = self._known(kid)
        if key is None:
            self._look_again()
            key = self._known(kid)
        if key is None:
            raise KeyUnknown(f"no key {kid!r:.80}")
        return key

    def _known(self, kid: object) -> jwt.PyJWK | None:
        if kid is None:
            return next(iter(self._keys.values())) if len(self._keys) == 1 else None
        return self._keys.get(kid) if isinstance(kid, str) else None

    def _look_again(self) -> None:
        with self._lock:  # Others wait for the one look, and then find what it has found.
            now = time.monotonic()
            if now - self._looked_at < EVERY:
                return
            self._looked_at = now
            try:
                text = self._load()
                found = jwt.PyJWKSet.from_dict(json.loads(text)).keys
            except (OSError, ValueError, jwt.PyJWTError) as error:
                log.error("the key set %s cannot be read: %s", self, error)
                return
            self._keys = {key.key_id: key for key in found}

    def _load(self) -> bytes:
        raise NotImplementedError


class KeyFile(KeySet):
    """A set in a file, read again when the file has changed."""

    def __init__(self, path: str | PathLike[str]) -> None:
        super().__init__()
        self._path = Path(path)
        self._version: tuple[int, int] | None = None

    def __str__(self) -> str:
        return str(self._path)

    def find(self, kid: object) -> Any:
        try:
            state = stat(self._path)
        except OSError:
            version = None
        else:
            version = (state.st_mtime_ns, state.st_size)
        if version != self._version:
            self._version, self._looked_at = version, -EVERY
            self._look_again()
        return super().find(kid)

    def _load(self) -> bytes:
        return self._path.read_bytes()


class KeyUrl(KeySet):
    """A set at an ``https://`` URL, which is asked for again when a token names an unknown key.

    Raises ValueError for ``http://``, except from this very machine.
    """

    def __init__(self, url: str) -> None:
        super().__init__()
        parts = urlsplit(url)
        if parts.scheme != "https" and parts.hostname not in _LOOPBACK:
            raise ValueError(f"keys need https: anybody on the way could replace those of {url!r}")
        self._url = url

    def __str__(self) -> str:
        return self._url

    def _load(self) -> bytes:
        with urllib.request.urlopen(self._url, timeout=TIMEOUT) as answer:  # noqa: S310
            text: bytes = answer.read(LARGEST + 1)
        if len(text) > LARGEST:
            raise ValueError(f"the set is larger than {LARGEST} bytes")
        return text
