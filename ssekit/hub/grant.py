"""What one client may read, until when, and who it is: a value that the hub obeys.

An ``authorize`` function makes one from a request (`ssekit.access` has two such functions), and
`narrowed` holds a client's own wishes against it.  It knows no request, no key and no stream.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import NamedTuple

MOST_CHANNELS = 100
"""The most channels that one client may name."""
LONGEST_MEMBER = 256
"""Characters of a member's id."""
MOST_VALUE = 1024
"""Bytes of a member's value, as JSON."""

_NOT_IN_A_NAME = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")  # controls, and no text


class NotGranted(Exception):
    """Raised if a client asks for a channel that its grant does not admit."""


class Unnamed(Exception):
    """Raised if a client names no channel, too many, or none that can be one."""


class Member(NamedTuple):
    """Who is present, and what the others are shown of them."""

    id: str
    value: object = None


@dataclass(frozen=True, slots=True)
class Grant:
    """The right to read some channels.

    ``channels``: names, each exact, or a prefix where it ends in ``*`` (``"user.7.*"``).
    ``subject``: who reads, for `Hub.disconnect` and `Hub.revoke`.
    ``expires``: when the stream has to end, in seconds since 1970; None for never.
    ``session``: which of the subject's sessions it is.
    ``member``: who is present in the channels while the stream is open: an id, or a pair of an id
    and a JSON value of at most 1 KiB.
    ``issued``: when the credential was made, in seconds since 1970: a revocation after that refuses
    the grant, and one of unknown age.

    Raises ValueError for a channel or name that cannot be one, and TypeError for a bare ``str``.
    """

    channels: Collection[str]
    subject: str | None = None
    expires: float | None = None
    session: str | None = None
    member: str | tuple[str, object] | None = None
    issued: float | None = None

    def __post_init__(self) -> None:
        if isinstance(self.channels, str):
            raise TypeError(f"channels must be a list of names, not the str {self.channels!r:.80}")
        object.__setattr__(self, "channels", tuple(self.channels))
        for channel in self.channels:
            check_name("a channel", channel)
            if "*" in channel[:-1]:
                raise ValueError(f"* may only end a channel of a grant, unlike in {channel!r:.80}")
        for what, name in (("subject", self.subject), ("session", self.session)):
            if name is not None:
                check_name(f"a {what}", name)
        member_of(self.member)

    def narrowed(self, named: Iterable[str] = ()) -> frozenset[str]:
        """Return the channels that the client gets: those that it named, or all of the grant.

        Names are compared letter by letter, and what a client names is never a pattern.

        Raises `NotGranted` for a channel outside the grant, and `Unnamed` if a client names more
        than `MOST_CHANNELS`, something that is no channel, or nothing where the grant has prefixes
        alone.
        """
        wanted = frozenset(named)
        exact = frozenset(name for name in self.channels if not name.endswith("*"))
        if not wanted:
            if not exact:
                raise Unnamed("Name the channels that you want: ?channel=NAME.")
            return exact
        if len(wanted) > MOST_CHANNELS:
            raise Unnamed(f"A stream has at most {MOST_CHANNELS} channels.")
        prefixes = tuple(name[:-1] for name in self.channels if name.endswith("*"))
        for name in wanted:
            if not name or "*" in name or _NOT_IN_A_NAME.search(name):
                raise Unnamed("A channel's name is text without control characters and *.")
            if name not in exact and not name.startswith(prefixes):
                raise NotGranted("The grant does not admit this channel.")
        return wanted


def member_of(given: str | tuple[str, object] | None) -> Member | None:
    """Return the member that an id, or a pair of id and value, stands for.

    Raises ValueError for an id that cannot be one, and for a value that is not JSON or is too long.
    """
    if given is None:
        return None
    if isinstance(given, tuple) and len(given) == 2:
        member = Member(*given)
    elif isinstance(given, str):
        member = Member(given)
    else:
        raise ValueError(f"a member is an id, or a pair of an id and a value, not {given!r:.80}")
    check_name("a member's id", member.id)
    if len(member.id) > LONGEST_MEMBER:
        raise ValueError(f"a member's id has at most {LONGEST_MEMBER} characters")
    try:
        size = len(json.dumps(member.value, ensure_ascii=False, allow_nan=False).encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"a member's value has to be JSON: {error}") from None
    if size > MOST_VALUE:
        raise ValueError(
            f"a member's value has at most {MOST_VALUE} bytes as JSON, not {size}, as every viewer"
            " gets it: let them ask for more by the member's id"
        )
    return member


def check_name(what: str, name: object) -> None:
    """Raise ValueError for what cannot name a channel, a subject, a session or a member."""
    if not isinstance(name, str) or not name or _NOT_IN_A_NAME.search(name):
        raise ValueError(f"{what} is a non-empty str without control characters, not {name!r:.80}")
