"""What a project has before it follows docs/django.md."""
