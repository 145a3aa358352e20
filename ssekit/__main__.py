"""``python -m ssekit`` is the command ``ssekit``."""

from __future__ import annotations

import sys

from ssekit.cli.main import main

sys.exit(main())
