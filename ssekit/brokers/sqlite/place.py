"""Where a ``sqlite:`` log may live: which links are followed, and what is in a place already.

Nothing here changes anything.  A program of root's may be given a path in a folder where others can
write; they must not be able to lead it to a file that it would then create, change or delete.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
import time
from collections import deque
from urllib.parse import quote

from ssekit.errors import BrokerUnavailable

_MOST_LINKS = 40  # Linux' MAXSYMLINKS

_LOOKS, _PAUSE = 3, 0.02
"""How often, and after how many seconds, a header is read that says nothing.

It is read without locks, so another process may just be writing it.
"""

APPLICATION = 0x55E717
"""The "application_id" in the header of a log, which file(1) shows."""

VERSION = 4
"""The version of the tables, "user_version" in the header."""


def resolved(name: str) -> str:
    """Return the path without links; raises `BrokerUnavailable` for a link of another user's.

    The rule is that of Linux' protected_symlinks, but for any folder: a link is followed if it
    belongs to the user of this process or to root.
    """
    path, links = "/", 0
    parts = deque(os.path.abspath(name).split("/"))
    while parts:
        part = parts.popleft()
        if part == "..":
            path = os.path.dirname(path)
        if part in ("", ".", ".."):
            continue
        here = os.path.join(path, part)
        try:
            found = os.lstat(here)
        except FileNotFoundError:
            return os.path.join(here, *parts)
        if not stat.S_ISLNK(found.st_mode):
            path = here
            continue
        if found.st_uid not in (0, os.geteuid()):
            raise BrokerUnavailable(
                f"{here} is a link that belongs to another user (uid {found.st_uid}), who could"
                " lead it anywhere: name the file that it leads to"
            )
        links += 1
        if links > _MOST_LINKS:
            raise BrokerUnavailable(f"{name}: {os.strerror(errno.ELOOP)}")
        target = os.readlink(here)
        if os.path.isabs(target):
            path = "/"
        parts.extendleft(reversed(target.split("/")))
    return path


def identity(path: str) -> tuple[int, int] | None:
    """Return what tells a file from others that had or will have its name."""
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino


def holds_log(path: str) -> bool:
    """Tell whether a log is at a resolved path; false if nothing is, or an empty file.

    Raises `BrokerUnavailable` for anything else.
    """
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return False
    if not stat.S_ISREG(found.st_mode):
        raise BrokerUnavailable(f"{path} is not a file: name another")
    folder = os.stat(os.path.dirname(path))
    if folder.st_mode & stat.S_IWOTH and found.st_uid not in (0, os.geteuid(), folder.st_uid):
        # As Linux' protected_regular: it may wait there for somebody's events.
        raise BrokerUnavailable(
            f"{path} belongs to another user (uid {found.st_uid}), in a folder that everybody may"
            " write to: use a folder of your own"
        )
    if found.st_size == 0:
        return False
    application, version = _header(path)
    if application != APPLICATION:
        raise BrokerUnavailable(f"{path} is a database of something else: name another file")
    if version != VERSION:
        raise BrokerUnavailable(
            f"{path} was written by another version of ssekit (its tables are version {version},"
            f" and this one's {VERSION}): name another file, or delete it with what it holds"
        )
    return True


def uri(path: str, option: str) -> str:
    return f"file:{quote(os.fsencode(path))}?{option}"


def _header(path: str) -> tuple[int, int]:
    """Return the application and version in a database's header, without changing anything.

    Opened in any other way, SQLite may roll back a journal, or write a -wal back into the file.
    And if we read it ourselves, closing it would release the locks of other connections to it.
    """
    for look in range(_LOOKS):
        # Read-only: a file that was just deleted would else be made again, and be nobody's.
        db = sqlite3.connect(uri(path, "mode=ro&immutable=1"), uri=True)
        try:
            (application,) = db.execute("PRAGMA application_id").fetchone()
            (version,) = db.execute("PRAGMA user_version").fetchone()
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as error:
            problem = error
        else:
            return application, version
        finally:
            db.close()
        if look + 1 < _LOOKS:
            time.sleep(_PAUSE)
    raise BrokerUnavailable(f"{path} is not a database: name another file") from problem
