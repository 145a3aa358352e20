"""Run with ``manage.py test``."""

from __future__ import annotations

import json
import re
from unittest.mock import patch

from django.contrib.auth.models import User
from django.test import Client, TestCase

from comments.models import Article, Comment
from ssekit import Decoder, Event


def first(response, count: int) -> list[Event]:
    """Return the first events of a stream, and leave."""
    events: list[Event] = []
    decoder = Decoder()
    blocks = response.streaming_content
    for block in blocks:
        events += decoder.feed(block)
        if len(events) >= count:
            break
    blocks.close()  # response.close() would close the database connection of the TestCase
    return events[:count]


class Comments(TestCase):
    def setUp(self):
        self.ann, self.bob = (User.objects.create(username=name) for name in ("ann", "bob"))
        self.article = Article.objects.create(author=self.ann, title="On streams")
        self.client.force_login(self.bob)

    def say(self, text):
        with self.captureOnCommitCallbacks(execute=True):
            address = f"/articles/{self.article.pk}/comments"
            self.assertEqual(self.client.post(address, {"text": text}).status_code, 302)

    def position(self, client, address):
        page = client.get(address).content.decode()
        return re.search(r"last_event_id=([\w-]+)", page)[1]

    def test_a_comment_made_after_the_page_was_rendered_comes_with_its_stream(self):
        position = self.position(self.client, f"/articles/{self.article.pk}")
        self.say("It works")
        query = {"channel": f"article.{self.article.pk}", "last_event_id": position}
        (event,) = first(self.client.get("/events", query), 1)
        self.assertEqual((event.event, json.loads(event.data)["text"]), ("comment", "It works"))

    def test_the_page_and_its_stream_say_who_reads_it(self):
        address = f"/articles/{self.article.pk}"
        query = {"channel": f"article.{self.article.pk}"}
        _, event = first(self.client.get("/events", query), 2)  # after the opening
        self.assertEqual(event.event, "stream-join")
        self.assertEqual(json.loads(event.data)["value"], {"name": "bob"})
        reader = f'<li id="reader-{self.bob.pk}">bob</li>'
        self.assertIn(reader, Client().get(address).content.decode())

    def test_the_author_is_notified(self):
        author = Client()
        author.force_login(self.ann)
        position = self.position(author, "/")
        self.say("It works")
        query = {"channel": f"user.{self.ann.pk}", "last_event_id": position}
        (event,) = first(author.get("/events", query), 1)
        self.assertEqual(event.event, "notification")
        self.assertIn("(<output", author.get("/").content.decode())

    def test_nobody_else_reads_a_users_notifications(self):
        query = {"channel": f"user.{self.ann.pk}"}
        self.assertEqual(self.client.get("/events", query).status_code, 403)
        self.assertEqual(Client().get("/events", query).status_code, 403)

    def test_a_comment_that_is_rolled_back_is_not_shown(self):
        made = [{"text": "of a comment"}, ValueError]  # the second event of the transaction fails
        with (
            patch.object(Comment, "as_event", side_effect=made),
            self.captureOnCommitCallbacks() as callbacks,
            self.assertRaises(ValueError),
        ):
            self.client.post(f"/articles/{self.article.pk}/comments", {"text": "It fails"})
        self.assertEqual(callbacks, [])
        self.assertFalse(Comment.objects.exists())
