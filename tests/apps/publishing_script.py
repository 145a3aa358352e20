"""A CGI script that publishes what its query says and answers with the id."""

from __future__ import annotations

import os
from urllib.parse import parse_qs

from ssekit import Hub

query = parse_qs(os.environ["QUERY_STRING"])
hub = Hub(os.environ["HUB"], history=100_000)
event = hub.publish(query["channel"][0], query["data"][0])
hub.close()
print(f"Content-Type: text/plain\n\n{event.id}")
