"""What happens in one channel of `bench.sessions`: ``... URL CHANNEL KIND COUNT PAUSE``.

KIND says who ends it: a "job" publishes and finishes its channel, an "answer" is produced,
"failing" is produced until it raises, "endless" and "stopped" until somebody else ends them.  Of
each event without a key its number and id are printed, as a line of JSON, and at last the final
values.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count as counting
from typing import Any

from ssekit import BrokerUnavailable, Cancelled, ChannelFinished, Event, Hub

KEYS = "abcde"


def session(
    hub: Hub, channel: str, kind: str, count: int, pause: float
) -> Iterator[dict[str, object]]:
    """Publish events, values and removals, and yield what became of them."""
    changes = partial(_changes, channel=channel, count=count, pause=pause)
    if kind == "job":
        yield from changes(partial(hub.publish, channel), partial(hub.remove, channel))
        _until_stored(lambda: hub.finish(channel))
        return
    with hub.producer(channel) as out:
        if kind in ("endless", "stopped"):
            yield from _until_ended(out.send, channel, pause)
            return
        yield from changes(out.send, partial(hub.remove, channel))
        if kind == "failing":
            raise RuntimeError("as a model does")


def _changes(
    send: Callable[..., Event],
    remove: Callable[[str], object],
    channel: str,
    count: int,
    pause: float,
) -> Iterator[dict[str, object]]:
    chance = random.Random(channel)
    final: dict[str, int] = {}
    for n in range(count):
        key = chance.choice([None, *KEYS])
        try:
            if key is None:
                yield {"n": n, "id": send({"channel": channel, "n": n}).id}
            elif chance.random() < 0.1:
                final.pop(key, None)
                remove(key)
            else:
                final[key] = n
                send({"channel": channel, "key": key, "n": n}, key=key)
        except BrokerUnavailable:
            if key is None:
                yield {"n": n, "id": None}
        time.sleep(pause)
    # Whatever became of those before, these are stored.
    for n, key in enumerate(KEYS, count):
        if key in final:
            final[key] = n
            _until_stored(partial(send, {"channel": channel, "key": key, "n": n}, key=key))
        else:
            _until_stored(partial(remove, key))
    yield {"final": final}


def _until_ended(
    send: Callable[..., Event], channel: str, pause: float
) -> Iterator[dict[str, object]]:
    for n in counting():
        try:
            yield {"n": n, "id": send({"channel": channel, "n": n}).id}
        except BrokerUnavailable:
            yield {"n": n, "id": None}
        except (Cancelled, ChannelFinished) as error:
            yield {"ended": type(error).__name__}
            return
        time.sleep(pause)


def _until_stored(call: Callable[[], object]) -> None:
    while True:
        try:
            call()
        except BrokerUnavailable:
            time.sleep(0.05)
        else:
            return


def main(url: str, channel: str, kind: str, count: str, pause: str) -> None:
    with Hub(url, history=100_000) as hub:
        for said in session(hub, channel, kind, int(count), float(pause)):
            print(json.dumps(said), flush=True)


if __name__ == "__main__":
    arguments: Any = sys.argv[1:]
    main(*arguments)
