"""Publish anywhere, and every viewer gets it: channels of events in a log.

`Hub` is the one door.  The modules beside it read the log for a process and carry its events to
viewers; none of them is for import elsewhere.
"""

from ssekit.hub.hub import Hub, default_url
from ssekit.hub.stats import Histogram, Numbers, Stats

__all__ = ["Histogram", "Hub", "Numbers", "Stats", "default_url"]
