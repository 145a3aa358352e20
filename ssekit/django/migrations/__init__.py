"""The log's tables, for a hub in PostgreSQL; a project with another hub has no migrations.

So a project that moves its hub to PostgreSQL has a migration then, which was not applied before.
"""

from ssekit.django.configuration import is_in_postgresql

if not is_in_postgresql():
    __path__ = []  # where Django looks for them
