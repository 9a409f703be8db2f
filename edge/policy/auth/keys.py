"""Keys that were made with ``edge keys``: what is kept of them, how they are made, and whose a key is.

In: records, and a key as it was sent. Out: a Principal, or why not. Must not: keep a key in the clear, or judge it by
anything but its whole digest.

A key is ``edge-ID-SECRET``. The id finds the record, and is no secret; the secret is 192 random bits, so that a plain
SHA-256 is enough: there is nothing to guess that a slow hash would protect.
"""

import hmac
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

import msgspec

from edge.errors import Unauthorized
from edge.policy.auth.principal import CHALLENGE, MAX_KEY_CHARS, Principal, digest_of
from edge.policy.limits.allowance import Allowance

PREFIX = "edge-"
GRANT = "key:"
NAME_PATTERN = "[A-Za-z0-9][A-Za-z0-9._@-]{0,63}"
_NAME = re.compile(NAME_PATTERN)
_KEY = re.compile(f"{PREFIX}[0-9a-f]{{12}}-[0-9a-f]{{48}}")
_RESERVED = ("anonymous", "key-")  # what callers without such a key are called, or begin with
_ID_BYTES, _SECRET_BYTES = 6, 24
_NOBODY = bytes(32)


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """What is kept of a key.

    Attributes:
        id: 12 hex digits.
        name: Of the principal. A key that replaces another has the same.
        digest: SHA-256 of the key, in hex.
        created: Unix time, as are the others.
        expires: When it ends; None = never.
        revoked: When it was; None if it was not.
        models, lanes, limits, admin: See ``principal.Principal``.
    """

    id: str
    name: str
    digest: str
    created: float
    expires: float | None = None
    revoked: float | None = None
    models: tuple[str, ...] | None = None
    lanes: tuple[str, ...] | None = None
    limits: str | Allowance | None = None
    admin: bool = False

    def is_live(self, now: float) -> bool:
        """Whether it lets anybody in."""
        return self.revoked is None and (self.expires is None or now < self.expires)


def is_name(text: str) -> bool:
    """Whether a key may be called so."""
    return _NAME.fullmatch(text) is not None and not text.lower().startswith(_RESERVED)


def is_key(text: str) -> bool:
    """Whether this may be such a key; anything else is none, whatever the store has."""
    return _KEY.fullmatch(text) is not None


def make_key(like: KeyRecord, now: float) -> tuple[str, KeyRecord]:
    """A new key, to be shown once, and what is to be kept of it: all but id, digest and time is as in ``like``."""
    key_id = secrets.token_hex(_ID_BYTES)
    key = f"{PREFIX}{key_id}-{secrets.token_hex(_SECRET_BYTES)}"
    return key, replace(like, id=key_id, digest=digest_of(key).hex(), created=now, revoked=None)


def merged(before: bytes, after: bytes) -> bytes:
    """A record as it is to be kept in place of another, both in JSON: what a later version noted in it stays."""
    kept: dict[str, object] = msgspec.json.decode(before) | msgspec.json.decode(after)
    return msgspec.json.encode(kept)


class _Known(NamedTuple):
    digest: bytes
    record: KeyRecord
    principal: Principal


class CreatedKeys:
    """All keys that were ever made, and not forgotten."""

    def __init__(self, records: Iterable[KeyRecord] = ()) -> None:
        self._known = {
            record.id: _Known(bytes.fromhex(record.digest), record, _principal(record)) for record in records
        }

    def __bool__(self) -> bool:
        return bool(self._known)

    def __len__(self) -> int:
        return len(self._known)

    def live(self, now: float) -> int:
        """How many of them let somebody in."""
        return sum(known.record.is_live(now) for known in self._known.values())

    def has(self, key: str) -> bool:
        """Whether there is a record of the id that this key, or this grant, has."""
        text = key.removeprefix(GRANT) if key.startswith(GRANT) else key.removeprefix(PREFIX).partition("-")[0]
        return text in self._known

    def find(self, key: str, now: float) -> Principal | None:
        """Whose key this is; None if it is none of these.

        Raises:
            Unauthorized: it was one, but is not any more; only its holder learns that.
        """
        if not key.startswith(PREFIX) or len(key) > MAX_KEY_CHARS:
            return None
        key_id, _, _ = key[len(PREFIX) :].partition("-")
        known = self._known.get(key_id)
        if not hmac.compare_digest(_NOBODY if known is None else known.digest, digest_of(key)) or known is None:
            return None
        if known.record.revoked is not None:
            raise Unauthorized("this API key has been revoked", code="revoked_api_key", headers=CHALLENGE)
        if not known.record.is_live(now):
            raise Unauthorized("this API key has expired", code="expired_api_key", headers=CHALLENGE)
        return known.principal

    def of(self, grant: str, now: float) -> Principal | None:
        """Who has the grant of one of these keys, while it lets anybody in."""
        known = self._known.get(grant.removeprefix(GRANT))
        return known.principal if known is not None and known.record.is_live(now) else None


def _principal(record: KeyRecord) -> Principal:
    return Principal(
        record.name,
        models=record.models,
        lanes=record.lanes,
        limits=record.limits,
        admin=record.admin,
        grant=f"{GRANT}{record.id}",
        until=record.expires,
    )
