"""Who is calling: whatever proves that, tried in turn, before anything else is done for them.

In: a request's head and its client's address. Out: a Principal, or an error. Must not: read a body, touch an upstream,
or let a credential get into an error, a log line or anything that is kept.

One of these is enough: a static key, a key that was made, a token, or, where a browser's EventSource can send no
header, a ticket. Without any of them configured or made, everybody is anonymous, whatever they send: SDKs insist on
sending a key.
"""

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from aiohttp import web

from edge.api.keyring import KeyRing
from edge.errors import CannotTell, EdgeError, TooManyAttempts, Unauthorized
from edge.policy import auth, keys, tickets, tokens
from edge.policy.attempts import Attempts
from edge.policy.auth import ANONYMOUS, Principal
from edge.protocol.surface import SESSION_PATHS
from edge.settings import Auth
from edge.upstream.jwks import KeySet

TICKET = "ticket"  # in the address
STREAMS_PATH = "/v1/streams"
_YES = ("1", "true")


class WhoCalls(Protocol):
    """What a face asks."""

    @property
    def required(self) -> bool:
        """Whether a caller needs a credential."""

    async def identify(self, request: web.BaseRequest, client: str | None) -> Principal:
        """Find out who is calling.

        Raises:
            EdgeError: that cannot be told, or not them.
        """


class Anybody:
    """Where nobody is asked."""

    required = False

    async def identify(self, _request: web.BaseRequest, _client: str | None) -> Principal:
        """See ``WhoCalls``."""
        return ANONYMOUS


class Callers:
    """See the module.

    Args:
        clock: Unix time.
    """

    def __init__(
        self,
        settings: Auth,
        ring: KeyRing,
        make_key_set: Callable[[Auth], KeySet],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._ring = ring
        self._make_key_set = make_key_set
        self._clock = clock
        self._attempts = Attempts(settings.failures_per_min)
        self._key_set: KeySet | None = None
        self._take(settings)

    async def start(self) -> None:
        """Learn which keys there are."""
        await self._ring.start()
        if self._has_tokens:
            tokens.load()
            self._key_set = self._make_key_set(self._settings)
            self._key_set.start()

    async def close(self) -> None:
        """Let go of everything."""
        await self._ring.close()
        if self._key_set is not None:
            await self._key_set.close()

    async def reload(self, settings: Auth) -> None:
        """Other settings are in force."""
        old, before = self._key_set, self._settings
        if (settings.jwt_jwks, settings.jwt_secret, settings.jwt_algorithms) != (
            before.jwt_jwks, before.jwt_secret, before.jwt_algorithms,
        ):  # fmt: skip
            new = self._make_key_set(settings) if settings.jwt_jwks or settings.jwt_secret else None
            if new is not None:
                tokens.load()
                new.start()
            self._key_set = new
            if old is not None:
                await old.close()
        elif old is not None:
            await old.fetch()  # a file may have others in it by now
        self._take(settings)

    @property
    def required(self) -> bool:
        """See ``WhoCalls``. While nobody knows whether keys were made, it is assumed."""
        return self._required or self._ring.keys is None or bool(self._ring.keys)

    async def identify(self, request: web.BaseRequest, client: str | None) -> Principal:
        """See ``WhoCalls``."""
        if not self.required:
            return ANONYMOUS
        if self._ring.keys is None and not self._required:
            raise CannotTell("whether keys are needed here cannot be told now; try again")
        offers = auth.offered(request.headers)
        ticket = "" if offers else ticket_of(request)
        if not offers and not ticket:
            raise auth.unknown(any_offered=False)
        digest = auth.digest_of("\0".join(offers) or ticket)
        now = self._clock()
        wait_s = self._attempts.wait_s(client, digest, now)
        if wait_s:
            raise _too_many(wait_s)
        try:
            principal = await self._tried(offers) if offers else await self._admitted(ticket, request)
        except Unauthorized:
            self._attempts.wrong(client, now)
            raise
        self._attempts.right(client, digest)
        return principal

    async def ticket(self, principal: Principal, ttl_s: float, stream: str | None) -> tuple[str, float]:
        """A ticket for somebody, and when it ends in Unix time.

        Raises:
            EdgeError: there cannot be one.
        """
        ticket = tickets.issue(principal, ttl_s, stream, self._clock())
        return tickets.sign(await self._ring.secret(), ticket), ticket.expires

    def _take(self, settings: Auth) -> None:
        self._settings = settings
        self._static = auth.Keys(settings.keys)
        self._tokens = tokens.Tokens(settings)  # which forgets whom it has believed by others
        self._required = settings.require_key or bool(self._static) or self._has_tokens
        self._attempts.limit = settings.failures_per_min

    @property
    def _has_tokens(self) -> bool:
        return bool(self._settings.jwt_jwks or self._settings.jwt_secret)

    async def _tried(self, offers: list[str]) -> Principal:
        """Whoever the first credential is of that is right; if none is, what is told is of the first."""
        told: EdgeError | None = None
        for offer in offers:
            try:
                principal = await self._whose(offer)
            except (Unauthorized, CannotTell) as error:
                told = told or error
            else:
                if principal is not None:
                    return principal
        raise told or auth.unknown(any_offered=True)

    async def _whose(self, offer: str) -> Principal | None:
        found = self._static.find(offer)
        if found is not None:
            return found
        if offer.startswith(keys.PREFIX):
            if self._ring.keys is None:
                raise CannotTell("whether this key is valid here cannot be told now; try again")
            return self._ring.keys.find(offer, self._clock())
        if self._has_tokens and tokens.looks_like_one(offer):
            return await self._of_token(offer)
        return None

    async def _of_token(self, token: str) -> Principal:
        key_set = self._key_set
        if key_set is not None and key_set.keys is None:
            await key_set.look_again()
        if key_set is None or key_set.keys is None:
            raise CannotTell("tokens cannot be verified now, as their issuer's keys are not to be had; try again")
        try:
            return self._tokens.check(token, key_set.keys, self._clock())
        except tokens.UnknownKey:
            if not await key_set.look_again() or key_set.keys is None:
                raise
        return self._tokens.check(token, key_set.keys, self._clock())

    async def _admitted(self, text: str, request: web.BaseRequest) -> Principal:
        ticket = tickets.read(await self._ring.secret(), text, self._clock())
        if ticket.stream is not None and request.path != f"{STREAMS_PATH}/{ticket.stream}":
            raise Unauthorized("the ticket is for another stream", code="invalid_ticket")
        principal = self._behind(ticket)
        if principal is None:
            raise Unauthorized("what the ticket was given for is not valid any more", code="invalid_ticket")
        return replace(principal, admin=False)

    def _behind(self, ticket: tickets.Ticket) -> Principal | None:
        """Who has the credential that the ticket was given for."""
        if ticket.grant == tokens.GRANT:
            return ticket.carried() if self._has_tokens else None
        static = self._static.of(ticket.grant)
        if static is not None or self._ring.keys is None:
            return static
        return self._ring.keys.of(ticket.grant, self._clock())


def ticket_of(request: web.BaseRequest) -> str:
    """The ticket in a request's address, where one may be: on what an EventSource reads; else nothing."""
    if request.method != "GET" or TICKET not in request.query_string:
        return ""
    path, query = request.path, request.query
    follows = path == STREAMS_PATH and query.get("follow", "").strip().lower() in _YES
    reads = follows or path in SESSION_PATHS or path.startswith(f"{STREAMS_PATH}/")
    return query.get(TICKET, "") if reads else ""


def _too_many(wait_s: float) -> TooManyAttempts:
    headers = {"Retry-After": str(math.ceil(wait_s)), "x-should-retry": "false"}
    return TooManyAttempts(
        "too many wrong credentials have come from this address (auth.failures_per_min); wait, and send the right one",
        headers=headers,
    )
