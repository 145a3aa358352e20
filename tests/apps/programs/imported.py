"""Import a module and print which of some others that has imported."""

from __future__ import annotations

import sys
from importlib import import_module

import_module(sys.argv[1])
print(*(name for name in sys.argv[2:] if name in sys.modules))
