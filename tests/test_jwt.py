"""JSON Web Tokens: which are accepted, and the confusions of RFC 8725 that must fail."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import jwt as pyjwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from werkzeug import Request
from werkzeug.exceptions import Unauthorized
from werkzeug.serving import make_server
from werkzeug.test import EnvironBuilder

from ssekit.access import JWT, Grant, keys

SECRET = "a shared secret of thirty-two bytes or more"
PRIVATE = ec.generate_private_key(ec.SECP256R1())
PEM = PRIVATE.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
EXPIRES = int(time.time()) + 600


def claims(**more: Any) -> dict[str, Any]:
    found = {"channels": ["a", "user.7.*"], "sub": "7", "exp": EXPIRES, **more}
    return {name: value for name, value in found.items() if value is not None}


def bearer(token: str) -> Request:
    return Request(EnvironBuilder(headers={"Authorization": f"Bearer {token}"}).get_environ())


def shared(**options: Any) -> JWT:
    return JWT(SECRET, algorithms=["HS256"], **options)


def signed(says: dict[str, Any], key: Any = SECRET, algorithm: str = "HS256", **more: Any) -> str:
    return pyjwt.encode(says, key, algorithm=algorithm, **more)


def test_a_token_becomes_a_grant() -> None:
    token = signed(claims(sid="s1", iat=EXPIRES - 700))
    assert shared()(bearer(token)) == Grant(
        ["a", "user.7.*"], subject="7", session="s1", issued=EXPIRES - 700, expires=EXPIRES
    )


def test_a_claim_may_name_the_member() -> None:
    grant = shared(member="nick")(bearer(signed(claims(nick="ann"))))
    assert grant is not None
    assert grant.member == "ann"


def test_a_token_is_found_in_header_cookie_and_query_in_that_order() -> None:
    good, bad = signed(claims()), "no.token.at-all"
    authorize = shared(cookie="session")
    cookie = EnvironBuilder(headers={"Cookie": f"session={good}"}, query_string={"token": bad})
    assert authorize(Request(cookie.get_environ())) is not None
    query = EnvironBuilder(query_string={"token": good})
    assert authorize(Request(query.get_environ())) is not None
    header = EnvironBuilder(headers={"Authorization": f"bearer {bad}", "Cookie": f"session={good}"})
    with pytest.raises(Unauthorized):
        authorize(Request(header.get_environ()))


def test_a_request_without_a_token_has_no_grant() -> None:
    basic = EnvironBuilder(headers={"Authorization": "Basic eDp5"}).get_environ()
    assert shared()(Request(basic)) is None
    assert shared(query=None)(Request(EnvironBuilder(query_string="token=x").get_environ())) is None


def test_algorithms_must_be_named() -> None:
    with pytest.raises(TypeError, match="algorithms"):
        JWT(SECRET)  # type: ignore[call-arg]


@pytest.mark.parametrize("algorithms", [[], ["none"], ["None"], ["HS256", "RS256"], ["MD5"]])
def test_algorithms_that_endanger_are_refused(algorithms: list[str]) -> None:
    with pytest.raises(ValueError, match="algorithm"):
        JWT(SECRET, algorithms=algorithms)


def test_a_short_shared_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        JWT("short", algorithms=["HS256"])


def unsigned(says: dict[str, Any], algorithm: str) -> str:
    parts = [{"alg": algorithm, "typ": "JWT"}, says]
    texts = [base64.urlsafe_b64encode(json.dumps(p).encode()).rstrip(b"=").decode() for p in parts]
    return ".".join([*texts, ""])


def signed_with_the_public_key() -> str:
    """What an attacker makes who knows the public key: PyJWT itself refuses to, so by hand."""
    import hashlib
    import hmac

    head = unsigned(claims(), "HS256").rstrip(".")
    mac = hmac.new(PEM, head.encode(), hashlib.sha256).digest()
    return f"{head}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


REFUSED: dict[str, Callable[[], str]] = {
    "no algorithm": lambda: unsigned(claims(), "none"),
    "no algorithm, oddly spelled": lambda: unsigned(claims(), "nOnE"),
    "another secret": lambda: signed(claims(), "another secret of at least thirty-two bytes"),
    "an algorithm that was not named": lambda: signed(claims(), SECRET * 2, "HS512"),
    "expired": lambda: signed(claims(exp=int(time.time()) - 1)),
    "not yet valid": lambda: signed(claims(nbf=int(time.time()) + 60)),
    "without an end": lambda: signed(claims(exp=None)),
    "for somebody else": lambda: signed(claims(aud="billing")),
    "channels that are text": lambda: signed(claims(channels="a")),
    "without channels": lambda: signed(claims(channels=None)),
    "a channel with a newline": lambda: signed(claims(channels=["a\nb"])),
    "a subject with a newline": lambda: signed(claims(sub="7\nadmin")),
    "too long": lambda: signed(claims(more="x" * 20_000)),
    "not a token": lambda: "a.b.c",
    "nested too deeply": lambda: unsigned(claims(x=None), "HS256") + "[" * 5000,
}


@pytest.mark.parametrize("token", REFUSED.values(), ids=REFUSED.keys())
def test_a_bad_token_is_refused(token: Callable[[], str]) -> None:
    with pytest.raises(Unauthorized) as refused:
        shared()(bearer(token()))
    assert "invalid_token" in str(refused.value.get_response().headers["WWW-Authenticate"])


def test_a_token_with_a_changed_byte_at_any_place_is_refused() -> None:
    token = signed(claims())
    for place, letter in enumerate(token[:-1]):  # the last letter has bits that mean nothing
        changed = token[:place] + ("A" if letter != "A" else "B") + token[place + 1 :]
        with pytest.raises(Unauthorized):
            shared()(bearer(changed))


def test_a_public_key_is_not_taken_for_a_shared_secret() -> None:
    authorize = JWT(PEM, algorithms=["ES256"])
    assert authorize(bearer(signed(claims(), PRIVATE, "ES256"))) is not None
    with pytest.raises(Unauthorized):
        authorize(bearer(signed_with_the_public_key()))


def test_audience_issuer_and_leeway_are_checked() -> None:
    authorize = shared(audience="live", issuer="https://id.example", leeway=30)
    late = int(time.time()) - 10
    good = claims(aud=["live", "x"], iss="https://id.example", exp=late)
    grant = authorize(bearer(signed(good)))
    assert grant is not None
    assert grant.expires == late  # the stream itself ends without leeway
    for change in ({"aud": "x"}, {"aud": None}, {"iss": "https://evil.example"}, {"iss": None}):
        with pytest.raises(Unauthorized):
            authorize(bearer(signed({k: v for k, v in (good | change).items() if v})))


def jwks(**private: rsa.RSAPrivateKey) -> str:
    from jwt.algorithms import RSAAlgorithm

    return json.dumps(
        {
            "keys": [
                {**RSAAlgorithm.to_jwk(key.public_key(), as_dict=True), "kid": kid, "alg": "RS256"}
                for kid, key in private.items()
            ]
        }
    )


@pytest.fixture(scope="module")
def rsa_keys() -> list[rsa.RSAPrivateKey]:
    return [rsa.generate_private_key(65537, 2048) for _ in range(2)]


def test_a_key_file_is_read_again_when_it_changes(
    tmp_path: Path, rsa_keys: list[rsa.RSAPrivateKey]
) -> None:
    first, second = rsa_keys
    file = tmp_path / "jwks.json"
    file.write_text(jwks(one=first))
    authorize = JWT(file, algorithms=["RS256"])
    old = bearer(signed(claims(), first, "RS256", headers={"kid": "one"}))
    new = bearer(signed(claims(), second, "RS256", headers={"kid": "two"}))
    assert authorize(old) is not None
    with pytest.raises(Unauthorized):
        authorize(new)
    file.write_text(jwks(two=second, more=second))
    assert authorize(new) is not None
    with pytest.raises(Unauthorized):
        authorize(old)


def test_a_damaged_key_file_keeps_the_keys_that_were_read(
    tmp_path: Path, rsa_keys: list[rsa.RSAPrivateKey], caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "jwks.json"
    file.write_text(jwks(one=rsa_keys[0]))
    authorize = JWT(file, algorithms=["RS256"])
    token = bearer(signed(claims(), rsa_keys[0], "RS256", headers={"kid": "one"}))
    assert authorize(token) is not None
    file.write_text("half of it")
    assert authorize(token) is not None
    assert "cannot be read" in caplog.text


def test_keys_at_a_url_rotate_and_unknown_ids_do_not_ask_for_them_each_time(
    rsa_keys: list[rsa.RSAPrivateKey], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = rsa_keys
    answers = [jwks(one=first), jwks(one=first, two=second)]
    asked = 0

    def app(environ: Any, start_response: Any) -> list[bytes]:
        nonlocal asked
        asked += 1
        start_response("200 OK", [("Content-Type", "application/json")])
        return [answers[min(asked, len(answers)) - 1].encode()]

    server = make_server("127.0.0.1", 0, app)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        authorize = JWT(f"http://127.0.0.1:{server.server_port}/jwks.json", algorithms=["RS256"])
        old = bearer(signed(claims(), first, "RS256", headers={"kid": "one"}))
        new = bearer(signed(claims(), second, "RS256", headers={"kid": "two"}))
        assert authorize(old) is not None
        for number in range(20):
            unknown = signed(claims(), first, "RS256", headers={"kid": f"unknown {number}"})
            with pytest.raises(Unauthorized):
                authorize(bearer(unknown))
        assert asked == 1
        monkeypatch.setattr(keys, "EVERY", 0.0)  # as if that time were over
        assert authorize(new) is not None
        assert asked == 2
    finally:
        server.shutdown()
        server.server_close()


def test_keys_are_not_fetched_without_https() -> None:
    with pytest.raises(ValueError, match="https"):
        JWT("http://id.example/jwks.json", algorithms=["RS256"])
