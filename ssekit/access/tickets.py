"""Tickets: short-lived addresses of a stream, signed by your application.

A native EventSource sends no header, so a page that cannot use cookies puts a ticket into the
address: ``/events?ticket=...``.  Addresses end up in logs and histories; that is why a ticket is
short-lived, and why the grant that it carries ends with it.  A native EventSource cannot get a new
one, so pages with tickets use ``ssekit.js``, which asks for another.

Signing is itsdangerous's (HMAC, with a salt and a time); this module adds what a ticket says.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from werkzeug.exceptions import Forbidden

from ssekit.hub.grant import Grant
from ssekit.stream.response import query_values

if TYPE_CHECKING:
    from werkzeug import Request

try:
    from itsdangerous import (
        BadData,
        BadSignature,
        SignatureExpired,
        TimestampSigner,
        URLSafeTimedSerializer,
    )
    from itsdangerous.encoding import base64_encode
except ImportError as error:  # pragma: no cover - said by a test in a process without it
    raise ImportError(
        "ssekit.access.Tickets needs itsdangerous: pip install 'ssekit[access]'",
        name="itsdangerous",
    ) from error

SHORTEST_SECRET = 16
"""Bytes of a secret at the least."""

LONGEST = 4096
"""Characters of a ticket at the most: a longer address does not pass many proxies anyway."""


_FIELDS = ("subject", "session", "member")


class Tickets:
    """Issues tickets, and is the ``authorize`` function that accepts them.

    ``secret``: at least 16 bytes that nobody can guess (``python -c 'import secrets;
    print(secrets.token_urlsafe(32))'``).  A list of secrets rotates keys: the last one signs, and
    all of them are accepted.
    ``lifetime``: seconds for which a ticket opens streams; a stream ends with its ticket.
    ``audience``: what the tickets are for; those of another audience are refused.

    Raises ValueError for a secret that is too short or a lifetime that is not above 0.
    """

    def __init__(
        self,
        secret: str | bytes | Iterable[str | bytes],
        lifetime: float = 300,
        audience: str = "",
    ) -> None:
        given = [secret] if isinstance(secret, str | bytes) else secret
        secrets = [one.encode() if isinstance(one, str) else one for one in given]
        if not secrets:
            raise ValueError("name at least one secret")
        for one in secrets:
            if len(one) < SHORTEST_SECRET:
                raise ValueError(
                    f"a ticket's secret needs at least {SHORTEST_SECRET} bytes; make one with "
                    "python -c 'import secrets; print(secrets.token_urlsafe(32))'"
                )
        if not lifetime > 0:
            raise ValueError(f"lifetime must be seconds above 0, not {lifetime!r}")
        self._lifetime = lifetime
        # The audience is part of the key (itsdangerous, "The Salt"), so that a ticket for another
        # one does not even verify.
        salt = f"ssekit.ticket\n{audience}"
        self._serializer = URLSafeTimedSerializer(secrets, salt=salt)
        # What its loads() makes again for each ticket and each secret.
        signer = TimestampSigner(secrets, salt=salt)
        keys = [signer.derive_key(secret) for secret in reversed(signer.secret_keys)]
        self._codes = [hmac.new(key, digestmod=signer.digest_method) for key in keys]

    def issue(
        self,
        *channels: str,
        subject: str | None = None,
        session: str | None = None,
        member: str | tuple[str, object] | None = None,
    ) -> str:
        """Return a ticket for these channels, to be put into ``?ticket=``.

        The fields are those of `Grant`.  Raises ValueError for what a `Grant` refuses, and for no
        channel at all.
        """
        if not channels:
            raise ValueError("name at least one channel")
        grant = Grant(channels, subject=subject, session=session, member=member)
        says: dict[str, Any] = {"channels": grant.channels, "issued": round(time.time(), 3)}
        says |= {name: getattr(grant, name) for name in _FIELDS if getattr(grant, name) is not None}
        ticket = self._serializer.dumps(says)
        text = ticket if isinstance(ticket, str) else ticket.decode()
        if len(text) > LONGEST:
            raise ValueError(f"a ticket has at most {LONGEST} characters; use fewer channels or *")
        return text

    def __call__(self, request: Request) -> Grant | None:
        """Return the grant of the request's ticket, or None if it has none.

        Raises werkzeug's ``Forbidden`` for a ticket that has expired or is not one of ours; its
        description says which, so that a page knows that it has to ask for another.
        """
        tickets = query_values(request.environ, "ticket")
        if not tickets:
            return None
        ticket = tickets[0]
        if len(ticket) > LONGEST:
            raise Forbidden("This is not a valid ticket.")
        try:
            says = self._serializer.load_payload(self._signed(ticket.encode()))
            return self._grant(says)
        except SignatureExpired:
            raise Forbidden("This ticket has expired; ask for another one.") from None
        except (BadData, KeyError, TypeError, ValueError, RecursionError):
            raise Forbidden("This is not a valid ticket.") from None

    def _signed(self, ticket: bytes) -> bytes:
        """Return what a ticket says, as it was signed.  Raises `BadSignature`.

        It is "what it says.when.signature".  Signatures are compared as they are written: Base64
        has bits to spare in its last letter (RFC 4648, section 3.5), so a ticket could be changed
        there and its signature still mean the same.
        """
        signed, _, signature = ticket.rpartition(b".")
        for code in self._codes:
            # What their HMAC returns; a copy of one with its key takes a third of the time.
            ours = code.copy()
            ours.update(signed)
            if hmac.compare_digest(signature, base64_encode(ours.digest())):
                return signed.rpartition(b".")[0]
        raise BadSignature("no secret of ours has signed it")

    def _grant(self, says: dict[str, Any]) -> Grant:
        issued = float(says["issued"])
        expires = issued + self._lifetime
        # Another machine's clock may be ahead by less than a second, as in itsdangerous.
        if not issued - 1 < time.time() < expires:
            raise SignatureExpired("expired")
        member = says.get("member")
        return Grant(
            says["channels"],
            subject=says.get("subject"),
            session=says.get("session"),
            member=(member[0], member[1]) if isinstance(member, list) else member,
            issued=issued,
            expires=expires,
        )
