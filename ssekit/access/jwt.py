"""JSON Web Tokens (RFC 7519) as grants, for applications that have them already.

Verifying is PyJWT's; this module says which tokens are accepted (RFC 8725, "JSON Web Token Best
Current Practices"), where in a request they are, and what their claims mean here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from os import PathLike
from typing import TYPE_CHECKING, Any

from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import Unauthorized

from ssekit.access.keys import FixedKey, KeyFile, Keys, KeyUnknown, KeyUrl
from ssekit.hub.grant import Grant

if TYPE_CHECKING:
    from werkzeug import Request

try:
    import jwt
except ImportError as error:  # pragma: no cover - said by a test in a process without it
    raise ImportError(
        "ssekit.access.JWT needs PyJWT: pip install 'ssekit[access]'", name="jwt"
    ) from error

LONGEST = 16 * 1024
"""Characters of a token at the most."""

_SHARED = ("HS256", "HS384", "HS512")
_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_PUBLIC = (*_RSA, "ES256", "ES384", "ES512", "ES256K", "EdDSA")


class JWT:
    """The ``authorize`` function that accepts JSON Web Tokens.

    A token is taken from ``Authorization: Bearer``, else from the cookie ``cookie``, else from the
    query field ``query``; either name may be None.  An address ends up in logs, so prefer the
    other two.

    ``key``: a shared secret for HS algorithms (``bytes`` or ``str``), a public key in PEM, or a set
    of keys (JWKS, RFC 7517): a path to a file or an ``https://`` URL.  A set is read again when its
    file changes, or, at most every ten seconds, when a token names a key that it lacks.
    ``algorithms``: those that you use; none is assumed, as a token must not choose (RFC 8725, 3.1).
    ``claim``: the claim with the list of channels, each exact or a prefix that ends in ``*``.
    ``audience``, ``issuer``: what ``aud`` and ``iss`` must be; a token with ``aud`` is refused
    where no audience is named.
    ``leeway``: seconds by which clocks may differ when ``exp`` and ``nbf`` are checked.  The stream
    itself ends at ``exp``.
    ``member``: a claim with the id of the member that is present, if any.

    ``sub`` becomes the grant's subject, ``sid`` its session, ``iat`` when it was issued.  A token
    without ``exp`` is refused.

    Raises TypeError without ``algorithms``, and ValueError for ``none``, an unknown algorithm, or
    shared and public ones together: a public key must never be taken for a shared secret.
    """

    def __init__(
        self,
        key: str | bytes | PathLike[str],
        *,
        algorithms: Iterable[str],
        claim: str = "channels",
        audience: str | Iterable[str] | None = None,
        issuer: str | None = None,
        leeway: float = 0,
        member: str | None = None,
        cookie: str | None = None,
        query: str | None = "token",
    ) -> None:
        self._algorithms = _checked(algorithms)
        self._keys = _keys(key, self._algorithms)
        self._claim = claim
        self._audience = audience if audience is None or isinstance(audience, str) else [*audience]
        self._issuer = issuer
        self._leeway = leeway
        self._member = member
        self._cookie = cookie
        self._query = query

    def __call__(self, request: Request) -> Grant | None:
        """Return the grant of the request's token, or None if it has none.

        Raises werkzeug's ``Unauthorized`` for a token that is not accepted (RFC 6750, section 3.1).
        """
        token = self._token(request)
        if token is None:
            return None
        if len(token) > LONGEST:
            raise _refused("The token is too long.")
        try:
            return self._grant(self._claims(token))
        except jwt.ExpiredSignatureError:
            raise _refused("The token has expired.") from None
        except (jwt.PyJWTError, KeyUnknown, TypeError, ValueError, RecursionError):
            raise _refused("The token is not valid here.") from None

    def _token(self, request: Request) -> str | None:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer" and token.strip():
            return token.strip()
        found = request.cookies.get(self._cookie) if self._cookie else None
        if found is None and self._query:
            found = request.args.get(self._query)
        return found

    def _claims(self, token: str) -> Mapping[str, Any]:
        header = jwt.get_unverified_header(token)
        key = self._keys.find(header.get("kid"))
        claims: Mapping[str, Any] = jwt.decode(
            token,
            key,
            algorithms=self._algorithms,
            audience=self._audience,
            issuer=self._issuer,
            leeway=self._leeway,
            options={"require": ["exp"]},
        )
        return claims

    def _grant(self, claims: Mapping[str, Any]) -> Grant:
        channels = claims.get(self._claim)
        if not isinstance(channels, list):
            raise TypeError(f"the claim {self._claim!r} is not a list of channels")
        return Grant(
            channels,
            subject=_text(claims.get("sub")),
            session=_text(claims.get("sid")),
            issued=claims.get("iat"),
            expires=claims["exp"],
            member=_text(claims.get(self._member)) if self._member else None,
        )


def _checked(algorithms: Iterable[str]) -> list[str]:
    if isinstance(algorithms, str):
        raise TypeError(f"algorithms must be a list of names, not the str {algorithms!r}")
    names = list(algorithms)
    if not names:
        raise ValueError("name the algorithms that your tokens are signed with")
    for name in names:
        if name not in _SHARED + _PUBLIC:
            raise ValueError(
                f"{name!r} is not a signature algorithm for tokens; use ES256 or HS256"
            )
    if {name in _SHARED for name in names} == {True, False}:
        raise ValueError(
            "algorithms with a shared secret (HS...) and with a public key do not go together: "
            "a token could be signed with the public key as the secret"
        )
    return names


def _keys(key: str | bytes | PathLike[str], algorithms: list[str]) -> Keys:
    if isinstance(key, PathLike):
        return KeyFile(key)
    text = key.decode("latin-1") if isinstance(key, bytes) else key
    if text.startswith(("https://", "http://")):
        return KeyUrl(text)
    if algorithms[0] in _SHARED and len(key) < 32:
        # RFC 7518, 3.2: "A key of the same size as the hash output or larger MUST be used".
        raise ValueError("a shared secret for tokens needs at least 32 bytes")
    return FixedKey(key)


def _text(value: object) -> str | None:
    if value is not None and not isinstance(value, str):
        raise TypeError("the claims sub, sid and member are text")
    return value


def _refused(why: str) -> Unauthorized:
    return Unauthorized(why, www_authenticate=WWWAuthenticate("bearer", {"error": "invalid_token"}))
