"""A random secret in a file: all workers of a machine share it, and it survives a restart."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

BYTES = 32


def find_secret(folder: Path) -> bytes:
    """Return the secret in ``folder``, after making its file if there is none.

    Raises OSError if it can be neither read nor made, and for a file that others can read.
    """
    path = folder / "secret"
    try:
        return _read(path)
    except FileNotFoundError:
        pass
    # Under a name of its own first: another worker must not read half of it.
    unnamed = folder / f".secret-{os.getpid()}-{secrets.token_hex(4)}"
    file = os.open(unnamed, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(file, secrets.token_bytes(BYTES))
        os.link(unnamed, path)
    except FileExistsError:
        pass  # another worker was faster
    finally:
        os.close(file)
        os.unlink(unnamed)
    return _read(path)


def _read(path: Path) -> bytes:
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.fstat(file)
        if found.st_uid != os.getuid() or found.st_mode & 0o077:
            raise PermissionError(f"{path} can be read by other users: delete it")
        secret = os.read(file, BYTES)
    finally:
        os.close(file)
    if len(secret) != BYTES:
        raise OSError(f"{path} is damaged: delete it")
    return secret
