"""The servers that stand in front of ssekit, started for real: each on a free port, in its folder.

None runs as root: under root they are started as "nobody", with what they read in a folder that
"nobody" may read, as in a deployment.  A configuration comes from ``ssekit.cli.config`` or is
written in a test; this module adds what a distribution's own main file would hold.  Each is in the
foreground, its log is kept, and it is stopped by its process id.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from pathlib import Path

from tests.components import need
from tests.ports import free_port
from tests.servers import ROOT, Server, running
from tests.waiting import until

NOBODY = pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else None
APACHE_MODULES = Path("/usr/lib/apache2/modules")
PYTHONS = [str(Path(sys.executable).resolve()), "/usr/bin/python3", "/usr/local/bin/python3"]


@lru_cache
def python() -> str:
    """An interpreter that the servers may run, which one in root's home is not."""
    for path in PYTHONS:
        with contextlib.suppress(OSError):
            if subprocess.run([path, "-c", ""], user=NOBODY, cwd="/", check=False).returncode == 0:
                return path
    return need("a python3 outside of root's home")


@contextmanager
def open_folder() -> Iterator[Path]:
    """A folder that belongs to whom the servers run as."""
    with tempfile.TemporaryDirectory(prefix="ssekit-proxy-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        if NOBODY is not None:
            os.chown(folder, NOBODY, -1)
        yield folder


def scripts(folder: Path) -> Path:
    """Lay out CGI scripts with the package beside them, as a host without pip would; the folder."""
    place = folder / "cgi-bin"
    place.mkdir()
    shutil.copy(ROOT / "tests" / "apps" / "ways.py", place / "ways.py")
    # With the compiled files, which "nobody" could not write.
    shutil.copytree(ROOT / "ssekit", place / "ssekit")
    subprocess.run([python(), "-m", "compileall", "-q", place], check=True)
    for name, source in (("stream", "ways import app"), ("probe", "ways import probe as app")):
        (place / name).write_text(
            f"#!{python()}\nfrom {source}\nfrom ssekit.cgi import run\nrun(app)\n"
        )
        (place / name).chmod(0o755)
    return place


@lru_cache
def certificate() -> tuple[bytes, bytes]:
    """A certificate for localhost and its key, made once."""
    command = [need("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt"]
    command += ["ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    with tempfile.TemporaryDirectory() as name:
        made, key = Path(name, "certificate.pem"), Path(name, "key.pem")
        subprocess.run([*command, "-out", made, "-keyout", key], check=True, capture_output=True)
        return made.read_bytes(), key.read_bytes()


def certificate_files(folder: Path) -> dict[str, str]:
    """The options of a `Site` that make it speak TLS."""
    made, key = certificate()
    (folder / "certificate.pem").write_bytes(made)
    (folder / "key.pem").write_bytes(key)
    return {
        "certificate": str(folder / "certificate.pem"),
        "key": str(folder / "key.pem"),
    }


def _started(stack: ExitStack, command: list[str | Path], port: int, folder: Path) -> Server:
    environment = {"HOME": str(folder), "TMPDIR": str(folder)}
    text = [str(part) for part in command]
    return stack.enter_context(running(text, port, env=environment, cwd=folder, user=NOBODY))


def nginx_files(site: str, folder: Path, *, main: str = "", http: str = "") -> None:
    """Write ``nginx.conf`` with ``site`` as its file in ``conf.d``."""
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "site.conf").write_text(site)
    (folder / "nginx.conf").write_text(
        f"daemon off; pid {folder}/nginx.pid; error_log stderr; worker_processes 1;\n"
        f"worker_shutdown_timeout 200ms;\n{main}\nevents {{ worker_connections 1024; }}\n"
        f"http {{\naccess_log off;\n{temporary}{http}\ninclude {folder}/site.conf;\n}}\n"
    )


@contextmanager
def nginx(
    site: str, port: int, folder: Path, *, main: str = "", http: str = ""
) -> Iterator[Server]:
    """nginx with ``site`` as its file in ``conf.d``; a reload is SIGHUP."""
    nginx_files(site, folder, main=main, http=http)
    command = [need("nginx"), "-e", "stderr", "-p", folder, "-c", folder / "nginx.conf"]
    with ExitStack() as stack:
        yield _started(stack, command, port, folder)


def apache_files(site: str, folder: Path, *modules: str, main: str = "") -> None:
    """Write ``apache.conf`` with those modules, the event MPM and ``site``."""
    names = ["mpm_event", "authz_core", "env", "headers", "setenvif", "unixd", *modules]
    loads = "".join(
        f"LoadModule {name}_module {APACHE_MODULES}/mod_{name}.so\n"
        for name in dict.fromkeys(names)
        if (APACHE_MODULES / f"mod_{name}.so").exists()
    )
    # The sites listen by themselves, except at the ports at which a distribution's file does.
    (folder / "site.conf").write_text(site)
    (folder / "apache.conf").write_text(
        f"{loads}ServerName localhost\nServerRoot {folder}\nPidFile {folder}/apache.pid\n"
        f"ErrorLog /dev/stderr\nDefaultRuntimeDir {folder}\nDocumentRoot {folder}\n"
        + (f"ScriptSock {folder}/cgid.sock\n" if "cgid" in modules else "")
        + f"{main}\nInclude {folder}/site.conf\n"
    )


@contextmanager
def apache(site: str, port: int, folder: Path, *modules: str, main: str = "") -> Iterator[Server]:
    """Apache with the event MPM and ``site``; a reload is SIGUSR1."""
    apache_files(site, folder, *modules, main=main)
    with ExitStack() as stack:
        command: list[str | Path] = [need("apache2"), "-DFOREGROUND", "-f", folder / "apache.conf"]
        yield _started(stack, command, port, folder)


@contextmanager
def lighttpd(text: str, port: int, folder: Path) -> Iterator[Server]:
    """lighttpd with ``text`` as its whole configuration; a reload is SIGUSR1."""
    program = need("lighttpd")
    (folder / "lighttpd.conf").write_text(text)
    with ExitStack() as stack:
        yield _started(stack, [program, "-D", "-f", folder / "lighttpd.conf"], port, folder)


@contextmanager
def haproxy(text: str, port: int, folder: Path) -> Iterator[Server]:
    """haproxy with ``text`` behind its "global" part; a reload is SIGUSR2."""
    (folder / "haproxy.cfg").write_text(f"global\n    hard-stop-after 200ms\n{text}")
    with ExitStack() as stack:
        command: list[str | Path] = [need("haproxy"), "-W", "-db", "-f", folder / "haproxy.cfg"]
        yield _started(stack, command, port, folder)


@contextmanager
def fcgiwrap(folder: Path, *, children: int = 4, user: int | None = NOBODY) -> Iterator[str]:
    """fcgiwrap at a unix socket, with the options in one word; yields the address.

    Debian's service passes all of them as one (``ssekit config fcgiwrap`` says which).
    """
    socket = folder / "fcgiwrap.sock"
    process = subprocess.Popen(
        [need("fcgiwrap"), f"-fc{children}", "-s", f"unix:{socket}"],
        stdin=subprocess.DEVNULL,
        cwd=folder,
        user=user,
        start_new_session=True,
    )
    try:
        until(socket.exists, 10, "fcgiwrap to listen")
        socket.chmod(0o777)
        yield f"unix:{socket}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)  # It would leave its children behind.
        process.wait()


@contextmanager
def python_cgi_server(folder: Path) -> Iterator[Server]:
    """``python3 -m http.server --cgi``, which Python has until 3.14; it serves ``cgi-bin``."""
    port = free_port()
    command: list[str | Path] = [python(), "-W", "ignore", "-m", "http.server", "--cgi"]
    with ExitStack() as stack:
        arguments: list[str | Path] = ["--bind", "127.0.0.1", str(port)]
        yield _started(stack, [*command, *arguments], port, folder)


@contextmanager
def waitress(target: str, **env: str) -> Iterator[Server]:
    """waitress with a thread for each of a test's streams."""
    port = free_port()
    command = [sys.executable, "-m", "waitress", f"--listen=127.0.0.1:{port}", "--threads=16"]
    with running([*command, target], port, env=env) as server:
        yield server


@contextmanager
def uwsgi(target: str, **env: str) -> Iterator[Server]:
    """uWSGI as Debian packs it, with this interpreter's packages; a reload is SIGHUP."""
    port = free_port()
    command = [need("uwsgi_python3"), "--http-socket", f"127.0.0.1:{port}", "--master"]
    command += ["--enable-threads", "--threads", "16", "--die-on-term", "--need-app"]
    command += ["--worker-reload-mercy", "2", "--disable-logging", "--module", target]
    paths = os.pathsep.join([str(ROOT), *(path for path in sys.path if "site-packages" in path)])
    with running(command, port, env={"PYTHONPATH": paths, **env}) as server:
        yield server
