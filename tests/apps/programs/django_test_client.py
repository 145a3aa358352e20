"""Read a stream with Django's test client, alone and inside the transaction of a test."""

from __future__ import annotations

import os

os.environ["DJANGO_SETTINGS_MODULE"] = "tests.apps.django_site.settings"

import django

django.setup()

from django.db import connection, transaction
from django.test import Client

from ssekit import Decoder
from tests.apps.django_site.urls import hub

response = Client().get("/events")
print(response.status_code)
decoder, wanted = Decoder(), 2
for block in response.streaming_content:
    for event in decoder.feed(block):
        print(event.data if event.event == "message" else event.event)
        wanted -= 1
        if event.event == "stream-open":
            hub.publish("news", "it works")
    if not wanted:
        break
response.close()
with transaction.atomic():
    response = Client().get("/events")
    next(iter(response.streaming_content))
    print("inside a test:", "closed" if connection.connection is None else "open")
    response.close()
