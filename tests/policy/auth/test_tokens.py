"""Tokens: which are believed, what they grant, and what hostile ones try."""

import contextlib
import dataclasses
import hashlib
import hmac
import json
import math
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.streams import unhurried
from support.tokens import (
    ALGORITHMS,
    AUDIENCE,
    ISSUER,
    NOW,
    SECRET,
    claims,
    jwk,
    jwks,
    pem,
    private,
    raw,
    segment,
    signed_as_it_is,
    signed_with_secret,
    token,
)

from edge.errors import Unauthorized
from edge.policy.auth.permission import may_use
from edge.policy.auth.principal import MAX_KEY_CHARS, Principal
from edge.policy.auth.token_keys import NoKeySet, TokenKeys, from_secret, from_set
from edge.policy.auth.tokens import Tokens, UnknownKey
from edge.policy.limits.allowance import Allowance
from edge.settings import Auth

NONE: frozenset[str] = frozenset()
SET = jwks(jwk("rsa", "r"), jwk("ec", "e"), jwk("ed", "d"))


def check(text: str, keys: TokenKeys | None = None, now: float = NOW, **settings: Any) -> Principal:
    given = {"jwt_issuer": ISSUER, "jwt_audience": [AUDIENCE], **settings}
    return Tokens(msgspec.convert(given, Auth)).check(text, keys or from_set(SET, NONE), now)


def refused(text: str, keys: TokenKeys | None = None, now: float = NOW, **settings: Any) -> Unauthorized:
    with pytest.raises(Unauthorized) as caught:
        check(text, keys, now, **settings)
    error = caught.value
    assert error.status == 401
    assert len(text) < 8 or text not in error.message
    assert error.code in ("invalid_token", "expired_token")
    return error


@pytest.mark.parametrize(("kind", "kid"), [("rsa", "r"), ("ec", "e"), ("ed", "d")])
def test_each_kind_of_key_is_believed(kind, kid) -> None:
    principal = check(token(kind, kid, claims()))
    assert (principal.name, principal.anonymous, principal.admin, principal.models) == ("jwt:bob", False, False, None)
    assert principal.until == NOW + 300 + 30


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_a_secret_is_believed_with_its_algorithm(algorithm) -> None:
    secret = SECRET * 2
    keys = from_secret(secret, frozenset({algorithm}))
    text = signed_with_secret(claims(iss=None, aud=None), secret, algorithm)
    assert check(text, keys, jwt_issuer="", jwt_audience=[]).name == "jwt:bob"
    other = {"HS256", "HS384", "HS512"} - {algorithm}
    assert refused(signed_with_secret(claims(), secret, other.pop()), keys)


def test_with_a_secret_alone_the_audience_is_nobodys_business() -> None:
    assert check(signed_with_secret(claims(aud="others")), from_secret(SECRET, NONE), jwt_audience=[])


@pytest.mark.parametrize(
    ("more", "now", "why"),
    [
        ({"exp": NOW}, NOW + 29.9, None),
        ({"exp": NOW}, NOW + 30, "expired"),
        ({"exp": NOW + 0.5}, NOW, None),
        ({"exp": None}, NOW, "no exp"),
        ({"exp": "soon"}, NOW, "exp"),
        ({"exp": str(int(NOW + 300))}, NOW, "exp"),
        ({"exp": True}, NOW, "exp"),
        ({"exp": [NOW + 300]}, NOW, "exp"),
        ({"exp": 1e400}, NOW, "exp"),
        ({"exp": float("nan")}, NOW, "exp"),
        ({"exp": -1}, NOW, "expired"),
        ({"nbf": NOW + 30}, NOW, None),
        ({"nbf": NOW + 31}, NOW, "not valid yet"),
        ({"nbf": "now"}, NOW, "nbf"),
        ({"iss": "https://evil.example/"}, NOW, "iss"),
        ({"iss": None}, NOW, "no iss"),
        ({"iss": ISSUER.rstrip("/")}, NOW, "iss"),
        ({"aud": "others"}, NOW, "aud"),
        ({"aud": ["others", AUDIENCE]}, NOW, None),
        ({"aud": []}, NOW, "no aud"),
        ({"aud": None}, NOW, "no aud"),
        ({"aud": {"edge": 1}}, NOW, ""),
        ({"sub": None}, NOW, "names nobody"),
        ({"sub": ""}, NOW, "names nobody"),
        ({"sub": "a b"}, NOW, "names nobody"),
        ({"sub": "a\nb"}, NOW, "names nobody"),
        ({"sub": "x" * 129}, NOW, "names nobody"),
        ({"sub": 7}, NOW, ""),
    ],
)
def test_what_a_token_must_say(more, now, why) -> None:
    text = token("ec", "e", claims(**more))
    if why is None:
        assert check(text, now=now)
    else:
        assert why in refused(text, now=now).message


# --- attacks --------------------------------------------------------------------------------------------------------


def confused(secret: bytes, kid: str | None = "r") -> str:
    """HS256 with what everybody knows for a secret. PyJWT itself refuses to sign so."""
    head = f"{segment(json.dumps({'alg': 'HS256', 'kid': kid}).encode())}.{segment(json.dumps(claims()).encode())}"
    return f"{head}.{segment(hmac.digest(secret, head.encode(), hashlib.sha256))}"


ATTACKS = {
    "alg none": lambda: raw({"alg": "none"}, claims()),
    "alg None": lambda: raw({"alg": "None", "kid": "r"}, claims()),
    "alg nOnE with a kid": lambda: raw({"alg": "nOnE", "kid": "e"}, claims(), b"x"),
    "no alg": lambda: raw({"kid": "r"}, claims()),
    "alg of another type": lambda: raw({"alg": ["RS256"], "kid": "r"}, claims()),
    "HS256 with the public key": lambda: confused(pem("rsa")),
    "HS256 with the set": lambda: confused(SET),
    "HS256 with the modulus": lambda: confused(jwk("rsa", "r")["n"].encode()),
    "HS256 with nothing": lambda: confused(b""),
    "RS256 named for the EC key": lambda: token("rsa", "e", claims()),
    "another key under a known kid": lambda: token("rsa", "r", claims(), number=1),
    "an algorithm that is not allowed": lambda: token("ec384", "e", claims()),
    "kid with a path": lambda: token("rsa", "../../../../dev/null", claims()),
    "kid with SQL": lambda: token("rsa", "r' UNION SELECT 'key", claims()),
    "kid with a line end": lambda: token("rsa", "r\r\nx: y", claims()),
    "kid far too long": lambda: token("rsa", "r" * 1000, claims()),
    "kid of another type": lambda: raw({"alg": "RS256", "kid": {"$ne": 1}}, claims()),
    "no kid among several": lambda: token("rsa", None, claims(), number=1),
    "jku": lambda: token("rsa", "x", claims(), 1, jku="http://127.0.0.1:1/jwks"),
    "x5u": lambda: token("rsa", "x", claims(), 1, x5u="http://127.0.0.1:1/cert"),
    "its own jwk": lambda: token("rsa", "x", claims(), 1, jwk=jwk("rsa", "x", 1)),
    "its own x5c": lambda: token("rsa", "x", claims(), 1, x5c=["MII"]),
    "crit": lambda: token("rsa", "r", claims(), crit=["exp"]),
    "b64 false": lambda: raw({"alg": "RS256", "kid": "r", "b64": False, "crit": ["b64"]}, b"", b"x"),
    "signature cut": lambda: token("rsa", "r", claims())[:-10],
    "signature gone": lambda: token("rsa", "r", claims()).rpartition(".")[0] + ".",
    "payload changed": lambda: changed(token("rsa", "r", claims())),
    "an empty ECDSA signature": lambda: raw({"alg": "ES256", "kid": "e"}, claims(), bytes(64)),
    "a JSON serialisation": lambda: json.dumps({"payload": "..", "signatures": []}),
    "header deep as the sea": lambda: f"{segment(b'[' * 5000)}.{segment(b'{}')}.x",
    "payload deep as the sea": lambda: raw({"alg": "RS256", "kid": "r"}, b"[" * 5000, b"x"),
    "header no object": lambda: raw([1], claims()),
    "header of huge numbers": lambda: raw(b'{"alg":"RS256","kid":1' + b"0" * 5000 + b"}", claims()),
    "not UTF-8": lambda: raw(b'{"alg":"\xff"}', claims()),
    "lone surrogates": lambda: "\udcff.\udcff.\udcff",
    "dots": lambda: "..",
    "far too long": lambda: token("rsa", "r", claims(more="x" * MAX_KEY_CHARS)),
}


def changed(text: str) -> str:
    head, _, signature = text.split(".")
    return f"{head}.{segment(json.dumps(claims(sub='root')).encode())}.{signature}"


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_what_hostile_tokens_try_is_refused(attack) -> None:
    refused(attack())


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_and_no_less_where_there_is_one_key_or_a_secret(attack) -> None:
    refused(attack(), from_set(jwks(jwk("rsa", "r", 2)), NONE))
    refused(attack(), from_secret(SECRET, NONE))


@given(st.text(max_size=60), st.binary(max_size=60), st.binary(max_size=80))
def test_nothing_that_is_sent_breaks_it(text, header, payload) -> None:
    for hostile in (text, f"{text}.{text}.{text}", raw(header, payload, payload)):
        refused(hostile)


def test_a_key_that_is_not_known_may_be_new() -> None:
    with pytest.raises(UnknownKey):
        check(token("rsa", "new", claims()))
    with pytest.raises(Unauthorized) as caught:
        check(token("rsa", "r", claims(), number=1))
    assert not isinstance(caught.value, UnknownKey), "a wrong signature is no reason to fetch keys"


def test_a_token_that_was_believed_is_believed_no_longer_than_it_lives_or_its_key_does() -> None:
    tokens = Tokens(Auth(jwt_issuer=ISSUER, jwt_audience=[AUDIENCE]))
    keys, text = from_set(SET, NONE), token("ec", "e", claims())
    first = tokens.check(text, keys, NOW)
    assert tokens.check(text, keys, NOW + 329.9) is first, "not verified again"
    with pytest.raises(Unauthorized, match="expired"):
        tokens.check(text, keys, NOW + 330)
    with pytest.raises(UnknownKey):
        tokens.check(text, from_set(jwks(jwk("rsa", "r")), NONE), NOW)
    for n in range(1100):
        tokens.check(signed_with_secret(claims(n=n)), from_secret(SECRET, NONE), NOW)
    assert len(tokens._believed) == 1024
    assert text not in str(tokens._believed)


# --- key sets -------------------------------------------------------------------------------------------------------


def test_a_token_without_a_kid_is_for_the_only_key_there_is() -> None:
    assert check(token("rsa", None, claims()), from_set(jwks(jwk("rsa", None)), NONE))
    assert check(token("rsa", None, claims()), from_set(SET, NONE)), "the only one for its algorithm"
    with pytest.raises(UnknownKey):
        check(token("rsa", None, claims()), from_set(jwks(jwk("rsa", "a"), jwk("rsa", "b", 1)), NONE))


LEFT_OUT = {
    "for encryption": jwk("rsa", "r", use="enc"),
    "too weak": jwk("weak rsa", "r"),
    "a secret": {"kty": "oct", "kid": "r", "k": segment(b"k" * 32)},
    "another algorithm": jwk("rsa", "r", alg="RS512"),
    "an HS algorithm": jwk("rsa", "r", alg="HS256"),
    "a curve that is not allowed": jwk("ec384", "r"),
    "private": {**jwk("rsa", "r"), "d": "AQAB"},
    "broken": {"kty": "RSA", "kid": "r", "n": "!", "e": "!"},
    "of no kind": {"kid": "r"},
    "kid of another type": jwk("rsa", "r") | {"kid": 1},
    "no object": 7,
}


@pytest.mark.parametrize("entry", LEFT_OUT.values(), ids=LEFT_OUT)
def test_keys_that_should_not_verify_anything_are_left_out(entry) -> None:
    with pytest.raises(NoKeySet, match="none of its 1 keys"):
        from_set(jwks(entry), NONE)
    assert len(from_set(jwks(entry, jwk("ec", "e")), NONE)) == 1


@pytest.mark.parametrize("text", [b"", b"{}", b"[]", b'{"keys": 1}', b"<html>", b"\xff", b"[" * 100_000])
def test_what_is_no_key_set(text) -> None:
    with pytest.raises(NoKeySet, match="no JSON Web Key Set"):
        from_set(text, NONE)


def test_other_algorithms_are_a_matter_of_the_settings() -> None:
    assert check(token("ec384", "x", claims()), from_set(jwks(jwk("ec384", "x")), frozenset({"ES384"})))
    assert set(ALGORITHMS) >= {"rsa"}
    assert private("rsa") is private("rsa")


# --- what they grant ------------------------------------------------------------------------------------------------


def granted(**settings: Any) -> Any:
    def of(**more: Any) -> Principal:
        return check(token("ed", "d", claims(**more)), **settings)

    return of


@pytest.mark.parametrize(
    ("given", "models"),
    [(["a*", "b"], ("a*", "b")), ("a* b", ("a*", "b")), ([], ()), ("", ()), (None, ())],
)
def test_models(given, models) -> None:
    assert granted(jwt_models_claim="models")(models=given).models == models


def test_a_claim_is_found_by_its_name_or_on_its_way() -> None:
    by_way = granted(jwt_models_claim="resource_access.edge.models")
    assert by_way(resource_access={"edge": {"models": ["m"]}}).models == ("m",)
    assert by_way(resource_access={"edge": "m"}).models == ()
    by_name = granted(jwt_models_claim="https://edge.example/models")
    assert by_name(**{"https://edge.example/models": ["m"]}).models == ("m",)


def test_the_principal_may_be_another_claim() -> None:
    assert granted(jwt_principal_claim="email")(email="bob@example.com").name == "jwt:bob@example.com"


@pytest.mark.parametrize(
    ("given", "admin"),
    [
        (True, True), ("edge-admin", True), (["users", "edge-admin"], True), (None, False), (False, False),
        ("true", False), (1, False), ("edge-admins", False), ({"edge-admin": 1}, False), (["x"], False),
    ],
)  # fmt: skip
def test_admins(given, admin) -> None:
    assert granted(jwt_admin_claim="roles")(roles=given).admin is admin
    assert granted()(roles=given).admin is False


def test_lanes_and_limits() -> None:
    grants = granted(jwt_lanes_claim="lane", jwt_limits_claim="limits")
    assert grants(lane="batch", limits="gold") == grants(lane=["batch"], limits="gold")
    assert grants(lane="batch", limits="gold").limits == "gold"
    told = {"requests_per_min": 60, "weight": 0.5, "concurrent": None}
    assert grants(lane="batch", limits=told).limits == Allowance(requests_per_min=60, weight=0.5)
    assert (grants().lanes, grants().limits) == ((), None)


@pytest.mark.parametrize(
    "more",
    [
        {"lane": "express"}, {"lane": [1]}, {"lane": 1}, {"limits": "a b"}, {"limits": 1}, {"limits": {"other": 1}},
        {"limits": {"concurrent": -1}}, {"limits": {"concurrent": True}}, {"limits": {"weight": 0.0}},
        {"limits": {"concurrent": 0.5}}, {"models": 7}, {"models": ["a", 7]},
    ],
)  # fmt: skip
def test_a_claim_that_makes_no_sense_grants_nothing(more) -> None:
    text = token("ed", "d", claims(**more))
    refused(text, jwt_lanes_claim="lane", jwt_limits_claim="limits", jwt_models_claim="models")


CLAIMS = {
    "jwt_principal_claim": "sub",
    "jwt_models_claim": "models",
    "jwt_lanes_claim": "lane",
    "jwt_limits_claim": "limits",
    "jwt_admin_claim": "roles.edge",
}
LIMITS = [field.name for field in dataclasses.fields(Allowance)]
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(0, 4000).map(lambda digits: 10**digits)
    | st.floats()
    | st.text(st.characters(codec=None), max_size=20)
    | st.sampled_from(["bob", "*", "[", "batch", "interactive", "gold", "edge-admin", AUDIENCE, ISSUER, "x" * 5000])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from([*LIMITS, "edge", ""]) | st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=8,
)
NAMES = ["iss", "aud", "sub", "exp", "nbf", "iat", "jti", "models", "lane", "limits", "roles", "cnf", "crit"]


@unhurried
@given(st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=3))
def test_whatever_a_claim_is_the_token_is_believed_or_refused(odd: dict[str, Any]) -> None:
    good = {**claims(), "models": ["*"], "lane": "batch", "limits": "gold"}
    text = signed_as_it_is(json.dumps({**good, **odd}).encode())
    with contextlib.suppress(Unauthorized):
        principal = check(text, from_secret(SECRET, NONE), **CLAIMS)
        assert principal.name.encode().startswith(b"jwt:")
        assert may_use(principal, "m") in (True, False)
        orjson.dumps([principal.name, principal.models, principal.lanes])  # as a ticket carries them
        assert principal.until is not None
        assert principal.until < 2**54
        if isinstance(principal.limits, Allowance):
            orjson.dumps(principal.limits)  # as it is told to whoever asks for the usage, and kept
            assert principal.limits.weight is None or 0 < 1 / principal.limits.weight < math.inf


@pytest.mark.parametrize("levels", [100, 1000, 3000])
@pytest.mark.parametrize("name", NAMES)
def test_depth_is_no_failure(name: str, levels: int) -> None:
    deep = b"[" * levels + b"]" * levels
    text = signed_as_it_is(json.dumps(claims()).encode()[:-1] + b',"%b":%b}' % (name.encode(), deep))
    with contextlib.suppress(Unauthorized):
        check(text, from_secret(SECRET, NONE), **CLAIMS)
