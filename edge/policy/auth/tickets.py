"""Tickets: a right to read streams for some seconds, in an address, for browsers' EventSource, which can send no key.

In: a secret, and who is to have a ticket; then the text of one. Out: the text; then who has it. Must not: be of use for
anything but reading, outlive the credential that it was given for by more than its own few minutes, or be logged.

A ticket names the credential it was given for, and is worth what that is worth now: with a revoked key it ends. Of a
token, which is not kept here, it carries what that granted, and ends with it.
"""

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as NotBase64
from dataclasses import dataclass
from hashlib import sha256

import msgspec

from edge.errors import BadRequest, Unauthorized
from edge.policy.auth import tokens
from edge.policy.auth.principal import Principal
from edge.policy.limits.allowance import Allowance

MOST_TTL_S = 600
PREFIX = "edget-"
SECRET_BYTES = 32
_MOST_CHARS = 4096  # an address line may have 8190
_PURPOSE = b"edge ticket 1\0"  # what the secret signs says what it is


@dataclass(frozen=True, slots=True)
class Ticket:
    """What a ticket says.

    Attributes:
        grant: See ``principal.Principal``; the fields after ``stream`` are of use with that of a token only.
        expires: Unix time.
        stream: The one stream it is for; None = all that the principal may read.
    """

    principal: str
    grant: str
    expires: float
    stream: str | None = None
    models: tuple[str, ...] | None = None
    lanes: tuple[str, ...] | None = None
    limits: str | Allowance | None = None

    def carried(self) -> Principal:
        """Who has it, by what it says itself."""
        return Principal(
            self.principal,
            models=self.models,
            lanes=self.lanes,
            limits=self.limits,
            grant=self.grant,
            until=self.expires,
        )


def issue(principal: Principal, ttl_s: float, stream: str | None, now: float) -> Ticket:
    """A ticket for somebody, for ``ttl_s`` or as long as their credential lives."""
    expires = now + min(ttl_s, MOST_TTL_S)
    if principal.until is not None:
        expires = min(expires, principal.until)
    if principal.grant != tokens.GRANT:
        return Ticket(principal.name, principal.grant, expires, stream)
    return Ticket(
        principal.name,
        principal.grant,
        expires,
        stream,
        models=principal.models,
        lanes=principal.lanes,
        limits=principal.limits,
    )


def sign(secret: bytes, ticket: Ticket) -> str:
    """The text of a ticket, fit for an address.

    Raises:
        BadRequest: it would be too long.
    """
    payload = msgspec.json.encode(ticket)
    text = f"{PREFIX}{_text(payload)}.{_text(_mac(secret, payload))}"
    if len(text) > _MOST_CHARS:
        raise BadRequest("the token grants more than a ticket can hold; send it with a header instead")
    return text


def read(secret: bytes, text: str, now: float) -> Ticket:
    """What a ticket says.

    Raises:
        Unauthorized: it is none of ours, or is over.
    """
    ticket = _decoded(secret, text) if len(text) <= _MOST_CHARS and text.startswith(PREFIX) else None
    if ticket is None or ticket.expires > now + MOST_TTL_S:
        raise Unauthorized("the ticket is not valid here; POST /v1/tickets gives one", code="invalid_ticket")
    if ticket.expires <= now:
        raise Unauthorized("the ticket has expired; POST /v1/tickets gives another", code="expired_ticket")
    return ticket


def _decoded(secret: bytes, text: str) -> Ticket | None:
    payload_text, _, mac_text = text.removeprefix(PREFIX).partition(".")
    try:
        payload, mac = _bytes(payload_text), _bytes(mac_text)
    except (ValueError, NotBase64):
        return None
    if not hmac.compare_digest(mac, _mac(secret, payload)):
        return None
    try:
        return msgspec.json.decode(payload, type=Ticket)
    except msgspec.DecodeError:  # signed by another version of ours
        return None


def _mac(secret: bytes, payload: bytes) -> bytes:
    return hmac.digest(secret, _PURPOSE + payload, sha256)


def _text(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    return urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
