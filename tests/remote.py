"""Browsers driven over their own protocols: tabs as people have them, hidden and frozen too.

Playwright keeps every page focused, so that none can be frozen, and drives only its own Firefox.
Here Chromium is asked over the DevTools protocol, Firefox over WebDriver BiDi, and WebKitGTK over
WebDriver.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from websockets.sync.client import ClientConnection, connect

from tests.ports import answers, free_port
from tests.waiting import until

OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
"""Nothing else going on in it; Playwright's Chromium has these too."""

CALL = 30.0
"""Seconds within which a browser answers."""


class Tab(Protocol):
    """A tab of any browser; ``evaluate`` returns what JSON can hold."""

    def evaluate(self, expression: str) -> Any: ...
    def go(self, url: str) -> None: ...
    def back(self) -> None: ...
    def close(self) -> None: ...


T_co = TypeVar("T_co", bound=Tab, covariant=True)


class Browser(Protocol[T_co]):
    @property
    def version(self) -> str: ...
    def open(self) -> T_co: ...


class Refused(Exception):
    """The browser answered with an error."""


class Wire:
    """Commands and their answers as JSON over a WebSocket; events of the browser are not read."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._count = 0

    def call(self, method: str, session: str | None = None, /, **params: Any) -> Any:
        self._count += 1
        command: dict[str, Any] = {"id": self._count, "method": method, "params": params}
        if session is not None:
            command["sessionId"] = session
        self._connection.send(json.dumps(command))
        while (answer := json.loads(self._connection.recv(CALL))).get("id") != self._count:
            pass
        if "error" in answer:
            raise Refused(f"{method}: {answer}")
        return answer["result"]


@contextmanager
def _running(
    command: list[str], port: int, address: Callable[[], str]
) -> Iterator[tuple[Wire, subprocess.Popen[bytes]]]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: answers(port), 60, command[0])
        with connect(address(), max_size=None, open_timeout=CALL) as socket:
            yield Wire(socket), process
    finally:
        _end(process)


class ChromiumTab:
    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._target = wire.call("Target.createTarget", url="about:blank")["targetId"]
        attached = wire.call("Target.attachToTarget", targetId=self._target, flatten=True)
        self._session = attached["sessionId"]

    def _call(self, method: str, /, **params: Any) -> Any:
        return self._wire.call(method, self._session, **params)

    def evaluate(self, expression: str) -> Any:
        asked = {"expression": expression, "awaitPromise": True, "returnByValue": True}
        answer = self._call("Runtime.evaluate", **asked)
        if "exceptionDetails" in answer:
            raise Refused(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def go(self, url: str) -> None:
        self._call("Page.navigate", url=url)

    def back(self) -> None:
        history = self._call("Page.getNavigationHistory")
        entry = history["entries"][history["currentIndex"] - 1]
        self._call("Page.navigateToHistoryEntry", entryId=entry["id"])

    def close(self) -> None:
        self._wire.call("Target.closeTarget", targetId=self._target)

    def crash(self) -> None:
        """End its process; the tab is of no use any more."""
        with suppress(Refused):
            self._wire.call("Target.detachFromTarget", sessionId=self._session)
        again = self._wire.call("Target.attachToTarget", targetId=self._target, flatten=True)
        # Nothing answers this one.
        self._wire._connection.send(
            json.dumps({"id": 0, "method": "Page.crash", "sessionId": again["sessionId"]})
        )

    def show(self) -> None:
        self._wire.call("Target.activateTarget", targetId=self._target)

    def freeze(self, frozen: bool = True) -> None:
        state = "frozen" if frozen else "active"
        self._call("Page.setWebLifecycleState", state=state)


class Chromium:
    def __init__(self, wire: Wire, pid: int) -> None:
        self._wire = wire
        self._pid = pid
        self.version = str(wire.call("Browser.getVersion")["product"])

    def open(self) -> ChromiumTab:
        return ChromiumTab(self._wire)

    @contextmanager
    def asleep(self) -> Iterator[None]:
        """Stop all of its processes, as a machine that sleeps does."""
        processes = [self._pid, *_descendants(self._pid)]
        for process in processes:
            os.kill(process, signal.SIGSTOP)
        try:
            yield
        finally:
            for process in processes:
                os.kill(process, signal.SIGCONT)


def _descendants(pid: int) -> list[int]:
    children: list[int] = []
    with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
        for task in Path(f"/proc/{pid}/task").iterdir():
            children += map(int, (task / "children").read_text().split())
    return [*children, *(below for child in children for below in _descendants(child))]


def _ticks(pid: int) -> int:
    """The processor time that a process has had."""
    with suppress(FileNotFoundError, ProcessLookupError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])
    return 0


@contextmanager
def chromium(program: str) -> Iterator[Chromium]:
    """Run this Chromium with a fresh profile until the block ends."""
    port = free_port()
    with tempfile.TemporaryDirectory(
        prefix="ssekit-chromium-", ignore_cleanup_errors=True
    ) as folder:
        options = [*OPTIONS, "--headless", f"--user-data-dir={folder}"]
        # A host that is neither https nor this machine.
        options.append("--host-resolver-rules=MAP insecure.test 127.0.0.1")
        command = [program, *options, f"--remote-debugging-port={port}", "about:blank"]

        def address() -> str:
            with urlopen(f"http://127.0.0.1:{port}/json/version", timeout=CALL) as answer:
                return str(json.load(answer)["webSocketDebuggerUrl"])

        with _running(command, port, address) as (wire, process):
            yield Chromium(wire, process.pid)


class FirefoxTab:
    def __init__(self, wire: Wire, pid: int) -> None:
        self._wire = wire
        self._pid = pid
        self._context = wire.call("browsingContext.create", type="tab")["context"]

    def evaluate(self, expression: str) -> Any:
        answer = self._wire.call(
            "script.evaluate",
            expression=f"(async () => JSON.stringify(await ({expression})))()",
            target={"context": self._context},
            awaitPromise=True,
        )
        if answer["type"] == "exception":
            raise Refused(f"{expression}: {answer['exceptionDetails']}")
        text = answer["result"].get("value")
        return None if text is None else json.loads(text)

    def go(self, url: str) -> None:
        self._wire.call("browsingContext.navigate", context=self._context, url=url, wait="complete")

    def back(self) -> None:
        self._wire.call("browsingContext.traverseHistory", context=self._context, delta=-1)

    def close(self) -> None:
        self._wire.call("browsingContext.close", context=self._context)

    def crash(self) -> None:
        """End its process, which is busy while the page is; the tab is of no use any more."""
        before = {process: _ticks(process) for process in _descendants(self._pid)}
        self.evaluate("(() => { const end = Date.now() + 200; while (Date.now() < end); })()")
        os.kill(max(before, key=lambda process: _ticks(process) - before[process]), signal.SIGKILL)


class Firefox:
    def __init__(self, wire: Wire, pid: int) -> None:
        self._wire = wire
        self._pid = pid
        found = wire.call("session.new", capabilities={})["capabilities"]
        self.version = f"Firefox/{found['browserVersion']}"

    def open(self) -> FirefoxTab:
        return FirefoxTab(self._wire, self._pid)


PREFERENCES = """
user_pref("browser.shell.checkDefaultBrowser", false);
user_pref("datareporting.policy.dataSubmissionEnabled", false);
user_pref("app.update.enabled", false);
user_pref("browser.safebrowsing.malware.enabled", false);
user_pref("network.captive-portal-service.enabled", false);
user_pref("network.connectivity-service.enabled", false);
user_pref("toolkit.telemetry.enabled", false);
"""


@contextmanager
def firefox(program: str) -> Iterator[Firefox]:
    """Run this Firefox with a fresh profile until the block ends."""
    port = free_port()
    with tempfile.TemporaryDirectory(
        prefix="ssekit-firefox-", ignore_cleanup_errors=True
    ) as folder:
        Path(folder, "user.js").write_text(PREFERENCES)
        options = ["--headless", "--no-remote", "--profile", folder]
        command = [program, *options, f"--remote-debugging-port={port}"]
        with _running(command, port, lambda: f"ws://127.0.0.1:{port}/session") as (wire, process):
            yield Firefox(wire, process.pid)


class WebKitTab:
    def __init__(self, session: WebKit) -> None:
        self._session = session
        self._handle = session.call("POST", "/window/new", {"type": "tab"})["handle"]

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        self._session.call("POST", "/window", {"handle": self._handle})
        return self._session.call(method, path, body)

    def evaluate(self, expression: str) -> Any:
        script = f"const done = arguments[0]; (async () => ({expression}))().then(done);"
        return self._call("POST", "/execute/async", {"script": script, "args": []})

    def go(self, url: str) -> None:
        self._call("POST", "/url", {"url": url})

    def back(self) -> None:
        self._call("POST", "/back", {})

    def close(self) -> None:
        self._call("DELETE", "/window")


class WebKit:
    """WebKitGTK's MiniBrowser over WebDriver, which knows one current tab at a time."""

    def __init__(self, url: str, program: str) -> None:
        self._url = url
        options = {"binary": program, "args": ["--automation"]}
        wanted = {"alwaysMatch": {"webkitgtk:browserOptions": options}}
        made = self._ask("POST", "/session", {"capabilities": wanted})
        self._session = f"/session/{made['sessionId']}"
        self.version = f"WebKitGTK/{made['capabilities']['browserVersion']}"

    def open(self) -> WebKitTab:
        return WebKitTab(self)

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        return self._ask(method, self._session + path, body)

    def end(self) -> None:
        self._ask("DELETE", self._session)

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = Request(
            self._url + path, data, {"Content-Type": "application/json"}, method=method
        )
        try:
            with urlopen(request, timeout=CALL) as answer:
                return json.load(answer)["value"]
        except HTTPError as error:
            with error:
                raise Refused(f"{method} {path}: {error.read()!r}") from None


@contextmanager
def webkit(driver: str, display: str, program: str) -> Iterator[WebKit]:
    """Run WebKitGTK's browser, driven by ``driver``, on a display of its own until the block ends.

    ``display`` is Xvfb: this browser has no headless mode.
    """
    port = free_port()
    with ExitStack() as stack:
        number = stack.enter_context(_display(display))
        env = {**os.environ, "DISPLAY": number}
        command = [driver, f"--port={port}"]
        process = subprocess.Popen(
            command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        stack.callback(_end, process)
        until(lambda: answers(port), 20, driver)
        browser = WebKit(f"http://127.0.0.1:{port}", program)
        stack.callback(browser.end)
        yield browser


@contextmanager
def _display(program: str) -> Iterator[str]:
    reading, writing = os.pipe()
    command = [program, "-displayfd", str(writing), "-screen", "0", "800x600x24"]
    with open(reading) as answer:
        process = subprocess.Popen(
            [*command, "-nolisten", "tcp"], pass_fds=[writing], stderr=subprocess.DEVNULL
        )
        os.close(writing)
        try:
            yield f":{answer.readline().strip()}"
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
