from ssekit import InvalidEvent
from ssekit.script import send

try:
    send("x", id="a\ndata: injected")
except InvalidEvent:
    send("refused")
