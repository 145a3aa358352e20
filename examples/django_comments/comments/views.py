"""Each page takes the log's position before its first query, and begins its stream there."""

from __future__ import annotations

from django.contrib.auth.decorators import login_required
from django.db import transaction
from django.db.models import Count
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST

from comments.models import Article, Comment
from ssekit.django import endpoint, hub, publish_on_commit


def readable(request: HttpRequest) -> list[str]:
    """Anybody may read an article's comments, and each user their own notifications."""
    user = request.user
    return ["article.*", *([f"user.{user.pk}"] if user.is_authenticated else [])]


events = endpoint(hub, readable)


@login_required
def home(request: HttpRequest) -> HttpResponse:
    """Show a user's articles with the number of their comments."""
    position = hub.position()
    articles = Article.objects.filter(author=request.user).annotate(count=Count("comments"))
    return render(request, "home.html", {"position": position, "articles": articles})


def article(request: HttpRequest, number: int) -> HttpResponse:
    """Show an article with its comments."""
    position = hub.position()
    found = get_object_or_404(Article, pk=number)
    comments = found.comments.select_related("author")
    context = {"position": position, "article": found, "comments": comments}
    return render(request, "article.html", context)


@login_required
@require_POST
@transaction.atomic
def comment(request: HttpRequest, number: int) -> HttpResponse:
    """Store a comment; if that is committed, the readers see it and the author is notified."""
    found = get_object_or_404(Article, pk=number)
    stored = Comment.objects.create(
        article=found, author=request.user, text=request.POST.get("text", "")
    )
    publish_on_commit(f"article.{found.pk}", stored.as_event(), "comment")
    publish_on_commit(f"user.{found.author_id}", stored.as_event(), "notification")
    return redirect("article", number)
