"""A CGI script's first event, beside that of a bare Python script that prints the same bytes.

Both are started as a CGI host starts them, in turn, and timed until the event can be read.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import time

from bench.processes import ROOT, BenchError
from bench.results import Results
from bench.settings import Settings

NAME = "cgi-start"
STARTS = 40
SCRIPTS = {"bare Python": "cgi_bare.py", "ssekit": "cgi_script.py"}
ENVIRON = {
    "GATEWAY_INTERFACE": "CGI/1.1",
    "REQUEST_METHOD": "GET",
    "SERVER_NAME": "127.0.0.1",
    "SERVER_PORT": "80",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "SCRIPT_NAME": "/events",
    "PATH_INFO": "",
    "QUERY_STRING": "",
    "HTTP_ACCEPT": "text/event-stream",
}


def run(settings: Settings, results: Results) -> None:
    """Start both, in turn."""
    starts = settings.scaled(STARTS, 5)
    results.title(
        NAME, f"milliseconds from the start of a CGI script to its event, {starts} starts"
    )
    times: list[float] = []
    for number in range(starts):
        taken = {row: _start(script) for row, script in SCRIPTS.items()}
        if number == 0:
            continue  # The files were not in the system's cache, or not compiled.
        for row, (milliseconds, used) in taken.items():
            results.put(NAME, row, {"ms": milliseconds, "of processor": used})
        results.put(NAME, "ssekit", {"later by": taken["ssekit"][0] - taken["bare Python"][0]})
        times.append(taken["ssekit"][1] / taken["bare Python"][1])
    # Of the processor, and as a ratio: on a busy machine both take longer.
    results.at_most(NAME, "times a bare script's processor time", statistics.median(times), 1.8)


def _start(script: str) -> tuple[float, float]:
    """Return the milliseconds until the event came, and of the processor until the end."""
    command = [sys.executable, str(ROOT / "bench" / "apps" / script)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    environ = {"PATH": os.environ.get("PATH", ""), **ENVIRON}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environ) as process:
        assert process.stdout
        seen = b""
        while b"data: hello\n\n" not in seen:
            piece = os.read(process.stdout.fileno(), 65536)
            if not piece:
                raise BenchError(f"{script} sent only {seen!r}")
            seen += piece
        took = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return took * 1000, used * 1000
