"""``manage.py ssekit_listen CHANNEL...``: print the events of channels as they come."""

from __future__ import annotations

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from ssekit.django.configuration import hub


class Command(BaseCommand):
    """Prints a line of JSON for each event, until Ctrl-C."""

    help = "Print the events of channels of the project's hub as they come."

    def add_arguments(self, parser: CommandParser) -> None:
        """Take the channels and where to begin."""
        parser.add_argument("channels", metavar="CHANNEL", nargs="+")
        parser.add_argument("--last-event-id", metavar="ID", help="begin after this event")
        parser.add_argument("--count", type=int, metavar="N", help="end after N events")

    def handle(self, *_: Any, **options: Any) -> None:
        """Print until the hub is closed."""
        try:
            events = hub.subscribe(*options["channels"], last_event_id=options["last_event_id"])
        except ValueError as error:
            raise CommandError(str(error)) from error
        left = options["count"]
        try:
            for event in events:
                if event.event == "stream-open":
                    continue
                line = {"channel": event.channel, "event": event.event, "data": event.data}
                self.stdout.write(json.dumps({**line, "id": event.id}, ensure_ascii=False))
                self.stdout.flush()
                if left is not None:
                    left -= 1
                    if left <= 0:
                        break
        except KeyboardInterrupt:
            pass
        finally:
            events.close()
