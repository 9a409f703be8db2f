"""What cannot work among the settings of who may call.

In: settings. Out: conflicts, each with the keys that are part of it. Must not: repeat a configured value, open a
connection, or touch anything but the file of a key set.
"""

import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from edge.config.listen import is_host, is_loopback
from edge.config.problems import Conflict
from edge.settings import Auth, Settings

MIN_KEY_CHARS = 8
GOOD_KEY_CHARS = 16
MIN_SECRET_BYTES = 32  # RFC 7518, 3.2: as many as the hash has; somebody who has a token can try secrets at leisure

_VISIBLE = re.compile(r"[!-~]+")
_OF_TOKENS = (
    "jwt_algorithms", "jwt_issuer", "jwt_audience",
    "jwt_models_claim", "jwt_lanes_claim", "jwt_limits_claim", "jwt_admin_claim",
)  # fmt: skip
_URL = ("https://", "http://")


def authentication(settings: Settings) -> Iterator[Conflict]:
    """Everything that cannot work."""
    yield from _keys(settings.auth)
    yield from _nobody(settings)
    yield from _tokens(settings.auth)


def asks_for_keys(auth: Auth) -> bool:
    """Whether the settings by themselves let nobody in without a credential."""
    return bool(auth.keys or auth.require_key or auth.jwt_secret or auth.jwt_jwks)


def weak_keys(auth: Auth) -> list[str]:
    """A warning for each static key that can be guessed."""
    return [
        f"auth.keys: item {n} is shorter than {GOOD_KEY_CHARS} characters and can be guessed; "
        "make a random one: openssl rand -hex 32"
        for n, key in enumerate(auth.keys, start=1)
        if len(key) < GOOD_KEY_CHARS
    ]


def _keys(auth: Auth) -> Iterator[Conflict]:
    for n, key in enumerate(auth.keys, start=1):
        if not key:
            yield Conflict(("auth.keys",), f"item {n} is empty")
        elif not _VISIBLE.fullmatch(key):
            yield Conflict(("auth.keys",), f"item {n} has a space, a line end or another character no header can carry")
        elif len(key) < MIN_KEY_CHARS:
            yield Conflict(("auth.keys",), f"item {n} is shorter than {MIN_KEY_CHARS} characters")


def _nobody(settings: Settings) -> Iterator[Conflict]:
    auth = settings.auth
    if auth.require_key and auth.allow_anonymous:
        yield Conflict(("auth.require_key", "auth.allow_anonymous"), "and auth.allow_anonymous contradict each other")
    others = auth.keys or auth.jwt_secret or auth.jwt_jwks
    if auth.require_key and not others and settings.store.url == "memory:":
        message = (
            "lets nobody in: there are no keys, and store.url = memory: keeps none that are made; "
            "set store.url, auth.keys or auth.jwt_jwks"
        )
        yield Conflict(("auth.require_key", "store.url"), message)


def _tokens(auth: Auth) -> Iterator[Conflict]:
    if not auth.jwt_secret and not auth.jwt_jwks:
        given = [name for name in _OF_TOKENS if getattr(auth, name)]
        for name in given:
            yield Conflict((f"auth.{name}",), "is of no use without auth.jwt_secret or auth.jwt_jwks")
        return
    if auth.jwt_secret and auth.jwt_jwks:
        message = "and auth.jwt_jwks exclude each other: tokens are signed with one secret, or with the keys of a set"
        yield Conflict(("auth.jwt_secret", "auth.jwt_jwks"), message)
    if not auth.jwt_principal_claim:
        yield Conflict(("auth.jwt_principal_claim",), "is needed: without it nobody knows whose a token is")
    if find_spec("jwt") is None or (auth.jwt_jwks and find_spec("cryptography") is None):
        key = "auth.jwt_jwks" if auth.jwt_jwks else "auth.jwt_secret"
        yield Conflict((key,), "needs the Python package PyJWT, which is not installed: pip install 'PyJWT[crypto]'")
    yield from _secret(auth) if auth.jwt_secret else _key_set(auth)


def _secret(auth: Auth) -> Iterator[Conflict]:
    if len(auth.jwt_secret.encode("utf-8", "surrogatepass")) < MIN_SECRET_BYTES:
        message = f"is shorter than {MIN_SECRET_BYTES} bytes: whoever has a token could find it out"
        yield Conflict(("auth.jwt_secret",), message)
    if any(not name.startswith("HS") for name in auth.jwt_algorithms):
        message = "has one that needs a key set (auth.jwt_jwks); with auth.jwt_secret there are HS256, HS384 and HS512"
        yield Conflict(("auth.jwt_algorithms", "auth.jwt_secret"), message)


def _key_set(auth: Auth) -> Iterator[Conflict]:
    if any(name.startswith("HS") for name in auth.jwt_algorithms):
        message = (
            "has one that needs auth.jwt_secret: a key set's keys are public, so that anybody could sign with them"
        )
        yield Conflict(("auth.jwt_algorithms", "auth.jwt_jwks"), message)
    for name, why in (("jwt_issuer", "whose tokens they are"), ("jwt_audience", "that they are meant for this server")):
        if not getattr(auth, name):
            message = f"is needed with auth.jwt_jwks: its keys may sign tokens for others too, so Edge must know {why}"
            yield Conflict((f"auth.{name}", "auth.jwt_jwks"), message)
    if fault := _place_fault(auth.jwt_jwks):
        yield Conflict(("auth.jwt_jwks",), fault)


def _place_fault(place: str) -> str | None:
    if place.startswith(_URL):
        return _url_fault(place)
    if "://" in place:
        return "must be an https:// URL, or the path of a file"
    try:
        Path(place).read_bytes()
    except (OSError, ValueError) as error:
        return f"cannot be read: {getattr(error, 'strerror', None) or 'not a path'}"
    return None


def _url_fault(url: str) -> str | None:
    try:
        parts = urlsplit(url)
        plausible = _VISIBLE.fullmatch(url) and parts.port != 0 and is_host(parts.hostname or "")
    except ValueError:
        plausible = False
    if not plausible:
        return "must be https://HOST[:PORT]/PATH"
    if "@" in parts.netloc or "#" in url:
        return "must not have a user, a password or a fragment"
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        return "must be https:// beyond this machine: who can change the keys on their way can sign tokens"
    return None
