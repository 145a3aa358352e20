"""A process that produces a channel: ``python -m tests.apps.producing URL CHANNEL HOW``.

It says "producing" once it does, "busy" if another does, and each id that it has sent.  HOW is:
forever (an event every 50 ms), silent (nothing is sent), deaf (work that lets no other thread or
greenlet of Python's wait for it to pause, under gevent), or ended (the block is left at once).
"""

from __future__ import annotations

import sys
import time


def say(*what: object) -> None:
    print(*what, flush=True)


def main(url: str, channel: str, how: str) -> None:
    if how == "deaf":
        from gevent import monkey

        monkey.patch_all()
    from ssekit import Cancelled, ChannelBusy, ChannelFinished, Hub
    from tests import leases

    leases.obey()
    with Hub(url) as hub:
        try:
            with hub.producer(channel) as out:
                say("producing")
                while how == "silent":
                    sleep(0.05)
                until = time.monotonic() + 20
                while how == "deaf" and time.monotonic() < until:
                    pass
                while how == "forever":
                    say(out.send("x").id)
                    sleep(0.05)
        except ChannelBusy:
            say("busy")
        except Cancelled:
            say("cancelled", out.cancelled)
        except ChannelFinished as error:
            say("finished", error.reason)


sleep = time.sleep
if __name__ == "__main__":
    main(*sys.argv[1:])
