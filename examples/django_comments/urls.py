"""The pages, the stream of each user, and ssekit.js."""

from comments import views
from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("", views.home, name="home"),
    path("articles/<int:number>", views.article, name="article"),
    path("articles/<int:number>/comments", views.comment, name="comment"),
    path("events", views.events, name="events"),
    path("ssekit/", include("ssekit.django.urls")),
    path("admin/", admin.site.urls),
]
