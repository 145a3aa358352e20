"""What gunicorn loads for ``ssekit serve``: the target, answering to its known host names only.

It is a module of its own because it runs in gunicorn's workers, where the command itself is gone.
"""

from __future__ import annotations

from gunicorn.util import import_app

from ssekit.trusted_hosts import TrustedHosts


def application(target: str, hosts: tuple[str, ...]) -> TrustedHosts:
    """Import the target as gunicorn would, and wrap it."""
    return TrustedHosts(import_app(target), hosts)
