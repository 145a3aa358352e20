"""perf: what the processor counts while a server delivers, where the machine lets it be counted.

Instructions repeat within a few per cent where seconds on a shared machine do not.  Many virtual
machines have no counter for them; system calls, which the kernel counts, are there more often.
"""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.processes import BenchError, find_program

INSTRUCTIONS = ("instructions:u", "instructions:k")
SYSTEM_CALLS = ("raw_syscalls:sys_enter",)


@functools.cache
def why_not(events: tuple[str, ...]) -> str:
    """Return why perf cannot count these events here; empty if it can."""
    perf = find_program("perf")
    if not perf:
        return "perf is not installed (Debian's linux-perf)"
    command = [perf, "stat", "-x", ";", "-e", ",".join(events), "true"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return "perf may not count here: " + " ".join(done.stderr.split())[:120]
    if "<not" in done.stderr:
        return f"this machine does not count {', '.join(events)}"
    return ""


class Counts(dict[str, int]):
    """How often each event happened; filled when the counting ends."""


@contextmanager
def counting(pids: Sequence[int], events: tuple[str, ...]) -> Iterator[Counts]:
    """Count events in the processes until the block ends; counts nothing where it cannot be."""
    counts = Counts()
    if why_not(events):
        yield counts
        return
    perf = find_program("perf") or "perf"
    with tempfile.TemporaryDirectory(prefix="ssekit-bench-") as folder:
        output = Path(folder, "counts")
        here, control = os.pipe(), os.pipe()  # perf's acknowledgements, and its orders
        command = [perf, "stat", "-x", ";", "-o", str(output), "-e", ",".join(events)]
        command += ["-p", ",".join(map(str, pids)), "--delay", "-1"]
        command += ["--control", f"fd:{control[0]},{here[1]}"]
        process = subprocess.Popen(
            command,
            pass_fds=[control[0], here[1]],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(control[0])
        os.close(here[1])
        try:
            _order(control[1], here[0], b"enable\n")
            yield counts
            _order(control[1], here[0], b"disable\n")
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(10)
            os.close(control[1])
            os.close(here[0])
        for line in output.read_text().splitlines():
            fields = line.split(";")
            if len(fields) > 2 and fields[0].isdigit():
                counts[fields[2]] = int(fields[0])


def _order(orders: int, answers: int, order: bytes) -> None:
    os.write(orders, order)
    if not os.read(answers, 100):
        raise BenchError("perf ended before it counted")
