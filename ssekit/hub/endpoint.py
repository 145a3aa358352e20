"""One address for many users: who may read what is decided for each client, and can be undone.

``authorize`` says what a client may read.  Its grant limits the channels that the client names, and
the stream ends when the grant expires, or when it is revoked.  Nothing that a client sends can
widen a grant, and a client is told a final no (401, 403) only by a decision: where ``authorize``
fails, an EventSource is told to come back.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from typing import Any

from ssekit import host
from ssekit.hub.access import Access
from ssekit.hub.at_end import AtEnd, Stoppable
from ssekit.hub.gate import Authorize, Gate
from ssekit.hub.grant import Grant, NotGranted, Unnamed, member_of
from ssekit.hub.granted import REVOKED, GrantedStream
from ssekit.hub.stream import Channels
from ssekit.stream.admission import Limit, Overloaded
from ssekit.stream.blocks import Blocks, Opener
from ssekit.stream.open import OpenStream
from ssekit.stream.response import Headers, plain_answer, query_values
from ssekit.stream.source import is_http_exception, request_of

MOST_OPENERS = 1000
"""Sets of channels whose openers an endpoint keeps: its clients choose them."""


class Refused(Exception):
    """Raised for a client that may not read; it is its own WSGI application."""

    def __init__(self, status: str, why: str, headers: Headers = ()) -> None:  # type: ignore[assignment]
        super().__init__(why)
        self._answer = plain_answer(status, why, [*headers])

    def get_response(self) -> None:
        """Marks it as an answer, as a werkzeug ``HTTPException`` is one."""

    def __call__(self, environ: Mapping[str, Any], start_response: Callable[..., Any]) -> Any:
        return self._answer.give(environ, start_response)


class Endpoint(Opener):
    """Opens streams for the clients that ``authorize`` admits.

    ``origins`` are those of the stream: a page of another site may not even open it.
    """

    def __init__(
        self,
        access: Callable[[], Access],
        channels: Callable[[frozenset[str]], Channels],
        authorize: Authorize,
        gate: Gate,
        *,
        limit: Limit,
        max_age: float,
        origins: Any = (),
        cuts: bool = False,
    ) -> None:
        self.limit = limit
        self.cuts = cuts
        self._access = access
        self._channels = channels
        self._openers: dict[frozenset[str], Channels] = {}
        self._authorize = authorize
        self._gate = gate
        self._max_age = max_age
        self._origins = origins

    def open(self, environ: dict[str, Any]) -> Blocks:
        try:
            blocks = self._admit(environ)
        except Exception as error:
            if is_http_exception(error):  # Refused among them
                self.limit.counts.add("unauthorized")
            raise
        self.limit.counts.add("authorized")
        return blocks

    def _admit(self, environ: dict[str, Any]) -> Blocks:
        self._check_site(environ)
        request = request_of(environ)
        access = self._access()
        with contextlib.suppress(Overloaded):  # `refusal` raises it, after the decision.
            # First: a disconnection of before this process is then older than the authorization.
            access.load()
        begun = time.time()
        grant = self._gate.authorize(self._authorize, request)
        if grant is None:
            raise Refused("401 Unauthorized", "Sign in to read this stream.")
        self._check_age(grant)
        try:
            opener = self._opener_of(grant.narrowed(query_values(environ, "channel")))
        except Unnamed as error:
            raise Refused("400 Bad Request", str(error)) from None
        except NotGranted as error:
            raise Refused("403 Forbidden", str(error)) from None
        stream = GrantedStream(grant, opener.channels, begun)
        return self._open(environ, access, stream, opener)

    def _open(
        self, environ: dict[str, Any], access: Access, stream: GrantedStream, opener: Channels
    ) -> Blocks:
        access.add(stream)
        blocks = None
        try:
            # After it was added: what is revoked from here on is seen by the stream itself.
            refusal = access.refusal(stream)
            if refusal == REVOKED:
                raise Refused("403 Forbidden", "The credential was revoked.")
            if refusal is not None:
                raise Overloaded(refusal)  # It comes back, and is authorized again.
            member = member_of(stream.grant.member)
            blocks = opener.open_for(environ, member)
            stream.end = blocks.stopper()
        finally:
            if blocks is None:
                stream.close()
        return GrantedBlocks(blocks, stream)

    def _opener_of(self, channels: frozenset[str]) -> Channels:
        """Return what opens these channels: the same for all that have just them."""
        opener = self._openers.get(channels)
        if opener is None:
            if len(self._openers) >= MOST_OPENERS:
                self._openers.clear()
            opener = self._openers[channels] = self._channels(channels)
        return opener

    def _check_site(self, environ: Mapping[str, Any]) -> None:
        """Refuse what a page of another site asks for with the user's cookies.

        It could not read the stream, but opening it would be seen: the user would be present.
        Browsers say where a request comes from (Fetch Metadata, ``Sec-Fetch-Site``).
        """
        if environ.get("HTTP_SEC_FETCH_SITE") != "cross-site" or self._origins == "*":
            return
        if environ.get("HTTP_ORIGIN") not in self._origins:
            raise Refused("403 Forbidden", "This stream is not for pages of another site.")

    def _check_age(self, grant: Grant) -> None:
        now = time.time()
        if grant.expires is not None and grant.expires <= now:
            raise Refused("403 Forbidden", "The grant has expired.")
        if grant.issued is not None and grant.issued < now - self._max_age:
            # The log may have forgotten that it was revoked.
            raise Refused("403 Forbidden", "The credential is too old; get a new one.")


class GrantedBlocks(AtEnd):
    """The blocks of a stream for as long as its grant holds.

    What ends the stream is seen before and after each block, so that nothing is sent that was read
    after the stream had to end.
    """

    def __init__(self, blocks: Stoppable, stream: GrantedStream) -> None:
        super().__init__(blocks, stream.close)
        self._stream = stream
        self.subject = stream.grant.subject

    def next_block(self, client: host.Client) -> tuple[int, bytes]:
        self._check()
        found = super().next_block(client)
        self._check()
        return found

    def take_over(self, stream: OpenStream) -> bool:
        if self._stream.ended is not None or not super().take_over(stream):
            return False  # If it has ended, `next_block` says why.
        self._stream.end = self.stopper()  # Which keeps nothing of what is not needed any more.
        return True

    def _check(self) -> None:
        if self._stream.ended is not None:
            raise host.Ended(self._stream.ended)
