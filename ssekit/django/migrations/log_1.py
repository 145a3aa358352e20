"""Creates the log, if it is to be in the database that is migrated."""

from django.db.migrations import Migration as Base

from ssekit.django.log_operation import CreateLog


class Migration(Base):
    """Version 1 of the log."""

    initial = True
    operations = (CreateLog(),)
