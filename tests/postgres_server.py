"""A real PostgreSQL server on a free port, that can be stopped, killed and started again.

It is the distribution's, in a folder of its own, and runs as "nobody" where the tests run as root,
which PostgreSQL refuses to be.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg

from tests.ports import free_port
from tests.waiting import until

NOBODY = pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else None


def programs() -> Path:
    """The folder of the newest server that is installed; Debian has it outside of PATH."""
    debian = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/postgres"),
        key=lambda path: float(path.parent.parent.name),
    )
    if debian:
        return debian[-1].parent
    path = shutil.which("postgres")
    if path is None:
        from tests.components import need  # pytest's, which a benchmark does not have

        path = need("postgres")
    return Path(path).resolve().parent


STATEMENTS = ("shared_preload_libraries=pg_stat_statements", "pg_stat_statements.track_utility=off")
"""The settings of a server that counts statements, but for the likes of BEGIN and SET."""


def is_installed() -> bool:
    """Tell whether there is a server to run."""
    debian = any(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    return debian or shutil.which("postgres") is not None


class PostgresServer:
    """One server; ``settings`` are lines of postgresql.conf, such as ``max_connections=20``.

    With ``copy_of`` it is a standby of another one, which streams to it what is written there.

    It acknowledges what is only in memory unless it is ``durable``: a crash of the server loses
    nothing either way (the kernel has it), a crash of the machine would.
    """

    def __init__(
        self, *settings: str, durable: bool = False, copy_of: PostgresServer | None = None
    ) -> None:
        self._programs = programs()
        self.folder = Path(tempfile.mkdtemp(prefix="ssekit-postgres-"))
        if NOBODY is not None:
            os.chown(self.folder, NOBODY, -1)
        self._log = self.folder / "log"
        self.port = free_port()
        self.url = self.url_of("postgres")
        self.process: subprocess.Popen[bytes] | None = None
        self._settings = [f"port={self.port}", "listen_addresses=127.0.0.1"]
        self._settings += [f"unix_socket_directories={self.folder}", *settings]
        if not durable:
            self._settings += ["fsync=off", "full_page_writes=off"]
        try:
            if copy_of is None:
                options = ["--username=ssekit", "--auth=trust", "--encoding=UTF8", "--no-sync"]
                self._run("initdb", *options)
            else:
                options = ["--write-recovery-conf", "--checkpoint=fast", "--no-sync"]
                self._run("pg_basebackup", f"--dbname={copy_of.url}", *options)
            self.start()
        except BaseException:
            self.close()
            raise

    def url_of(self, database: str) -> str:
        return f"postgresql://ssekit@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """Create an empty database and return its URL."""
        name = f"test_{uuid4().hex}"
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return self.url_of(name)

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def start(self) -> None:
        command = [str(self._programs / "postgres"), "-D", str(self.folder / "data")]
        for setting in self._settings:
            command += ["-c", setting]
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                user=NOBODY,
                group=NOBODY,
                extra_groups=None if NOBODY is None else [],
            )
        until(self._answers, 30, "postgres to answer")

    def _answers(self) -> bool:
        assert self.process is not None
        code = self.process.poll()
        assert code is None, f"postgres exited with {code}:\n{self.log}"
        try:
            psycopg.connect(self.url, connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True

    def stop(self, number: int = signal.SIGINT) -> None:
        """Stop it: SIGINT ends its sessions first, SIGTERM waits for them, SIGQUIT is a crash."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait(30)

    def kill(self) -> None:
        """Kill the server and all of its sessions, as the kernel does when memory runs out."""
        assert self.process is not None
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        # The sessions first: a server without its parent would hold its memory for some time yet,
        # and the next one refuses to start beside it.
        self.process.send_signal(signal.SIGSTOP)
        for child in children:
            with suppress(ProcessLookupError):
                os.kill(int(child), signal.SIGKILL)
        self.process.kill()
        self.process.wait()
        until(lambda: not any(_runs(child) for child in children), 30, "the sessions to end")

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        """Carry out a statement and return its rows."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def stop_copying(self) -> None:
        """Have a standby take what its primary has written, and nothing more from now on."""
        [(sender,)] = self.execute("SELECT conninfo FROM pg_stat_wal_receiver")
        port = re.search(r"port=(\d+)", sender)
        assert port
        with psycopg.connect(f"{self.url}?port={port[1]}") as primary:
            (written,) = primary.execute("SELECT pg_current_wal_lsn()").fetchone() or ("",)
        until(lambda: self.execute(f"SELECT pg_last_wal_replay_lsn() >= '{written}'") == [(True,)])
        self.execute("ALTER SYSTEM SET primary_conninfo = ''")
        self.execute("SELECT pg_reload_conf()")
        until(lambda: self.execute("SELECT FROM pg_stat_wal_receiver") == [])

    def promote(self) -> None:
        """Make a standby the primary."""
        assert self.execute("SELECT pg_promote()") == [(True,)]

    def restart(self) -> None:
        self.stop()
        self.start()

    def close(self) -> None:
        """Stop the server and remove its folder."""
        self.stop(signal.SIGQUIT)  # at once: nobody reads what it would still write
        shutil.rmtree(self.folder)

    def __enter__(self) -> PostgresServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, program: str, *arguments: str) -> None:
        ran = subprocess.run(
            [self._programs / program, "-D", self.folder / "data", *arguments],
            cwd=self.folder,
            env={**os.environ, "LC_ALL": "C"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            user=NOBODY,
            group=NOBODY,
            extra_groups=None if NOBODY is None else [],
            check=False,
        )
        assert ran.returncode == 0, ran.stdout.decode(errors="replace")


def _runs(pid: str) -> bool:
    """Tell whether the process is there and no zombie that nobody has waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
