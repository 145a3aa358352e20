"""Ask the log of each URL where it stands, and print which packages that has imported.

python -m tests.apps.programs.tips URL...
"""

from __future__ import annotations

import sys

from ssekit.brokers import connect

for url in sys.argv[1:]:
    connect(url).tip()
print(*({"gevent", "redis", "werkzeug", "greenlet"} & set(sys.modules)))
