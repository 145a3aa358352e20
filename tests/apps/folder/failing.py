from ssekit.script import send

send("before")
raise RuntimeError("after the first event")
