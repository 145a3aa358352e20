"""``{% load ssekit %}``: what a page needs to begin its stream where its state was read."""

from __future__ import annotations

import json
from typing import Any

from django import template
from django.core.exceptions import ImproperlyConfigured
from django.urls import NoReverseMatch, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe

from ssekit.browser import files
from ssekit.django.configuration import hub

register = template.Library()


@register.simple_tag
def ssekit_cursor() -> str:
    """Return the log's end, for ``?last_event_id={% ssekit_cursor %}``.

    Take it before the state that the page shows is read: in the view, with ``hub.position()``, if
    the view reads it.  Raises `BrokerUnavailable` if the log cannot be reached.
    """
    return str(hub.position())


@register.simple_tag(takes_context=True)
def ssekit_script(context: template.Context) -> SafeString:
    """Return the elements that load ``ssekit.js``, for ``import { Stream } from "ssekit"``.

    They are an import map, which has to stand before the page's own modules, and the module
    itself, so that it is fetched at once.  Its address has the hash of its content, and never has
    to be asked for again.  Under a Content Security Policy the elements carry the nonce of Django 6
    or of django-csp.

    Raises ImproperlyConfigured unless the project includes ``ssekit.django.urls``.
    """
    try:
        address = reverse("ssekit:file", args=[files.address])
    except NoReverseMatch as error:
        raise ImproperlyConfigured(
            "{% ssekit_script %} needs an address for the file: add "
            'path("ssekit/", include("ssekit.django.urls")) to your urlpatterns'
        ) from error
    nonce = _nonce(context)
    # What JSON holds cannot end the element once it has no "<", as in Django's own json_script.
    imports = json.dumps({"imports": {"ssekit": address}}).replace("<", "\\u003c")
    mapping = mark_safe(imports)  # noqa: S308
    return format_html(
        '<script type="importmap"{0}>{1}</script>\n'
        '<script type="module" src="{2}" integrity="{3}"{0}></script>',
        nonce,
        mapping,
        address,
        files.integrity,
    )


def _nonce(context: template.Context) -> str:
    request: Any = context.get("request")
    nonce = context.get("csp_nonce") or getattr(request, "csp_nonce", None)
    return format_html(' nonce="{}"', nonce) if nonce else ""
