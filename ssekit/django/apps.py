"""What Django loads when ``"ssekit.django"`` is in ``INSTALLED_APPS``."""

from __future__ import annotations

from django.apps import AppConfig


class SsekitConfig(AppConfig):
    """Connects the signals and registers the checks."""

    name = "ssekit.django"
    label = "ssekit"
    verbose_name = "ssekit"

    def ready(self) -> None:
        """Called once the project's models are there."""
        from ssekit.django import checks, signals

        checks.register()
        signals.connect()
