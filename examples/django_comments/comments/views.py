"""Each page takes the log's position before its first query, and begins its stream there."""

from __future__ import annotations

from django.contrib.auth.decorators import login_required
from django.db import transaction
from django.db.models import Count
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST

from comments.models import Article, Comment
from ssekit.access import Grant
from ssekit.django import endpoint, hub, publish_on_commit


def readable(request: HttpRequest) -> Grant:
    """Anybody may read an article's comments, and each user their own notifications.

    The others see which users read an article just now, and no strangers.
    """
    user = request.user
    if not user.is_authenticated:
        return Grant(["article.*"])
    member = (str(user.pk), {"name": user.get_username()})
    return Grant(["article.*", f"user.{user.pk}"], member=member)


events = endpoint(hub, readable, presence=True)


@login_required
def home(request: HttpRequest) -> HttpResponse:
    """Show a user's articles with the number of their comments."""
    position = hub.position()
    articles = Article.objects.filter(author=request.user).annotate(count=Count("comments"))
    return render(request, "home.html", {"position": position, "articles": articles})


def article(request: HttpRequest, number: int) -> HttpResponse:
    """Show an article with its comments, and who else reads it."""
    position = hub.position()
    readers = hub.members(f"article.{number}")
    found = get_object_or_404(Article, pk=number)
    comments = found.comments.select_related("author")
    return render(
        request,
        "article.html",
        {"position": position, "article": found, "comments": comments, "readers": readers},
    )


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
