"""What is in the database: the state that pages show."""

from django.conf import settings
from django.db import models


class Article(models.Model):
    author = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE)
    title = models.CharField(max_length=200)

    def __str__(self) -> str:
        return self.title


class Comment(models.Model):
    article = models.ForeignKey(Article, models.CASCADE, related_name="comments")
    author = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE)
    text = models.TextField()

    class Meta:
        ordering = ("pk",)

    def __str__(self) -> str:
        return self.text

    def as_event(self) -> dict[str, object]:
        """Return what pages need to show it."""
        return {
            "id": self.pk,
            "article": self.article_id,
            "author": self.author.get_username(),
            "text": self.text,
        }
