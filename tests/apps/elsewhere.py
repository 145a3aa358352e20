"""Another site: a page that reads a stream across origins, and a stream for everybody."""

from __future__ import annotations

from typing import Any

from werkzeug import Request, Response

PAGE = """<!DOCTYPE html>
<title>elsewhere</title>
<pre id="result"></pre>
<p id="state">connecting</p>
<script>
const query = new URLSearchParams(location.search);
const withCredentials = query.has("credentials");
const source = new EventSource(query.get("url"), { withCredentials });
source.onopen = () => (state.textContent = "open");
source.onmessage = (event) => result.append(`${event.origin} ${event.data}\\n`);
source.onerror = () => {
  state.textContent = source.readyState === EventSource.CLOSED ? "refused" : "reconnecting";
};
</script>
"""
STREAM = 'retry: 100\ndata: {"id":1,"message":"from elsewhere"}\n\n'


def app(environ: dict[str, Any], start_response: Any) -> Any:
    path = Request(environ).path
    if path == "/stream":
        answer = Response(STREAM, content_type="text/event-stream")
        answer.access_control_allow_origin = "*"
    elif path == "/":
        answer = Response(PAGE, content_type="text/html; charset=utf-8")
    else:
        answer = Response(status=404)
    return answer(environ, start_response)
