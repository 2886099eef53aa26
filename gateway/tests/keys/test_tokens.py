"""Signed tokens as credentials, against a real issuer."""

from __future__ import annotations

import base64
import hmac
import json
import logging
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from hashlib import sha256
from typing import Any

import jwt
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice_gateway.auth import Keyring, digest
from sluice_gateway.errors import Problem
from sluice_gateway.identity import Key, LimitValues
from sluice_gateway.keys.jwks import SigningKeys
from sluice_gateway.keys.records import Actor
from sluice_gateway.keys.settings import JwtSettings
from sluice_gateway.keys.tokens import Tokens

from ..serving import ECHO, chat, eventually, serving, settings_of
from .issuer import AUDIENCE, Issuer

LOCAL = ("127.0.0.1", 8000)


@pytest.fixture(scope="module")
def shared() -> Iterator[Issuer]:
    """For tests that only ask it for tokens: making RSA keys takes a while."""
    issuer = Issuer()
    issuer.add_key("one")
    issuer.add_key("curve", "EC")
    issuer.add_key("strict", alg="RS512")
    with issuer.serving():
        yield issuer


@pytest.fixture
def issuer(shared: Issuer) -> Iterator[Issuer]:
    """One that a test may change."""
    issuer = Issuer()
    issuer.private = dict(shared.private)
    issuer.jwks = list(shared.jwks[:1])
    with issuer.serving():
        yield issuer


@asynccontextmanager
async def tokens_of(issuer: Issuer, soon_s: float = 0.02, **said: Any) -> AsyncIterator[Tokens]:
    settings = msgspec.convert({"issuer": issuer.url, "audience": AUDIENCE, **said}, JwtSettings)
    signing_keys = SigningKeys(settings, soon_s=soon_s)
    await signing_keys.start(5)
    yield Tokens(settings, signing_keys, lambda: {"blue": LimitValues(concurrent=2)})
    await signing_keys.aclose()


def verify(tokens: Tokens, token: str) -> Key | Problem | None:
    return tokens.verify(token.encode(), sha256(token.encode()).digest())


def why(tokens: Tokens, token: str) -> str:
    found = verify(tokens, token)
    assert isinstance(found, Problem)
    assert (found.status, found.code) == (401, "invalid_api_key")
    return found.message


async def test_a_token_is_a_credential_beside_keys(shared: Issuer) -> None:
    jwt_section = {"issuer": shared.url, "audience": AUDIENCE}
    keys = [{"id": "root", "sha256": digest("sk-admin"), "admin": True}]
    async with serving(settings_of(backends=[ECHO], keys=keys, jwt=jwt_section)) as served:
        for secret, expected in (
            (shared.token(), 200),
            ("sk-admin", 200),
            (shared.token(exp=1), 401),
            ("x", 401),
        ):
            headers = {"authorization": f"Bearer {secret}"}
            answer = await served.http.post("/v1/chat/completions", json=chat("echo"), headers=headers)
            assert answer.status_code == expected
        admin = await served.http.get("/admin/v1/keys", headers={"authorization": f"Bearer {shared.token()}"})
        assert admin.json()["error"]["code"] == "admin_not_allowed"
        await served.until_idle()
        assert shared.token()[:40] not in served.log.getvalue()


async def test_with_an_issuer_there_is_no_open_mode(shared: Issuer) -> None:
    section = {"issuer": shared.url, "audience": AUDIENCE}
    async with serving(settings_of(backends=[ECHO], jwt=section)) as served:
        assert (await served.http.get("/v1/models")).status_code == 401


@pytest.mark.parametrize(("key_id", "algorithm"), [("one", "RS256"), ("one", "PS256"), ("curve", "ES256")])
async def test_whom_a_token_is_for(shared: Issuer, key_id: str, algorithm: str) -> None:
    said = {"algorithms": ["RS256", "PS256", "ES256"], "tenant_claim": "org", "limits": {"tokens_per_min": 5}}
    async with tokens_of(shared, **said) as tokens:
        found = verify(tokens, shared.token(key_id, algorithm, org="blue"))
    assert isinstance(found, Key)
    assert (found.id, found.tenant) == ("jwt:carol", "blue")
    assert (found.limits, found.tenant_limits) == (LimitValues(tokens_per_min=5), LimitValues(concurrent=2))
    assert not found.scopes.admin


@pytest.mark.parametrize("scope", ["chat other", ["other", "chat"], "chat"])
async def test_its_scopes_add_up(shared: Issuer, scope: object) -> None:
    grants = [
        {"scope": "chat", "endpoints": ["chat"], "models": ["llama-*"]},
        {"scope": "ops", "admin": True, "models": [], "endpoints": []},
    ]
    async with tokens_of(shared, grants=grants) as tokens:
        found = verify(tokens, shared.token(scope=scope))
        assert isinstance(found, Key)
        assert (found.scopes.endpoints, found.scopes.admin) == (frozenset({"chat"}), False)
        found = verify(tokens, shared.token(scope="chat ops"))
        assert isinstance(found, Key)
        assert (found.scopes.models, found.scopes.admin) == (frozenset({"llama-*"}), True)
        for nothing in ("other", "", [], 5, None, {"chat": True}):
            assert "scopes" in why(tokens, shared.token(scope=nothing))


@pytest.mark.parametrize(
    ("claims", "words"),
    [
        ({"exp": 1}, "expired"),
        ({"exp": None}, "exp"),
        ({"nbf": int(time.time()) + 3600}, "not yet valid"),
        ({"aud": "another"}, "audience"),
        ({"aud": None}, "aud"),
        ({"iss": "https://evil.example"}, "issuer"),
        ({"sub": None}, "sub"),
        ({"sub": "a\nb"}, "subject"),
        ({"sub": "x" * 201}, "subject"),
        ({"org": None}, "tenant"),
        ({"org": ["blue"]}, "tenant"),
    ],
)
async def test_a_token_that_is_not_for_us_says_why(
    shared: Issuer, claims: dict[str, Any], words: str
) -> None:
    async with tokens_of(shared, tenant_claim="org") as tokens:
        assert words in why(tokens, shared.token(**{"org": "blue", **claims}))


async def test_no_signature_and_no_shared_secret_will_do(shared: Issuer) -> None:
    claims = {"iss": shared.url, "aud": AUDIENCE, "sub": "eve", "exp": int(time.time()) + 600}
    forged = [
        jwt.encode(claims, "", "none", headers={"kid": "one"}),
        _hmac_signed(claims, json.dumps(shared.jwks[0]).encode()),
        _hmac_signed(claims, shared.pem("one")),
        _unsigned({"alg": "RS256", "kid": "one"}, claims),
        _unsigned({"alg": "None", "kid": "one"}, claims),
        _unsigned({"kid": "one"}, claims),
        _unsigned({"alg": ["RS256"], "kid": "one"}, claims),
    ]
    async with tokens_of(shared) as tokens:
        for token in forged:
            assert not isinstance(verify(tokens, token), Key)
        assert "kid" in why(tokens, jwt.encode(claims, shared.private["one"], "RS256"))
        assert "RS512 only" in why(tokens, shared.token("strict", "RS256"))
        assert "signature" in why(
            tokens, jwt.encode(claims, shared.private["strict"], "RS256", {"kid": "one"})
        )


def _hmac_signed(claims: dict[str, Any], public: bytes) -> str:
    """What passes where a public key is taken for a shared secret."""
    signed, _, _ = _unsigned({"alg": "HS256", "kid": "one"}, claims).rpartition(".")
    mac = hmac.digest(public, signed.encode(), "sha256")
    return f"{signed}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


def _unsigned(header: dict[str, Any], claims: dict[str, Any]) -> str:
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (header, claims)]
    return b".".join([*parts, b"AAAA"]).decode()


async def test_an_algorithm_that_was_not_configured_is_refused(shared: Issuer) -> None:
    async with tokens_of(shared, algorithms=["RS256"]) as tokens:
        assert "RS256" in why(tokens, shared.token("one", "PS256"))


async def test_a_tenants_new_limits_hold_for_tokens_that_are_known(shared: Issuer) -> None:
    section = {"issuer": shared.url, "audience": AUDIENCE, "tenant_claim": "org"}
    async with serving(settings_of(backends=[ECHO], jwt=section)) as served:
        identities = served.gateway.identities
        headers = {b"authorization": f"Bearer {shared.token(org='blue')}".encode()}

        def limits() -> LimitValues:
            found = identities.keyring.authenticate(headers, LOCAL)
            assert isinstance(found, Key)
            return found.tenant_limits

        assert limits() == LimitValues()
        await identities.service.create_tenant(Actor("test"), "blue", {"limits": {"concurrent": 1}})
        assert limits() == LimitValues(concurrent=1)


async def test_a_key_that_is_new_is_looked_for_and_then_known(issuer: Issuer) -> None:
    async with tokens_of(issuer) as tokens:
        issuer.add_key("two", "EC")
        token = issuer.token("two", "ES256")
        assert "did not publish" in why(tokens, token)
        await eventually(lambda: isinstance(verify(tokens, token), Key))


async def test_a_key_that_is_withdrawn_is_known_no_more(issuer: Issuer) -> None:
    async with tokens_of(issuer, refresh_s=0.01) as tokens:
        assert isinstance(verify(tokens, issuer.token()), Key)
        issuer.jwks.clear()
        await eventually(lambda: isinstance(verify(tokens, issuer.token(jti=str(time.time()))), Problem))


async def test_unknown_keys_do_not_flood_the_issuer(issuer: Issuer) -> None:
    issuer.private["stranger"] = issuer.private["one"]
    async with tokens_of(issuer, soon_s=3600) as tokens:
        for number in range(100):
            why(tokens, issuer.token("stranger", jti=str(number)))
        assert issuer.fetched == 1


async def test_an_issuer_that_is_away_makes_no_known_key_fail(
    issuer: Issuer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "sluice")
    async with tokens_of(issuer, refresh_s=0.01) as tokens:
        issuer.is_down = True
        await eventually(lambda: "cannot be read" in caplog.text)
        assert isinstance(verify(tokens, issuer.token()), Key)
        issuer.is_down = False
        await eventually(lambda: "can be read again" in caplog.text)
    assert caplog.text.count("cannot be read") == 1


@pytest.mark.parametrize("claimed", [None, "https://evil.example"])
async def test_an_issuer_that_was_never_heard_is_a_503(issuer: Issuer, claimed: str | None) -> None:
    issuer.is_down, issuer.claimed = claimed is None, claimed
    async with tokens_of(issuer) as tokens:
        found = verify(tokens, issuer.token())
        assert isinstance(found, Problem)
        assert found.status == 503
        issuer.is_down, issuer.claimed = False, None
        await eventually(lambda: isinstance(verify(tokens, issuer.token()), Key))


async def test_unfit_keys_are_left_out(issuer: Issuer) -> None:
    issuer.jwks += [
        {"kty": "oct", "kid": "shared", "k": "c2VjcmV0"},
        {**issuer.jwks[0], "kid": "encrypts", "use": "enc"},
        {"kty": "RSA", "kid": "broken", "n": "!", "e": "AQAB"},
        {"kty": "EC", "kid": "odd", "crv": "none"},
        {"kid": 5},
        "text",  # type: ignore[list-item]
    ]
    settings = JwtSettings(issuer=issuer.url, audience=AUDIENCE)
    signing_keys = SigningKeys(settings)
    await signing_keys.look()
    assert signing_keys.get("one")
    assert not any(signing_keys.get(key_id) for key_id in ("shared", "encrypts", "broken", "odd"))
    await signing_keys.aclose()


async def test_a_token_is_remembered_until_its_end_and_the_table_is_bounded(shared: Issuer) -> None:
    settings = JwtSettings(issuer=shared.url, audience=AUDIENCE, leeway_s=0)
    signing_keys = SigningKeys(settings)
    await signing_keys.look()
    now = [time.time()]
    tokens = Tokens(settings, signing_keys, dict, wall_clock=lambda: now[0], remembered=2)
    known = {number: shared.token(jti=str(number)) for number in range(3)}
    first = verify(tokens, known[0])
    assert verify(tokens, known[0]) is first
    verify(tokens, known[1])
    assert verify(tokens, known[0]) is first  # used last, so it stays
    verify(tokens, known[2])
    assert verify(tokens, known[0]) is first
    now[0] += 10_000
    assert verify(tokens, known[0]) is not first
    tokens.forget()
    assert verify(tokens, known[0]) == first
    await signing_keys.aclose()


@given(st.text(max_size=60) | st.from_regex(r"\A[\w-]{0,20}\.[\w-]{0,20}\.[\w-]{0,20}\Z"))
def test_anything_else_is_no_token_and_no_crash(text: str) -> None:
    settings = JwtSettings(issuer="http://127.0.0.1:1", audience=AUDIENCE)
    tokens = Tokens(settings, _no_keys(settings), dict)
    raw = text.encode("utf-8", "surrogatepass")
    assert not isinstance(tokens.verify(raw, sha256(raw).digest()), Key)


def _no_keys(settings: JwtSettings) -> SigningKeys:
    class Nothing:
        is_loaded = True

        def get(self, key_id: str) -> None:
            return None

    return Nothing()  # type: ignore[return-value]


async def test_a_keyring_asks_for_tokens_only_what_is_no_key(shared: Issuer) -> None:
    async with tokens_of(shared) as tokens:
        ring = Keyring({digest("a.b.c"): Key(id="dotted")}, tokens=tokens)

        def holder(secret: str) -> object:
            return ring.authenticate({b"authorization": f"Bearer {secret}".encode()}, LOCAL)

        assert holder("a.b.c") == Key(id="dotted")
        assert isinstance(holder(shared.token()), Key)
        assert isinstance(holder("a.b.d"), Problem)
        assert isinstance(holder("plain"), Problem)
