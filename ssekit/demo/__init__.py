"""The demo application, which ``wsgi.py`` serves.  It is no part of the library."""
