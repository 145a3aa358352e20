"""Ask for a stream over ASGI, and print what its view raises."""

from __future__ import annotations

import asyncio
import os

os.environ["DJANGO_SETTINGS_MODULE"] = "tests.apps.django_site.settings"

import django

django.setup()

from django.test import AsyncClient


async def main() -> None:
    try:
        await AsyncClient().get("/events")
    except Exception as error:
        print(f"{type(error).__name__}: {error}")


asyncio.run(main())
