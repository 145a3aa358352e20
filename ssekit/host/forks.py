"""What has to happen around a fork: `on_fork` in the child, `around_fork` on both sides of it.

Objects are held weakly, so registering one does not keep it alive.  After a fork the child must
touch nothing that belongs to the parent: each object closes its copies and starts afresh.
"""

from __future__ import annotations

import os
import weakref
from _thread import get_ident
from typing import Protocol


class InChild(Protocol):
    """What `on_fork` takes."""

    def after_fork(self) -> None:
        """Start afresh in the child; before anything else runs there."""


class OnBothSides(Protocol):
    """What `around_fork` takes."""

    def before_fork(self) -> None:
        """Get ready, in the thread that forks."""

    def after_fork_in_parent(self) -> None:
        """Undo that in the parent."""


_in_child: weakref.WeakSet[InChild] = weakref.WeakSet()
_around: weakref.WeakSet[OnBothSides] = weakref.WeakSet()
_held: dict[int, list[OnBothSides]] = {}  # by the thread that forks


def on_fork(it: InChild) -> None:
    """Have ``it.after_fork()`` called in every child process, before anything else runs there."""
    _in_child.add(it)


def around_fork(it: OnBothSides) -> None:
    """Have ``it`` called before each fork, and in the parent after it."""
    _around.add(it)


def _before_fork() -> None:
    held = _held[get_ident()] = list(_around)
    for it in held:
        it.before_fork()


def _after_fork_in_parent() -> None:
    for it in _held.pop(get_ident()):
        it.after_fork_in_parent()


def _after_fork() -> None:
    _held.clear()
    for it in list(_in_child):
        it.after_fork()


os.register_at_fork(
    before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork
)
