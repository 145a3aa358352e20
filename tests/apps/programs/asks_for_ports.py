"""Print a hundred free ports, and keep them until a line comes."""

from __future__ import annotations

import random

random.seed(1)
from tests.ports import free_port

print(*(free_port() for _ in range(100)), flush=True)
input()
