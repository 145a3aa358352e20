"""The command line ``ssekit``: finds the command, runs it, and turns its errors into exit codes.

A command is a module with ``options(parser)`` and ``run(arguments) -> int``.  Only the command that
is run is imported, so ``ssekit --help`` needs nothing installed and answers at once.  An `SSEError`
becomes one line on standard error; any other exception is a bug and keeps its traceback.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import logging
import os
import sys
from collections.abc import Sequence

import ssekit
from ssekit.cli.common import Usage, printable, say
from ssekit.errors import SSEError

COMMANDS = {
    "serve": ("ssekit.cli.serve", "serve a script, a folder of scripts, or an application"),
    "publish": (
        "ssekit.cli.publish",
        "publish an event, or each line of a program's output, on a channel",
    ),
    "listen": ("ssekit.cli.listen", "print the events of a URL, or of channels, as they arrive"),
    "history": ("ssekit.cli.history", "print the last events of channels, or their state"),
    "members": ("ssekit.cli.members", "print who is present in a channel"),
    "stats": ("ssekit.cli.stats", "print what is going on in a running server's hub"),
    "top": ("ssekit.cli.top", "show it as a table that is kept up to date"),
    "doctor": (
        "ssekit.cli.doctor",
        "examine a stream: find what delays it, cuts it, or is wrong in it",
    ),
    "config": ("ssekit.cli.config", "print a server configuration that is right for streams"),
}
OPTIONAL = {"httpx", "psycopg", "redis", "gunicorn", "gevent", "werkzeug", "rich"}
"""Packages that a command may need and an installation may lack."""

DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
"""Errors of standard output, if it is a file.  A hub's errors are always an SSEError."""

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
CODES = """\
exit codes:
  0    done; also if the reader of a pipe closed it
  1    failed, and standard error says why; for doctor: the stream's users would be hurt
  2    wrong usage
  130  ended by Ctrl-C
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, ``sys.argv`` by default, and return its exit code."""
    logging.basicConfig(format="ssekit: %(message)s", level=logging.WARNING)
    # A shell may have closed them (<&-).
    sys.stdin = sys.stdin or open(os.devnull, encoding="utf-8")  # noqa: SIM115
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        _write_no_more()
        return OK
    except SSEError as error:
        say(str(error))
        return FAILED
    except OSError as error:
        if error.errno not in DISK:
            raise
        _write_no_more()
        say(f"cannot write to standard output: {error.strerror}")
        return FAILED
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in OPTIONAL:
            raise
        say(str(error))
        return FAILED


def _write_no_more() -> None:
    """Keep Python from flushing standard output at exit, which would fail once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(arguments: Sequence[str] | None) -> int:
    parser = _parser()
    chosen = parser.parse_args(arguments)
    if chosen.command is None:
        parser.print_help(sys.stderr)
        return USAGE
    if chosen.command not in COMMANDS:
        parser.error(f"unknown command {printable(chosen.command)!r}; see ssekit --help")
    module, _ = COMMANDS[chosen.command]
    command = importlib.import_module(module)
    own = argparse.ArgumentParser(
        prog=f"ssekit {chosen.command}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    command.options(own)
    try:
        return int(command.run(own.parse_args(chosen.arguments)))
    except Usage as error:
        own.error(str(error))


def _parser() -> argparse.ArgumentParser:
    width = max(map(len, COMMANDS))
    table = "\n".join(f"  {name:{width}}  {about}" for name, (_, about) in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="ssekit",
        usage="ssekit COMMAND ...",
        description="Server-Sent Events from plain, synchronous Python.",
        epilog=f"commands:\n{table}\n\nssekit COMMAND --help explains each command.\n\n{CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"ssekit {ssekit.__version__}")
    parser.add_argument("command", nargs="?", help=argparse.SUPPRESS)
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser
