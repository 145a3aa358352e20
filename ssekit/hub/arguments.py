"""What may be given to a hub, checked: anything else raises ValueError."""

from __future__ import annotations

import math
import re
from collections.abc import Collection

from ssekit.brokers import Retention

_NOT_IN_A_CHANNEL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff*]")  # controls, no text, or *


def retention_of(**values: float | None) -> Retention:
    """Return what was given, as what a log keeps."""
    given = {name: value for name, value in values.items() if value is not None}
    if given.get("max_age") == math.inf:
        given["max_age"] = None  # type: ignore[assignment]
    return Retention(**given, given=frozenset(given))  # type: ignore[arg-type]


def checked_replay(replay: int | str) -> int | None:
    if replay == "all":
        return None
    if not isinstance(replay, int) or isinstance(replay, bool) or replay < 0:
        raise ValueError(f'replay must be a whole number from 0 up, or "all", not {replay!r}')
    return replay


def checked_presence(presence: bool, hub_events: bool) -> bool:
    if presence and not hub_events:
        raise ValueError("joins and leaves are the hub's own events: hub_events has to be True")
    return presence


def checked_channels(channels: Collection[str]) -> frozenset[str]:
    if not channels:
        raise ValueError("name at least one channel")
    for channel in channels:
        check_channel(channel)
    return frozenset(channels)


def check_channel(channel: str) -> None:
    if not isinstance(channel, str) or not channel or _NOT_IN_A_CHANNEL.search(channel):
        raise ValueError(
            "a channel is a non-empty str without control characters and without *, not"
            f" {channel!r:.80}"
        )


def check_key(key: str) -> None:
    if not isinstance(key, str) or not key:
        raise ValueError(f"a key is a non-empty str, not {key!r:.80}")
    try:
        key.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"a key has to be text: {error}") from error
