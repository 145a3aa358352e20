"""Keeps a number of its own: each client has its own run."""

from ssekit import every
from ssekit.script import comment, send

comment("begun")
for number, _ in enumerate(every(0.05), 1):
    send(number, id=str(number))
