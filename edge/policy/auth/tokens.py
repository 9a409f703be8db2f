"""Tokens (JWT): who somebody else says that the caller is.

In: the settings, the issuer's keys, a token, the time. Out: a Principal, or why not. Must not: verify a signature by
itself (PyJWT does), look at a claim before that, or follow anything that a token's header points to: ``jku``, ``x5u``
and ``jwk`` mean nothing here, and ``kid`` is compared with those that are known, and nothing else.
"""

import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from edge.errors import Unauthorized
from edge.policy.auth.principal import CHALLENGE, LANES, MAX_KEY_CHARS, Principal, digest_of
from edge.policy.auth.token_keys import TokenKeys
from edge.policy.limits.allowance import Allowance
from edge.settings import Auth

GRANT = "jwt"
_ADMIN = "edge-admin"
_MOST_NAME_CHARS = 128
_MOST_KID_CHARS = 256
_LIMITS_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_SURROGATE = re.compile(r"[\ud800-\udfff]")  # half a character, which JSON can say and UTF-8 cannot
_MOST_BELIEVED = 1024
_MOST_TIME = 2.0**53  # whole numbers beyond are not distinguished, and far beyond they are no floats at all
_MOST_LIMIT = 2**53
_LEAST_WEIGHT, _MOST_WEIGHT = 1e-6, 1e15  # as of a key that is made
_CHECKED_HERE = {"verify_exp": False, "verify_nbf": False, "verify_iat": False}  # against the clock that is passed in


class UnknownKey(Unauthorized):
    """The issuer may have begun to sign with another key since its keys were fetched."""


def looks_like_one(text: str) -> bool:
    """Whether this may be a token, rather than a key."""
    return text.count(".") == 2


def load() -> None:
    """Import what verifies tokens: with cryptography 9 MB and 0.1 s, for whoever has tokens only.

    In the middle of a request that would hold up all streams.
    """
    import jwt.algorithms  # noqa: F401, PLC0415 - see above


class Tokens:
    """Reads tokens by the settings.

    A token that is used again is not verified again while it lives and the keys are the same: that takes 0.2 to 0.6 ms,
    which would be a good part of a small request. Of it a digest is kept.
    """

    def __init__(self, settings: Auth) -> None:
        self._believed: OrderedDict[bytes, tuple[Principal, float, TokenKeys]] = OrderedDict()
        self._settings = settings
        self._issuer = settings.jwt_issuer or None
        self._audience = settings.jwt_audience or None

    def check(self, token: str, keys: TokenKeys, now: float) -> Principal:
        """Whose token this is.

        Args:
            token: As it was sent.
            keys: The issuer's, at present.
            now: Unix time.

        Raises:
            UnknownKey: none of these keys can have signed it.
            Unauthorized: it is not valid, or does not say what it must.
        """
        digest = digest_of(token)
        found = self._believed.get(digest)
        if found is not None:
            principal, until, verified_with = found
            if verified_with is keys and now < until:
                return principal
        claims = self._verified(token, keys)
        until = self._check_times(claims, now)
        principal = self._principal(claims, until)
        self._believed[digest] = (principal, until, keys)
        self._believed.move_to_end(digest)
        if len(self._believed) > _MOST_BELIEVED:
            self._believed.popitem(last=False)
        return principal

    def _verified(self, token: str, keys: TokenKeys) -> Mapping[str, Any]:
        import jwt  # noqa: PLC0415 - see load

        if len(token) > MAX_KEY_CHARS:
            raise _refused("is too long")
        try:
            header = jwt.get_unverified_header(token)
            algorithm, kid = header.get("alg"), header.get("kid")
            if not isinstance(algorithm, str) or not isinstance(kid, str | None) or len(kid or "") > _MOST_KID_CHARS:
                raise _refused("is malformed")
            key = keys.find(algorithm, kid)
            if key is None:
                raise UnknownKey("the token is signed with a key that is not known here", code="invalid_token")
            options: Any = {
                **_CHECKED_HERE,
                "require": ["exp"],
                "verify_aud": self._audience is not None,
                "verify_iss": self._issuer is not None,
                "enforce_minimum_key_length": True,
            }
            claims: Mapping[str, Any] = jwt.decode(
                token, key, [algorithm], options, audience=self._audience, issuer=self._issuer
            )
        except jwt.InvalidAudienceError:
            raise _refused("is not meant for this server (aud)") from None
        except jwt.InvalidIssuerError:
            raise _refused("is not from the issuer that is believed here (iss)") from None
        except jwt.MissingRequiredClaimError as error:
            raise _refused(f"has no {error.claim}") from None
        except (jwt.PyJWTError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
            raise _refused("is not valid here") from None  # whatever a token makes of the library, it is refused
        return claims

    def _check_times(self, claims: Mapping[str, Any], now: float) -> float:
        expires, not_before = _time(claims, "exp"), _time(claims, "nbf")
        leeway_s = self._settings.jwt_leeway_s
        if expires is None:
            raise _refused("has no exp")
        if now >= expires + leeway_s:
            raise Unauthorized("the token has expired", code="expired_token", headers=CHALLENGE)
        if not_before is not None and now < not_before - leeway_s:
            raise _refused("is not valid yet (nbf)")
        return expires + leeway_s

    def _principal(self, claims: Mapping[str, Any], until: float) -> Principal:
        settings = self._settings
        name = _claim(claims, settings.jwt_principal_claim)
        if not isinstance(name, str) or not _is_fit(name):
            raise _refused(f"names nobody in {settings.jwt_principal_claim}")
        lanes = _words(claims, settings.jwt_lanes_claim)
        if lanes is not None and not set(lanes) <= set(LANES):
            raise _refused(f"has another lane than {' and '.join(LANES)} in {settings.jwt_lanes_claim}")
        admin = _claim(claims, settings.jwt_admin_claim)
        return Principal(
            f"jwt:{name}",  # so that nobody else's issuer can name one of those who have a key of ours
            models=_words(claims, settings.jwt_models_claim),
            lanes=lanes,
            limits=_limits(claims, settings.jwt_limits_claim),
            admin=admin is True or (isinstance(admin, str | list) and _ADMIN in _split(admin)),
            grant=GRANT,
            until=until,
        )


def _refused(why: str) -> Unauthorized:
    return Unauthorized(f"the token {why}", code="invalid_token", headers=CHALLENGE)


def _claim(claims: Mapping[str, Any], path: str) -> Any:
    """A claim by its name, which may have dots in it, or by the way to it; None if there is none."""
    if path in claims:
        return claims[path]
    found: Any = claims if path else None
    for name in path.split("."):
        found = found.get(name) if isinstance(found, dict) else None
    return found


def _time(claims: Mapping[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _MOST_TIME:  # NaN is not
        raise _refused(f"has no time in {name}")
    return float(value)


def _is_fit(name: str) -> bool:
    return 0 < len(name) <= _MOST_NAME_CHARS and name.isprintable() and " " not in name


def _words(claims: Mapping[str, Any], path: str) -> tuple[str, ...] | None:
    """None where there is no such claim in the settings; nothing at all where a token lacks the one that there is."""
    if not path:
        return None
    value = _claim(claims, path)
    if not isinstance(value, str | list | None):
        raise _refused(f"has no list of texts in {path}")
    words = _split(value or [])
    if not all(isinstance(word, str) and _SURROGATE.search(word) is None for word in words):
        raise _refused(f"has no list of texts in {path}")
    return tuple(words)


def _split(value: str | list[Any]) -> list[Any]:
    return value.split() if isinstance(value, str) else value


def _limits(claims: Mapping[str, Any], path: str) -> str | Allowance | None:
    value = _claim(claims, path)
    if value is None or (isinstance(value, str) and _LIMITS_NAME.fullmatch(value)):
        return value
    if isinstance(value, dict) and _are_limits(value):
        return Allowance(**value)
    raise _refused(f"has no limits in {path}")


def _are_limits(value: dict[str, Any]) -> bool:
    known = {field.name for field in fields(Allowance)}
    return set(value) <= known and all(
        limit is None
        or (name != "weight" and type(limit) is int and 0 <= limit <= _MOST_LIMIT)
        or (name == "weight" and type(limit) in (int, float) and _LEAST_WEIGHT <= limit <= _MOST_WEIGHT)
        for name, limit in value.items()
    )
