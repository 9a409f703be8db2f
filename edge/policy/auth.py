"""Who is calling: static keys, compared in constant time.

In: the configured keys, once; then a request's headers. Out: a Principal, or Unauthorized.
Must not: keep a key in the clear, log, or say anything about the key it refused.
"""

import hmac
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256

from edge.errors import Unauthorized

MAX_KEY_CHARS = 4096  # far above any real key; below it a hash costs microseconds
_CHALLENGE = {"WWW-Authenticate": "Bearer"}
_HOW = "send Authorization: Bearer KEY, or x-api-key: KEY"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is calling, by a name that is safe to log."""

    name: str
    anonymous: bool = False


ANONYMOUS = Principal("anonymous", anonymous=True)


class Keys:
    """The static keys.

    Args:
        keys: In the clear; only their digests are kept. Without any, every caller is anonymous, whatever it sends:
            SDKs insist on sending a key.
    """

    def __init__(self, keys: list[str]) -> None:
        self._digests = [_digest(key) for key in keys]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def __repr__(self) -> str:
        return f"<Keys: {len(self._digests)}>"

    def check(self, headers: Mapping[str, str]) -> Principal:
        """Find out who is calling.

        Args:
            headers: A case-insensitive mapping. A valid key in either header is enough; Authorization goes first.

        Raises:
            Unauthorized: no key, or not one of ours.
        """
        if not self._digests:
            return ANONYMOUS
        offered = list(_offered(headers))
        for key in offered:
            principal = self._find(key)
            if principal is not None:
                return principal
        if offered:
            raise Unauthorized(f"the API key is not valid here; {_HOW}", headers=_CHALLENGE)
        raise Unauthorized(f"an API key is required; {_HOW}", headers=_CHALLENGE)

    def _find(self, key: str) -> Principal | None:
        if len(key) > MAX_KEY_CHARS:
            return None
        digest = _digest(key)
        found = None
        for known in self._digests:  # always all of them: the time taken tells nothing
            if hmac.compare_digest(known, digest):
                found = Principal(f"key-{known.hex()[:8]}")
        return found


def _digest(key: str) -> bytes:
    # Header bytes that are not UTF-8 arrive as lone surrogates.
    return sha256(key.encode("utf-8", "surrogatepass")).digest()


def _offered(headers: Mapping[str, str]) -> Iterator[str]:
    scheme, _, token = headers.get("Authorization", "").strip().partition(" ")
    for key in (token if scheme.lower() == "bearer" else "", headers.get("x-api-key", "")):
        if key := key.strip():
            yield key
