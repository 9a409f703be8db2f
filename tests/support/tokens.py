"""An issuer of tokens, honest or not: keys of each kind, the set of their public halves, and tokens.

In: claims and headers. Out: texts. Must not: refuse to make what nobody should.
"""

import base64
import functools
import hmac
import json
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

ISSUER, AUDIENCE = "https://idp.example/", "edge"
SECRET = "a-secret-of-at-least-thirty-two-bytes"
NOW = 1_800_000_000.0


@functools.cache
def private(kind: str, number: int = 0) -> Any:
    """A private key of a kind; another one by another number."""
    made = {
        "rsa": lambda: rsa.generate_private_key(65537, 2048),
        "weak rsa": lambda: rsa.generate_private_key(65537, 1024),  # noqa: S505 - to be refused
        "ec": lambda: ec.generate_private_key(ec.SECP256R1()),
        "ec384": lambda: ec.generate_private_key(ec.SECP384R1()),
        "ed": ed25519.Ed25519PrivateKey.generate,
    }
    return made[kind]()


ALGORITHMS = {"rsa": "RS256", "weak rsa": "RS256", "ec": "ES256", "ec384": "ES384", "ed": "EdDSA"}


def jwk(kind: str, kid: str | None, number: int = 0, **more: Any) -> dict[str, Any]:
    """The public half, as a set has it."""
    public = private(kind, number).public_key()
    algorithm = RSAAlgorithm if "rsa" in kind else OKPAlgorithm if kind == "ed" else ECAlgorithm
    return {**json.loads(algorithm.to_jwk(public)), **({} if kid is None else {"kid": kid}), **more}


def jwks(*keys: dict[str, Any]) -> bytes:
    return json.dumps({"keys": list(keys)}).encode()


def pem(kind: str) -> bytes:
    """The public half in PEM, which everybody has."""
    encoded: bytes = private(kind).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return encoded


def claims(now: float = NOW, **more: Any) -> dict[str, Any]:
    """Good ones; those given as None are left out."""
    told = {"iss": ISSUER, "aud": AUDIENCE, "sub": "bob", "exp": now + 300, **more}
    return {name: value for name, value in told.items() if value is not None}


def token(kind: str, kid: str | None, payload: dict[str, Any], number: int = 0, **headers: Any) -> str:
    """Signed with a private key."""
    header = {**({} if kid is None else {"kid": kid}), **headers}
    return jwt.encode(payload, private(kind, number), ALGORITHMS[kind], headers=header)


def signed_with_secret(payload: dict[str, Any], secret: str = SECRET, algorithm: str = "HS256", **headers: Any) -> str:
    return jwt.encode(payload, secret, algorithm, headers=headers or None)


def signed_as_it_is(payload: bytes, secret: str = SECRET) -> str:
    """Any payload, also what no library would sign."""
    header = segment(b'{"alg":"HS256"}')
    signed = f"{header}.{segment(payload)}"
    return f"{signed}.{segment(hmac.digest(secret.encode(), signed.encode(), 'sha256'))}"


def raw(header: Any, payload: Any, signature: bytes = b"") -> str:
    """Whatever one likes, in the form of a token."""
    return ".".join(
        segment(part if isinstance(part, bytes) else json.dumps(part).encode()) for part in (header, payload)
    ) + ("." + segment(signature))


def segment(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
