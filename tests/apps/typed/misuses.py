"""What a checker has to find: each line marked ``wrong`` is one."""

from __future__ import annotations

from ssekit import Event, Hub, every

hub = Hub("memory:")
hub.publish(1, "text")  # wrong
hub.publish("news", "text", key=1)  # wrong
number: int = hub.position()  # wrong
Event(retry="soon")  # wrong
every("1 s")  # wrong
