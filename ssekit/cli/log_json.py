"""``ssekit serve --log-json``: every log line of gunicorn, ssekit and the application as JSON.

gunicorn makes a `Logger` in its master and keeps it in the workers.  One line is one object: when,
how important, who says it, what, and the fields of ssekit's own lines (``ssekit.streams`` and
``ssekit.rejected``) under their names.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import datetime, timezone
from typing import Any

from gunicorn.glogging import Logger as GunicornsLogger


class JsonFormatter(logging.Formatter):
    """Writes a record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "process": record.process,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        fields = getattr(record, "fields", {})
        line.update((name, value) for name, value in fields.items() if name not in line)
        # ASCII, and whatever an application has logged: a line must never fail to be written.
        return json.dumps(line, default=str)


class Logger(GunicornsLogger):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's logger, and everything else that is logged, on standard error as JSON."""

    def setup(self, cfg: Any) -> None:
        """Called by gunicorn once it has its settings."""
        super().setup(cfg)
        formatter = JsonFormatter()
        for logger in (self.error_log, self.access_log):
            for handler in logger.handlers:
                handler.setFormatter(formatter)
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(formatter)
        logging.getLogger().handlers[:] = [handler]
        logging.getLogger().setLevel(logging.INFO)
