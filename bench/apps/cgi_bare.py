"""The same bytes by a bare Python script."""

import sys

sys.stdout.write(
    "Content-Type: text/event-stream; charset=utf-8\r\n"
    "Cache-Control: no-cache, no-transform\r\n"
    "X-Accel-Buffering: no\r\n"
    "\r\n"
    ":\n"
    "data: hello\n\n"
)
sys.stdout.flush()
