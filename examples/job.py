"""A long job that says how far it is, and knows nothing of any web server.

    python job.py report-7 200

Run it by hand, from cron or by a queue's worker: every viewer of the channel "job/report-7" sees
how far it is, also those who come later.  If it is killed, they are told within 15 seconds.
"""

from __future__ import annotations

import sys
import time

from ssekit import Cancelled, Hub
from ssekit.hub import default_url


def main(name: str, steps: int) -> None:
    with Hub(default_url()) as hub:
        try:
            with hub.producer(f"job/{name}") as out:
                for step in range(steps):
                    time.sleep(0.05)  # the work
                    # With a key only the newest is kept: nobody has to hear of each step.
                    out.send({"done": step + 1, "of": steps}, key="progress")
        except Cancelled:
            sys.exit("cancelled")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
