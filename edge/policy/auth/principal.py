"""Who is calling, and what they may: the words for it, and the static keys, compared in constant time.

In: the configured keys, once; then what a request offers. Out: a Principal, or Unauthorized.
Must not: keep a key in the clear, log, or say anything about the key it refused.
"""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256

from edge.errors import Unauthorized
from edge.policy.limits.allowance import Allowance

MAX_KEY_CHARS = 8192  # as much as a header line may have; a hash of it costs 20 µs
CHALLENGE = {"WWW-Authenticate": "Bearer"}
HOW = "send Authorization: Bearer KEY, x-api-key: KEY or api-key: KEY"
_HEADERS = ("x-api-key", "api-key")  # Anthropic's and Azure's

LANES = ("interactive", "batch")


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is calling.

    Attributes:
        name: Safe to log, and the same for as long as it is the same caller: what is theirs is kept under it.
        models: Globs of the models they may use; None = all.
        lanes: Those of ``LANES`` they may use, the first by default; None = all.
        limits: The name of a class of limits, or limits of their own; None = those of everybody.
        admin: May also do what concerns all: read the metrics, change an Ollama's models.
        grant: By which credential: ``key:ID``, ``static:NAME``, ``jwt`` or ``anonymous``.
        until: Unix time when that ends; None = never.
    """

    name: str
    anonymous: bool = False
    models: tuple[str, ...] | None = None
    lanes: tuple[str, ...] | None = None
    limits: str | Allowance | None = None
    admin: bool = False
    grant: str = ""
    until: float | None = None


ANONYMOUS = Principal("anonymous", anonymous=True, admin=True, grant="anonymous")


class Keys:
    """The static keys. Whoever has one is the operator, or acts for them: it may do everything.

    Args:
        keys: In the clear; only their digests are kept.
    """

    def __init__(self, keys: list[str]) -> None:
        self._principals = {digest: _static(digest) for digest in map(digest_of, keys)}

    def __bool__(self) -> bool:
        return bool(self._principals)

    def __repr__(self) -> str:
        return f"<Keys: {len(self._principals)}>"

    def find(self, key: str) -> Principal | None:
        """Whose key this is, if it is one."""
        if len(key) > MAX_KEY_CHARS or not key:
            return None
        digest = digest_of(key)
        found = None
        for known, principal in self._principals.items():  # always all of them: the time taken reveals nothing
            if hmac.compare_digest(known, digest):
                found = principal
        return found

    def of(self, grant: str) -> Principal | None:
        """Who has the grant of a static key, while that is configured."""
        return next((principal for principal in self._principals.values() if principal.grant == grant), None)


def offered(headers: Mapping[str, str]) -> list[str]:
    """The credentials of a request, Authorization's first; any of them may be right.

    Args:
        headers: A case-insensitive mapping.
    """
    scheme, _, token = headers.get("Authorization", "").strip().partition(" ")
    found = [token.strip()] if scheme.lower() == "bearer" else []
    found += [headers[name].strip() for name in _HEADERS if name in headers]
    return [text for text in found if text]


def digest_of(key: str) -> bytes:
    """What is kept of a key. Keys are random and long, so that a slow hash would slow down nobody but us."""
    # Header bytes that are not UTF-8 arrive as lone surrogates.
    return sha256(key.encode("utf-8", "surrogatepass")).digest()


def unknown(*, any_offered: bool) -> Unauthorized:
    """The error for a request with no credential, or with none that is right."""
    if any_offered:
        return Unauthorized(f"the API key is not valid here; {HOW}", headers=CHALLENGE)
    return Unauthorized(f"an API key is required; {HOW}", headers=CHALLENGE)


def _static(digest: bytes) -> Principal:
    name = f"key-{digest.hex()[:8]}"
    return Principal(name, admin=True, grant=f"static:{name}")
