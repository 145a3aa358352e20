"""Where grants come from: tickets that your application issues, and JSON Web Tokens.

`Tickets` and `JWT` are ``authorize`` functions for `Hub.endpoint`; your own function is as good,
for instance one that looks a cookie's session up.  `Grant` is what they return.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ssekit.hub.grant import Grant
from ssekit.lazy import exports

if TYPE_CHECKING:
    from ssekit.access.jwt import JWT
    from ssekit.access.tickets import Tickets

__all__ = ["JWT", "Grant", "Tickets"]

__getattr__ = exports(__name__, {"JWT": "ssekit.access.jwt", "Tickets": "ssekit.access.tickets"})
