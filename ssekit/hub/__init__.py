"""Publish anywhere, and every viewer gets it: channels of events in a log.

`Hub` is the one door.  The modules beside it read the log for a process and carry its events to
viewers; none of them is for import elsewhere.
"""

from ssekit.hub.hub import Hub, default_url

__all__ = ["Hub", "default_url"]
