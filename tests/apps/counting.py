"""A process that counts: ``python -m tests.apps.counting FILE`` obeys one command a line.

``add N`` and ``set N`` change its counter and its gauge; ``totals`` prints both sums and how many
processes there are; ``fork`` counts once more in a child and waits for it; ``hold`` keeps the lock
that is held while a place is taken.
"""

from __future__ import annotations

import fcntl
import os
import sys
from pathlib import Path

from ssekit.host.shared_counters import join


def main() -> None:
    shared = join(Path(sys.argv[1]), ["opened"], ["open"])
    for line in sys.stdin:
        command, _, number = line.strip().partition(" ")
        if command == "add":
            shared.add("opened", int(number))
        elif command == "set":
            shared.set("open", int(number))
        elif command == "hold":
            fcntl.lockf(os.open(sys.argv[1], os.O_RDWR | os.O_CREAT), fcntl.LOCK_EX, 1, 0)
            print(0, 0, 0, flush=True)
            continue
        elif command == "fork":
            child = os.fork()
            if not child:
                shared.add("opened")
                shared.set("open", 1)
                os._exit(0)
            os.waitpid(child, 0)
        totals, processes = shared.totals()
        print(totals["opened"], totals["open"], processes, flush=True)


if __name__ == "__main__":
    main()
