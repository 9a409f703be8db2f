"""Tokens through the socket: keys that are fetched, rotated and kept, and that nothing of a token gets out."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fakes.model_server import FakeModel
from support.raw import CHAT, MESSAGES, Answer, ask
from support.running import Running, Serve, Tape
from support.sessions import STREAM
from support.shapes import assert_told, get, valid_body
from support.tokens import AUDIENCE, ISSUER, SECRET, claims, jwk, jwks, raw, signed_as_it_is, signed_with_secret, token

from edge.telemetry import log
from edge.upstream import jwks as fetching


class Issuer:
    """What publishes the keys: a fake server's route."""

    def __init__(self, fake: FakeModel) -> None:
        self.fake = fake
        self.publish(jwk("rsa", "one"))

    def publish(self, *keys: dict[str, Any], status: int = 200, body: bytes | None = None, **headers: str) -> None:
        told = {"Content-Type": "application/json", **headers}
        self.fake.get["/jwks?v=1"] = (status, told, jwks(*keys) if body is None else body)

    @property
    def asked(self) -> int:
        return sum(request.path == "/jwks?v=1" for request in self.fake.gets)

    def auth(self, **more: Any) -> dict[str, Any]:
        return {
            "jwt_jwks": f"{self.fake.url}/jwks?v=1", "jwt_issuer": ISSUER, "jwt_audience": [AUDIENCE], **more,
        }  # fmt: skip


@pytest.fixture
async def issuer() -> Any:
    async with FakeModel() as fake:
        yield Issuer(fake)


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


def good(kid: str = "one", kind: str = "rsa", number: int = 0, **more: Any) -> str:
    return token(kind, kid, claims(time.time(), **more), number)


async def asked(edge: Running, text: str, path: str = CHAT) -> Answer:
    return await ask(edge.port, path, valid_body(path), bearer(text))


async def test_a_token_is_believed_and_stays_here(serve: Serve, fake: FakeModel, issuer: Issuer) -> None:
    edge = await serve(auth=issuer.auth())
    text = good()
    assert (await asked(edge, text)).status == 200
    assert (await edge.record())["principal"] == "jwt:bob"
    assert text not in str(fake.requests[0].headers)
    (request,) = issuer.fake.gets
    assert "authorization" not in {name.lower() for name in request.headers}


async def test_what_it_grants_holds(serve: Serve, fake: FakeModel, issuer: Issuer) -> None:
    edge = await serve(auth=issuer.auth(jwt_models_claim="models", jwt_admin_claim="roles"))
    answer = await asked(edge, good(models=["other*"]), MESSAGES)
    assert_told(answer, 403, MESSAGES, kind="permission_error")
    assert (await asked(edge, good())).status == 403, "a token without the claim grants no model"
    assert fake.requests == []
    assert (await get(edge.port, "/metrics", bearer(good()))).status == 403
    assert (await get(edge.port, "/metrics", bearer(good(roles=["edge-admin"])))).status == 200


async def test_a_secret_needs_no_issuer(serve: Serve) -> None:
    edge = await serve(auth={"jwt_secret": SECRET})
    assert (await asked(edge, signed_with_secret(claims(time.time())))).status == 200
    answer = await asked(edge, signed_with_secret(claims(time.time() - 1000)))
    assert_told(answer, 401, CHAT, "expired_token")
    answer = await asked(edge, signed_with_secret(claims(time.time()), SECRET[::-1]))
    assert_told(answer, 401, CHAT, "invalid_token")
    assert_told(await ask(edge.port, CHAT, valid_body(CHAT)), 401, CHAT, "invalid_api_key")


async def test_keys_and_tokens_go_together(serve: Serve, issuer: Issuer) -> None:
    edge = await serve(auth=issuer.auth(keys=["the-static-key", "one.with.dots"]))
    for text in ("the-static-key", "one.with.dots", good()):
        assert (await asked(edge, text)).status == 200
    both = {**bearer(raw({"alg": "none"}, claims())), "x-api-key": "the-static-key"}
    assert (await ask(edge.port, CHAT, valid_body(CHAT), both)).status == 200


# --- the keys of the issuer -------------------------------------------------------------------------------------------


async def test_a_new_key_is_fetched_when_the_first_token_comes_that_needs_it(serve: Serve, issuer: Issuer) -> None:
    edge = await serve(auth=issuer.auth())
    assert (await asked(edge, good())).status == 200
    issuer.publish(jwk("ec", "two"))
    age(edge)
    assert (await asked(edge, good("two", "ec"))).status == 200
    answer = await asked(edge, good())
    assert_told(answer, 401, CHAT, "invalid_token")


async def test_whoever_sends_unknown_kids_does_not_make_it_fetch_each_time(serve: Serve, issuer: Issuer) -> None:
    edge = await serve(auth=issuer.auth(failures_per_min=0))
    assert (await asked(edge, good())).status == 200
    for n in range(10):
        assert (await asked(edge, good(f"new-{n}", number=1))).status == 401
    assert issuer.asked == 1
    age(edge)
    for n in range(10):
        assert (await asked(edge, good(f"new-{n}", number=1))).status == 401
    assert issuer.asked == 2


async def test_a_token_whose_key_the_issuer_is_not_asked_for_yet_is_no_wrong_guess(
    serve: Serve, issuer: Issuer
) -> None:
    """It may have begun to sign with another key since it was asked, a moment ago."""
    edge = await serve(auth=issuer.auth(failures_per_min=1))
    assert (await asked(edge, good())).status == 200
    for _ in range(3):
        assert_told(await asked(edge, good("two", "ec")), 401, CHAT, "invalid_token")
    issuer.publish(jwk("rsa", "one"), jwk("ec", "two"))
    age(edge)
    assert (await asked(edge, good("two", "ec"))).status == 200


async def test_a_token_whose_key_the_issuer_cannot_be_asked_for_is_not_judged(serve: Serve, issuer: Issuer) -> None:
    edge = await serve(auth=issuer.auth(failures_per_min=1))
    assert (await asked(edge, good())).status == 200
    issuer.publish(status=500, body=b"{}")
    age(edge)
    for _ in range(3):
        assert_told(await asked(edge, good("two", "ec")), 503, CHAT, "auth_unavailable")
    assert (await asked(edge, good())).status == 200


Break = Callable[[Issuer], Any]
OUTAGES: dict[str, Break] = {
    "gone": lambda issuer: issuer.fake.refuse(),
    "error": lambda issuer: issuer.publish(status=500, body=b"{}"),
    "page": lambda issuer: issuer.publish(body=b"<html>sorry</html>"),
    "empty": lambda issuer: issuer.publish(),
    "redirect": lambda issuer: issuer.publish(status=302, body=b"", Location="http://127.0.0.1:1/jwks"),
    "huge": lambda issuer: issuer.publish(body=b'{"keys": []' + b" " * 2**20 + b"}"),
}


@pytest.mark.parametrize("outage", OUTAGES.values(), ids=OUTAGES)
async def test_the_keys_are_kept_through_an_outage_of_the_issuer(serve: Serve, issuer: Issuer, outage: Break) -> None:
    issuer.fake.close_after_answer = True
    edge = await serve(auth=issuer.auth())
    assert (await asked(edge, good())).status == 200
    if (waiting := outage(issuer)) is not None:
        await waiting
    key_set = edge.edge.callers._key_set
    assert key_set is not None
    for _ in range(2):
        await key_set.fetch()
    (line,) = edge.lines.of("token keys not to be had")
    assert line["kept"] == 1
    assert (await asked(edge, good())).status == 200
    issuer.publish(jwk("rsa", "one"), jwk("ec", "two"))
    if outage is OUTAGES["gone"]:
        await issuer.fake.listen()
    await key_set.fetch()
    assert [line["count"] for line in edge.lines.of("token keys")] == [1, 2]
    assert (await asked(edge, good("two", "ec"))).status == 200


async def test_before_the_keys_are_there_nobody_is_told_that_a_token_is_wrong(serve: Serve, issuer: Issuer) -> None:
    await issuer.fake.refuse()
    edge = await serve(auth=issuer.auth(keys=["the-static-key"]))
    for path in (CHAT, MESSAGES):
        answer = await asked(edge, good(), path)
        assert_told(answer, 503, path, "auth_unavailable")
    assert (await asked(edge, "the-static-key")).status == 200
    await issuer.fake.listen()
    age(edge)
    assert (await asked(edge, good())).status == 200


async def test_an_issuer_that_hangs_holds_nobody_up_but_its_own(
    serve: Serve, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "_FETCH_S", 0.2)
    issuer.fake.get["/jwks?v=1"] = (200, {"Content-Length": "1000"}, b"{")
    edge = await serve(auth=issuer.auth(keys=["the-static-key"]))
    assert (await asked(edge, "the-static-key")).status == 200
    assert_told(await asked(edge, good()), 503, CHAT, "auth_unavailable")


async def test_keys_may_be_in_a_file_which_is_read_again(serve: Serve, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    file.write_bytes(jwks(jwk("rsa", "one")))
    auth = {"jwt_jwks": str(file), "jwt_issuer": ISSUER, "jwt_audience": [AUDIENCE]}
    edge = await serve(auth=auth)
    assert (await asked(edge, good())).status == 200
    file.write_bytes(jwks(jwk("ed", "two")))
    await edge.edge.reload(edge.edge.settings)
    assert (await asked(edge, good("two", "ed"))).status == 200
    assert (await asked(edge, good())).status == 401


async def test_a_reload_changes_whom_it_believes(serve: Serve, issuer: Issuer) -> None:
    edge = await serve(auth=issuer.auth())
    assert (await asked(edge, good())).status == 200
    settings = edge.edge.settings
    await edge.edge.reload(
        msgspec.structs.replace(settings, auth=msgspec.structs.replace(settings.auth, jwt_issuer="x"))
    )
    assert (await asked(edge, good())).status == 401
    secret = msgspec.structs.replace(settings.auth, jwt_jwks="", jwt_secret=SECRET, jwt_issuer="", jwt_audience=[])
    await edge.edge.reload(msgspec.structs.replace(settings, auth=secret))
    assert (await asked(edge, good())).status == 401
    assert (await asked(edge, signed_with_secret(claims(time.time())))).status == 200


def age(edge: Running) -> None:
    """As if the keys had been fetched long ago."""
    key_set = edge.edge.callers._key_set
    assert key_set is not None
    key_set._fetched_at = float("-inf")


# --- nothing gets out -------------------------------------------------------------------------------------------------


async def test_neither_a_token_nor_what_it_says_is_found_in_a_line_or_an_answer(
    serve: Serve, fake: FakeModel, issuer: Issuer
) -> None:
    edge = await serve(auth=issuer.auth(failures_per_min=0, jwt_limits_claim="limits"))
    tape = Tape()
    log.configure(edge.edge.settings.log, stream=tape)
    secret = "canary-in-a-claim"
    hostile = [
        good(more=secret), good(iss=secret), good(aud=secret), good(sub=f"{secret} x"), good(exp=secret),
        good(limits={secret: 1}), good(limits=f"{secret}!"), good(nbf=secret), good(f"{secret}\u2028"),
        raw(secret, secret), raw({"alg": secret}, {}), f"{secret}.{secret}.{secret}",
        token("rsa", "one", claims(time.time()), jku=secret),
    ]  # fmt: skip
    answers = []
    for text in hostile:
        answers.append(await asked(edge, text, MESSAGES))
        answers.append(await asked(edge, text))
        answers.append(await get(edge.port, "/nowhere", bearer(text)))
        answers.append(await get(edge.port, f"{STREAM}?prompt=x&ticket={text}".replace("\u2028", "")))
        log.write_counts()  # ends the minute, in which only the first ten would have had a line
    await tape.wait("refused", 13 * 3)
    assert {answer.status for answer in answers} >= {200, 401, 404}
    parts = [part for text in hostile for part in text.split(".") if len(part) > 20]
    for text in (secret, *hostile, *parts):
        assert text not in tape.text.getvalue()
        assert text not in str(answers)
    assert all(text not in str(request.headers) for request in fake.requests for text in hostile)


async def test_who_is_refused_opens_no_connection_to_an_upstream(serve: Serve, issuer: Issuer) -> None:
    """Looked for at the upstream's end of the socket, not among requests: a connection that asks nothing counts."""
    async with FakeModel() as upstream:
        edge = await serve(upstream.url, auth=issuer.auth(failures_per_min=0), discovery={"interval_s": 3600})
        assert (await asked(edge, good())).status == 200
        before = len(upstream.connections)
        for text in (good("none"), good(exp=1), raw({"alg": "none"}, claims()), "edge-0-0", "guess", ""):
            for path in (CHAT, MESSAGES, "/api/chat", "/v1/rerank", STREAM):
                body = {"model": "m", "messages": [], "message": "x"}
                assert (await ask(edge.port, path, body, bearer(text))).status == 401
            assert (await get(edge.port, f"{STREAM}?prompt=x&ticket={text}")).status == 401
        assert len(upstream.connections) == before
        assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    "odd",
    [
        {"exp": 10**400}, {"exp": 1e308}, {"exp": -(10**400)}, {"exp": float("nan")}, {"exp": 2**63}, {"exp": True},
        {"nbf": 10**400}, {"nbf": -(10**400)}, {"iat": 10**400}, {"iat": "x"}, {"jti": 7}, {"sub": "\ud800"},
        {"sub": "x" * 4000}, {"sub": ["bob"]}, {"iss": [1]}, {"aud": {"a": 1}}, {"aud": 10**400},
        {"limits": {"requests_per_min": 10**400}}, {"limits": {"tokens_per_day": 2**64}},
        {"limits": {"weight": 5e-324}},
        {"limits": {"weight": 1e308}}, {"limits": {"weight": 0}}, {"limits": {"weight": 10**400}},
        {"limits": {"max_tokens": 10**4000}}, {"limits": "no-such-class"}, {"limits": [[]]},
        {"lane": [[]]}, {"lane": {"batch": 1}}, {"lane": ""}, {"models": "[ [!] *" * 100}, {"models": ["\ud800"]},
        {"models": [[]]}, {"roles": [{}, []]}, {"roles": 10**400},
    ],
)  # fmt: skip
async def test_no_claim_is_a_failure_of_edge(serve: Serve, odd: dict[str, Any]) -> None:
    told = {"jwt_lanes_claim": "lane", "jwt_admin_claim": "roles"}
    told |= {"jwt_models_claim": "models", "jwt_limits_claim": "limits"}
    edge = await serve(auth={"jwt_secret": SECRET, "jwt_audience": [AUDIENCE], **told})
    text = signed_as_it_is(json.dumps({**claims(time.time(), models=["*"], lane="batch"), **odd}).encode())
    for path in (CHAT, "/v1/tickets"):
        body = valid_body(path) if path == CHAT else {"ttl_s": 60}
        assert (await ask(edge.port, path, body, bearer(text))).status in (200, 401, 403)
