"""What clients do in twenty situations: the table of ``docs/browser.md``, measured.

``python -m tests.situations`` prints it.  Each client runs in tabs of a real Chromium against a
server that answers each try as the situation says; what the client did is read from what the server
was asked and from the events that arrived.
"""

from __future__ import annotations

import itertools
import json
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import ssekit
from tests.components import need, need_packages
from tests.remote import Chromium, chromium
from tests.servers import ROOT
from tests.waiting import until

FOLDER = ROOT / "tests" / "browser_js"
PAGE = (
    b'<!DOCTYPE html><meta charset="utf-8"><title>x</title><script src="script.js"></script><body>'
)
CLIENTS = ["ssekit.js", "EventSource", "fetch-event-source", "eventsource", "htmx", "Turbo"]
PACKAGES = {
    "fetch-event-source": "@microsoft/fetch-event-source",
    "eventsource": "eventsource",
    "htmx": "htmx-ext-sse",
    "Turbo": "@hotwired/turbo",
}
TYPE = "text/event-stream"


@dataclass
class Answer:
    """``log``: how many events there are by now; a client gets those after its id.

    ``before`` and ``after`` stand around them, and ``end`` ends their lines.  ``then``: "hold"
    keeps the connection, with a comment each second, "silent" without; "end" ends it in order,
    and "cut" breaks it.
    """

    log: int = 0
    before: str = ""
    after: str = ""
    end: str = "\n"
    status: int = 200
    then: str = "hold"
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Try:
    at: float
    last: str | None
    path: str


class Site:
    """One client's server: its page, and a stream that answers as it was told."""

    def __init__(self, script: bytes, turbo: bool) -> None:
        self.answers: list[Answer] = []
        self.tries: list[Try] = []
        self.open = 0
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                if self.path.startswith("/stream"):
                    site._stream(self)
                    return
                body = script if self.path == "/script.js" else PAGE
                kind = "text/javascript" if self.path == "/script.js" else "text/html"
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._turbo = turbo
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _stream(self, handler: BaseHTTPRequestHandler) -> None:
        fields = {name.lower(): value for name, value in handler.headers.items()}
        number = len(self.tries)
        self.tries.append(Try(time.monotonic(), fields.get("last-event-id"), handler.path))
        answer = self.answers[min(number, len(self.answers) - 1)]
        handler.close_connection = True
        handler.send_response(answer.status)
        chunked = answer.status == 200
        kind = {"Content-Type": TYPE if chunked else "text/plain"} if answer.status != 204 else {}
        headers = {**kind, "Connection": "close", **answer.headers}
        if chunked:
            headers["Transfer-Encoding"] = "chunked"
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        self.open += 1
        with suppress(OSError):
            body = self._body(answer, fields.get("last-event-id", "0"))
            if body and chunked:
                handler.wfile.write(b"%x\r\n%s\r\n" % (len(body), body))
            elif body:
                handler.wfile.write(body)
            if answer.then == "end" and chunked:
                handler.wfile.write(b"0\r\n\r\n")
            if answer.then == "cut":
                time.sleep(0.3)
                handler.connection.shutdown(socket.SHUT_RDWR)
            if answer.then in ("hold", "silent") and chunked:
                handler.connection.settimeout(1)
                while self._is_there(handler.connection):
                    if answer.then == "hold":
                        handler.wfile.write(b"2\r\n:\n\r\n")
        self.open -= 1

    @staticmethod
    def _is_there(connection: socket.socket) -> bool:
        try:
            return bool(connection.recv(1))
        except TimeoutError:
            return True

    def _body(self, answer: Answer, last: str) -> bytes:
        if answer.status != 200:
            return answer.before.encode()
        seen = int(last) if last.isdecimal() else 0
        events = [self._event(number, answer.end) for number in range(seen + 1, answer.log + 1)]
        return f"{answer.before}{''.join(events)}{answer.after}".encode()

    def _event(self, number: int, end: str) -> str:
        # Turbo renders elements alone.
        element = f'<turbo-stream action="append" target="n{number}"></turbo-stream>'
        return f"id: {number}{end}data: {element if self._turbo else number}{end}{end}"


@dataclass
class Result:
    tries: list[Try]
    got: list[int]
    open: int
    seconds: float


def comes_back(result: Result) -> str:
    """After a loss: whether it came back, and has had both events once and in order."""
    if len(result.tries) < 2:
        return "**gives up**"
    if result.got == [1, 2]:
        return "resumes"
    return "**loses an event**" if set(result.got) != {1, 2} else "**repeats an event**"


def opens_late(result: Result) -> str:
    """After a failure of the very first try."""
    return "opens" if 2 in result.got else "**gives up**"


def stops(tries: int) -> Callable[[Result], str]:
    """After a final answer, the last of so many, nothing more is asked."""

    def judge(result: Result) -> str:
        more = len(result.tries) - tries
        return "stops" if more <= 0 else f"**asks {more} more times in {result.seconds:.0f} s**"

    return judge


def waits(seconds: float) -> Callable[[Result], str]:
    def judge(result: Result) -> str:
        if len(result.tries) < 2:
            return "**gives up**"
        waited = result.tries[1].at - result.tries[0].at
        return "waits" if waited >= seconds * 0.95 else f"**comes back after {waited:.1f} s**"

    return judge


def reads(*numbers: int) -> Callable[[Result], str]:
    def judge(result: Result) -> str:
        found = result.got == list(numbers)
        return "reads all" if found else f"**reads {len(result.got)} of {len(numbers)}**"

    return judge


def id_alone(result: Result) -> str:
    counted = len(result.tries) > 1 and result.tries[1].last == "5"
    return "resumes after it" if counted else "**does not count it**"


def resumes_third(result: Result) -> str:
    """One failure, and then the stream again."""
    resumed = len(result.tries) > 2 and result.tries[2].last == "1"
    return "resumes" if resumed and 2 in result.got else "**gives up**"


def renews(result: Result) -> str:
    if len(result.tries) < 3:
        return "**gives up**"
    return "resumes with it" if "ticket=2" in result.tries[2].path else "**asks without it**"


def sends_any_id(result: Result) -> str:
    if len(result.tries) < 2:
        return "**gives up**"
    last = (result.tries[1].last or "").encode("latin-1")
    return "resumes" if last == "\u2713".encode() else f"**sends {last!r}**"


def spread(result: Result) -> str:
    times = [one.at for one in result.tries]
    gaps = [after - before for before, after in itertools.pairwise(times)]
    if not gaps:
        return "**gives up**"
    return f"{len(gaps)} tries, {min(gaps):.1f} to {max(gaps):.1f} s apart"


def silence(result: Result) -> str:
    return "a new connection" if len(result.tries) > 1 else "**waits forever**"


def goes_on(result: Result) -> str:
    return "goes on" if result.open else "**closes its connection**"


def tabs_with_events(result: Result) -> str:
    """``got`` has one number for each tab that had the event."""
    served = f"{len(result.got)} of 7 tabs, connections: {result.open}"
    return served if len(result.got) == 7 else f"**{served}**"


@dataclass
class Situation:
    """``tabs``: how many are open; ``covered``: another tab is then brought to the front."""

    name: str
    answers: list[Answer]
    judge: Callable[[Result], str]
    seconds: float = 6.0
    tabs: int = 1
    covered: bool = False


FIRST = Answer(1, then="cut")
NEXT = Answer(2)
HTML = {"Content-Type": "text/html"}
BAD = Answer(0, "<h1>Bad Gateway", status=502, then="end", headers=HTML)
LATER = Answer(status=503, then="end", headers={"Retry-After": "2"})
SITUATIONS = [
    Situation("the server ends the stream", [Answer(1, then="end"), NEXT], comes_back),
    Situation("the connection is cut", [FIRST, NEXT], comes_back),
    Situation(
        "it is cut within an event",
        [Answer(1, after="id: 2\ndata: 2", then="cut"), NEXT],
        comes_back,
    ),
    Situation("a 502 at the first try", [BAD, NEXT], opens_late),
    Situation("a 502 later, during a deploy", [FIRST, BAD, NEXT], resumes_third, 9),
    Situation("a 429 later", [FIRST, Answer(status=429, then="end"), NEXT], resumes_third, 9),
    Situation("a 503 with `Retry-After: 2`", [LATER, NEXT], waits(2), 8),
    Situation("503 for 15 seconds", [Answer(status=503, then="end")], spread, 15),
    Situation(
        "`retry: 2000`, then a cut", [Answer(1, "retry: 2000\n", then="cut"), NEXT], waits(2), 7
    ),
    Situation("204 later: there is no more", [FIRST, Answer(status=204, then="end")], stops(2), 9),
    Situation("404", [Answer(status=404, then="end")], stops(1)),
    Situation("a page instead of a stream", [Answer(0, "<p>", then="end", headers=HTML)], stops(1)),
    Situation(
        "401 later, while a new ticket is available",
        [FIRST, Answer(status=401, then="end"), NEXT],
        renews,
        9,
    ),
    Situation("no byte for three heartbeats", [Answer(1, then="silent"), NEXT], silence, 8),
    Situation("lines end in CRLF", [Answer(2, end="\r\n")], reads(1, 2), 2),
    Situation("lines end in CR", [Answer(2, end="\r")], reads(1, 2), 2),
    Situation(
        "a block with only an id", [Answer(1, after="id: 5\n\n", then="cut"), NEXT], id_alone
    ),
    Situation(
        "an id outside Latin-1",
        [Answer(0, "id: \u2713\ndata: 1\n\n", then="cut"), NEXT],
        sends_any_id,
    ),
    Situation("its tab is hidden", [Answer(1)], goes_on, 2, covered=True),
    Situation("seven tabs over HTTP/1.1", [Answer(1)], tabs_with_events, 4, tabs=7),
]


def measure(
    name: str, script: bytes, situations: Sequence[Situation] = SITUATIONS
) -> tuple[list[str], str]:
    """What one client does in each situation, and the browser's version."""
    with chromium(need("chromium")) as browser:
        results = [_result(browser, name, script, situation) for situation in situations]
        return results, browser.version


class Run:
    """A client in a situation: its server, and its tabs in the browser."""

    def __init__(self, browser: Chromium, name: str, script: bytes, situation: Situation) -> None:
        self._situation = situation
        self.site = Site(script, turbo=name.startswith("Turbo"))
        self.site.answers = situation.answers
        self._tabs = [browser.open() for _ in range(situation.tabs)]
        for tab in self._tabs:
            tab.go(self.site.url)
            until(lambda tab=tab: tab.evaluate("typeof window.start === 'function'"))
        for tab in self._tabs:
            tab.evaluate(f"void start({json.dumps(name)}, 'stream')")
        self._others = [browser.open()] if situation.covered else []
        self._began = time.monotonic()

    def judged(self) -> str:
        """What the client has done until now."""
        got = [number for tab in self._tabs for number in tab.evaluate("got")]
        seconds = time.monotonic() - self._began
        return self._situation.judge(Result(self.site.tries, got, self.site.open, seconds))

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *error: object) -> None:
        for tab in [*self._tabs, *self._others]:
            tab.close()
        self.site.close()


def _result(browser: Chromium, name: str, script: bytes, situation: Situation) -> str:
    with Run(browser, name, script, situation) as run:
        time.sleep(situation.seconds)
        return run.judged()


def versions() -> dict[str, str]:
    lock = json.loads((FOLDER / "package-lock.json").read_text())["packages"]
    return {name: lock[f"node_modules/{package}"]["version"] for name, package in PACKAGES.items()}


def bundle() -> bytes:
    """All clients in one script."""
    need_packages(FOLDER)
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "script.js")
        esbuild = FOLDER / "node_modules" / ".bin" / "esbuild"
        options = ["--bundle", "--format=iife", "--log-level=error", f"--outfile={script}"]
        subprocess.run([esbuild, *options, FOLDER / "contenders.mjs"], check=True)
        return script.read_bytes()


def main() -> None:
    script = bundle()
    with ThreadPoolExecutor(len(CLIENTS)) as pool:
        columns = list(pool.map(lambda name: measure(name, script), CLIENTS))
    known = {**versions(), "ssekit.js": ssekit.__version__, "EventSource": columns[0][1]}
    print("| | " + " | ".join(f"{name} {known[name]}" for name in CLIENTS) + " |")
    print("| --- " * (len(CLIENTS) + 1) + "|")
    for number, situation in enumerate(SITUATIONS):
        print(f"| {situation.name} | " + " | ".join(column[number] for column, _ in columns) + " |")


if __name__ == "__main__":
    main()
