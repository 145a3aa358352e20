"""A streaming script with a loop."""

from bench.apps.loop_event import INTERVAL, data
from ssekit import every
from ssekit.script import send

for number in every(INTERVAL):
    send(data(number + 1))
