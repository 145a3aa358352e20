"""``ssekit.js``: an EventSource that survives deploys, and one connection for all tabs.

`files` serves it.  It is a WSGI application, so every framework takes it: mount it below a prefix,
and ``<prefix>/ssekit.js`` is the module.  What the module does is in ``docs/browser.md``; the
folder is an npm package as well, for pages that are built.
"""

from ssekit.browser.serving import files as files
