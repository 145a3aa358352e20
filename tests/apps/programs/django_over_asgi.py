"""Ask for streams over ASGI, and print what their views raise: PATH..."""

from __future__ import annotations

import asyncio
import os
import sys

os.environ["DJANGO_SETTINGS_MODULE"] = "tests.apps.django_site.settings"

import django

django.setup()

from django.test import AsyncClient


async def main() -> None:
    for path in sys.argv[1:]:
        try:
            await AsyncClient().get(path)
        except Exception as error:
            print(f"{type(error).__name__}: {error}")


asyncio.run(main())
