"""The demo application, which ``wsgi.py`` serves.  It is not part of the library."""
