"""Articles are written in the admin."""

from django.contrib import admin

from comments.models import Article

admin.site.register(Article)
