"""gunicorn as a systemd service."""

from __future__ import annotations

from ssekit.cli.config.site import Unit

_TEXT = """\
# gunicorn with ssekit as a service, as `ssekit config systemd` prints it. Put it into
# /etc/systemd/system/ssekit.service and then:
#   systemctl daemon-reload && systemctl enable --now ssekit
#
# To deploy, run `systemctl reload ssekit`: new workers take over, and every open stream is told to
# reconnect after a random moment and ends; clients resume after their last event and miss nothing.

[Unit]
Description=ssekit: {target} under gunicorn
After=network.target

[Service]
Type=notify
NotifyAccess=main
User={user}
WorkingDirectory={folder}

# The hub's log, in a folder that this user may write to. The command line uses the same variable.
# The demo application (wsgi.py) also needs: Environment=SSEKIT_HOSTS=www.example.org
StateDirectory=ssekit
Environment=SSEKIT_URL=sqlite:////var/lib/ssekit/hub.db
# Everything else is read-only, also the home folder, where gunicorn would put its control socket.
Environment=HOME=/var/lib/ssekit

{runtime}ExecStart={gunicorn} -k gevent --workers {workers} --bind {bind} {target}
ExecReload=/bin/kill -s HUP $MAINPID

# SIGTERM goes to gunicorn alone, which ends its streams and exits within two seconds.
KillMode=mixed
TimeoutStopSec=10

# Each stream needs a file descriptor, and the default of 1024 is the first limit you would reach.
LimitNOFILE=65536

Restart=on-failure

# What the service may not do: gunicorn, Python and ssekit need none of it. An application that
# writes files of its own needs ReadWritePaths=.
NoNewPrivileges=true
ProtectSystem=strict
ProtectHome=read-only
PrivateTmp=true
PrivateDevices=true
ProtectClock=true
ProtectControlGroups=true
ProtectHostname=true
ProtectKernelLogs=true
ProtectKernelModules=true
ProtectKernelTunables=true
ProtectProc=invisible
CapabilityBoundingSet=
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictNamespaces=true
RestrictRealtime=true
RestrictSUIDSGID=true
LockPersonality=true
SystemCallArchitectures=native
# These groups have io_uring, by which many viewers are sent to at once.
SystemCallFilter=@system-service
SystemCallFilter=~@privileged
SystemCallErrorNumber=EPERM
UMask=0027

[Install]
WantedBy=multi-user.target
"""


def systemd(unit: Unit) -> str:
    """Return the file for ``/etc/systemd/system``."""
    return _TEXT.format(
        target=unit.target,
        user=unit.user,
        folder=unit.folder,
        gunicorn=unit.gunicorn,
        workers=unit.workers,
        bind=unit.bind,
        runtime=_runtime(unit.bind),
    )


def _runtime(bind: str) -> str:
    """A socket in a folder of its own below /run needs that folder, which the user cannot make."""
    parts = bind.removeprefix("unix:").split("/")
    if bind.startswith("unix:") and len(parts) == 4 and parts[1] == "run":
        return f"RuntimeDirectory={parts[2]}\n"
    return ""
