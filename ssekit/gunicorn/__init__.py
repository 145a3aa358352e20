"""gunicorn with what many streams need: ``gunicorn -c python:ssekit.gunicorn mysite:app``.

`ssekit.gunicorn.settings` has the settings, to import in your own configuration as well;
`ssekit.gunicorn.worker` is the worker that they name.
"""

from ssekit.gunicorn.settings import backlog, bind, post_fork, worker_class, worker_connections

__all__ = ["backlog", "bind", "post_fork", "worker_class", "worker_connections"]
