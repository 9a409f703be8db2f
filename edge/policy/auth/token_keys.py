"""What tokens are verified with: one secret, or the public keys of a JSON Web Key Set.

In: the secret, or the text of a set. Out: the key for a token's ``alg`` and ``kid``. Must not: take a key for an
algorithm that is not its own (with HS256 a public key would be a secret that everybody knows), a key that is no public
one from a set, or anything but the set's own ``kid`` for finding it.
"""

import json
from dataclasses import dataclass, field
from typing import Any

MIN_SECRET_BYTES = 32  # RFC 7518, 3.2
_MOST_KEYS = 100  # far more than any issuer has at once
_MIN_RSA_BITS = 2048
_MOST_RSA_BITS = 8192  # one of 16,384 bits would take a millisecond a token
_CURVES = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512", "Ed25519": "EdDSA"}
_RSA = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})

DEFAULT_ALGORITHMS = frozenset({"RS256", "ES256", "EdDSA"})


class NoKeySet(ValueError):
    """The text is no JSON Web Key Set, or has no key in it that could be used; the message says what there is."""


@dataclass(frozen=True, slots=True)
class TokenKey:
    """One key. ``kid`` is None where the set names none, or for a secret."""

    kid: str | None
    algorithms: frozenset[str]
    key: Any = field(repr=False)


class TokenKeys:
    """The keys of one issuer, at one time."""

    def __init__(self, keys: tuple[TokenKey, ...]) -> None:
        self._keys = keys

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, algorithm: str, kid: str | None) -> Any:
        """The key of a token; None if there is none, or it does not say which of several."""
        fit = [key for key in self._keys if algorithm in key.algorithms]
        if kid is not None and any(key.kid is not None for key in self._keys):
            fit = [key for key in fit if key.kid == kid]
        return fit[0].key if len(fit) == 1 else None


def from_secret(secret: str, algorithms: frozenset[str]) -> TokenKeys:
    """The only key, for the HS algorithms."""
    return TokenKeys((TokenKey(None, algorithms or frozenset({"HS256"}), secret.encode()),))


def from_set(text: bytes, algorithms: frozenset[str]) -> TokenKeys:
    """The keys of a set that can be used for one of these algorithms; those that cannot are left out.

    Raises:
        NoKeySet: there is none.
    """
    allowed = algorithms or DEFAULT_ALGORITHMS
    try:
        entries = json.loads(text)["keys"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise NoKeySet("it is no JSON Web Key Set") from None
    if not isinstance(entries, list):
        raise NoKeySet("it is no JSON Web Key Set")
    found = [key for entry in entries[:_MOST_KEYS] if isinstance(entry, dict) and (key := _key(entry, allowed))]
    if not found:
        raise NoKeySet(f"none of its {len(entries)} keys can be used for {', '.join(sorted(allowed))}")
    return TokenKeys(tuple(found))


def _key(entry: dict[str, Any], allowed: frozenset[str]) -> TokenKey | None:
    from jwt import PyJWK, PyJWTError  # noqa: PLC0415 - see tokens.load

    kid, algorithms = entry.get("kid"), _algorithms(entry) & allowed
    if not algorithms or entry.get("use", "sig") != "sig" or "d" in entry or not isinstance(kid, str | None):
        return None
    try:
        key = PyJWK(entry, min(algorithms)).key
    except (PyJWTError, ValueError, TypeError):
        return None
    if algorithms & _RSA and not _MIN_RSA_BITS <= key.key_size <= _MOST_RSA_BITS:
        return None
    return TokenKey(kid, algorithms, key)


def _algorithms(entry: dict[str, Any]) -> frozenset[str]:
    """What the key may be used for, by its kind and by what it says itself."""
    kind, said = entry.get("kty"), entry.get("alg")
    curve = entry.get("crv")
    if kind == "RSA":
        able = _RSA
    elif kind in ("EC", "OKP") and isinstance(curve, str) and curve in _CURVES:
        able = frozenset({_CURVES[curve]})
    else:
        able = frozenset()
    if said is None:
        return able
    return able & {said} if isinstance(said, str) else frozenset()
