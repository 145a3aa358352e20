"""``{% load ssekit %}``: what a page needs to begin its stream where its state was read."""

from __future__ import annotations

from django import template

from ssekit.django.configuration import hub

register = template.Library()


@register.simple_tag
def ssekit_cursor() -> str:
    """Return the log's end, for ``?last_event_id={% ssekit_cursor %}``.

    Take it before the state that the page shows is read: in the view, with ``hub.position()``, if
    the view reads it.  Raises `BrokerUnavailable` if the log cannot be reached.
    """
    return str(hub.position())
