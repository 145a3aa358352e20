"""Sends events as fast as they leave: ``?count`` of ``?size`` bytes, numbered from 0."""

from __future__ import annotations

from urllib.parse import parse_qsl

from ssekit import script

query = dict(parse_qsl(script.environ["QUERY_STRING"]))
for number in range(int(query["count"])):
    script.send(f"{number} ".ljust(int(query["size"]), "x"))
