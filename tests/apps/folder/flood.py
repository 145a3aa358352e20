from ssekit.script import send

while True:
    send("x" * 100)
