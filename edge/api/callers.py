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
from typing import NamedTuple

from aiohttp import web
from typing_extensions import override

from edge.api.keyring import KeyRing
from edge.errors import CannotTell, EdgeError, TooManyAttempts, Unauthorized
from edge.policy.auth import keys, tickets, tokens
from edge.policy.auth import principal as auth
from edge.policy.auth.login_throttle import LoginThrottle
from edge.policy.auth.principal import ANONYMOUS, Principal
from edge.protocol.surface import SESSION_PATHS
from edge.settings import Auth
from edge.upstream.jwks import KeySet

TICKET = "ticket"  # in the address
STREAMS_PATH = "/v1/streams"
_YES = ("1", "true")


class WhoCalls:
    """What a face asks."""

    __slots__ = ()

    @property
    def required(self) -> bool:
        """Whether a caller needs a credential."""
        raise NotImplementedError

    async def identify(self, request: web.BaseRequest, client: str | None) -> Principal:
        """Find out who is calling.

        Raises:
            EdgeError: that is not known now, or not them.
        """
        raise NotImplementedError


class Anybody(WhoCalls):
    """Where nobody is asked."""

    required = False

    @override
    async def identify(self, _request: web.BaseRequest, _client: str | None) -> Principal:
        return ANONYMOUS


class _Refusal(NamedTuple):
    """Why nobody was let in. ``is_wrong``: a credential was, and it was not just that the store could not be asked."""

    error: EdgeError
    is_wrong: bool


class Callers(WhoCalls):
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
        self._attempts = LoginThrottle(settings.failures_per_min)
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
    @override
    def required(self) -> bool:
        """It is assumed while it is not known whether keys were made (see ``allow_anonymous``)."""
        ring = self._ring
        return self._required or bool(ring.keys) or not (ring.certain or self._settings.allow_anonymous)

    def closed(self) -> str | None:
        """Why nobody at all can be let in now; None if somebody can be. It asks nobody: it is known already."""
        ring, key_set = self._ring, self._key_set
        if not self.required or bool(self._static) or bool(ring.keys):
            return None
        if key_set is not None and key_set.keys is not None:
            return None
        reasons: list[str] = []
        if ring.keys is None or ring.why is not None:
            reasons.append(f"the key store cannot be read: {ring.public_why or 'nobody has tried yet'}")
        if key_set is not None:
            reasons.append("the token issuer's keys are not to be had")
        return "; ".join(reasons) or None

    @override
    async def identify(self, request: web.BaseRequest, client: str | None) -> Principal:
        if not self.required:
            return ANONYMOUS
        if not self._required and not self._ring.keys and await self._none_needed():
            return ANONYMOUS
        offers = auth.offered(request.headers)
        ticket = "" if offers else ticket_of(request)
        if not offers and not ticket:
            raise auth.unknown(any_offered=False)
        digest = auth.digest_of("\0".join(offers) or ticket)
        now = self._clock()
        wait_s = self._attempts.wait_s(client, digest, now)
        if wait_s:
            raise _too_many(wait_s)
        verdict = await self._judged(offers or [ticket], request, is_ticket=not offers)
        if isinstance(verdict, Principal):
            self._attempts.right(client, digest)
            return verdict
        if verdict.is_wrong:
            self._attempts.wrong(client, now)
        raise verdict.error

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

    async def _none_needed(self) -> bool:
        """Whether no key is needed, where only keys that were made would be.

        Raises:
            CannotTell: the store cannot be read.
        """
        await self._ring.refresh()
        if self.required and not self._ring.keys:
            raise CannotTell("Edge cannot check now whether it needs keys; try again")
        return not self.required

    async def _judged(self, offers: list[str], request: web.BaseRequest, *, is_ticket: bool) -> "Principal | _Refusal":
        """Whoever the first credential is of that is right; if none is, the error is about the first."""
        fields: EdgeError | None = None
        is_wrong = False
        for offer in offers:
            try:
                principal = await (self._admitted(offer, request) if is_ticket else self._whose(offer))
            except (CannotTell, tokens.UnknownKey) as error:  # nobody can know whether it is right: no wrong guess
                fields = error if fields is None or isinstance(error, CannotTell) else fields
                continue
            except Unauthorized as error:
                fields = fields or error
                principal = None
            if principal is not None:
                return principal
            is_wrong = True
        return _Refusal(fields or auth.unknown(any_offered=True), is_wrong)

    async def _whose(self, offer: str) -> Principal | None:
        found = self._static.find(offer)
        if found is not None:
            return found
        if keys.is_key(offer):
            known = await self._known(offer)
            return known.find(offer, self._clock())
        if self._has_tokens and tokens.looks_like_one(offer):
            return await self._of_token(offer)
        return None

    async def _known(self, key: str) -> keys.CreatedKeys:
        """The keys that were made, this one among them if it was; ``key`` is one, or its grant.

        Raises:
            CannotTell: it is not among those that are known, but may be one all the same.
        """
        ring = self._ring
        if ring.keys is not None and ring.keys.has(key):
            return ring.keys
        # It may have been made a moment ago.
        if not await ring.refresh() or ring.keys is None:
            raise CannotTell("Edge cannot check this key now; try again")
        return ring.keys

    async def _of_token(self, token: str) -> Principal:
        key_set = self._key_set
        if key_set is not None and key_set.keys is None:
            await key_set.look_again()
        if key_set is None or key_set.keys is None:
            raise CannotTell("tokens cannot be verified now, as their issuer's keys are not to be had; try again")
        try:
            return self._tokens.check(token, key_set.keys, self._clock())
        except tokens.UnknownKey as error:
            looked = await key_set.look_again()
            if key_set.why is not None or key_set.keys is None:
                raise CannotTell(
                    "the token's key is not known here, and its issuer cannot be asked for it now; try again"
                ) from None
            if not looked:
                if self._settings.jwt_jwks:
                    raise  # the issuer was asked a moment ago, and is not to be asked again yet
                raise _final(error) from None
        try:
            return self._tokens.check(token, key_set.keys, self._clock())
        except tokens.UnknownKey as error:
            raise _final(error) from None

    async def _admitted(self, text: str, request: web.BaseRequest) -> Principal:
        ticket = tickets.read(await self._ring.secret(), text, self._clock())
        if ticket.stream is not None and request.path != f"{STREAMS_PATH}/{ticket.stream}":
            raise Unauthorized("the ticket is for another stream", code="invalid_ticket")
        principal = await self._behind(ticket)
        if principal is None:
            raise Unauthorized("what the ticket was given for is not valid any more", code="invalid_ticket")
        return replace(principal, admin=False)

    async def _behind(self, ticket: tickets.Ticket) -> Principal | None:
        """Who has the credential that the ticket was given for.

        Raises:
            CannotTell: see ``_known``.
        """
        if ticket.grant == tokens.GRANT:
            return ticket.carried() if self._has_tokens else None
        if not ticket.grant.startswith(keys.GRANT):
            return self._static.of(ticket.grant)
        known = await self._known(ticket.grant)
        return known.of(ticket.grant, self._clock())


def ticket_of(request: web.BaseRequest) -> str:
    """The ticket in a request's address, where one may be: on what an EventSource reads; else nothing."""
    if request.method != "GET" or TICKET not in request.query_string:
        return ""
    path, query = request.path, request.query
    follows = path == STREAMS_PATH and query.get("follow", "").strip().lower() in _YES
    reads = follows or path in SESSION_PATHS or path.startswith(f"{STREAMS_PATH}/")
    return query.get(TICKET, "") if reads else ""


def _final(error: tokens.UnknownKey) -> Unauthorized:
    """The error for a token whose key is none of its issuer's, as far as is known."""
    return Unauthorized(error.message, code=error.code, headers=error.headers)


def _too_many(wait_s: float) -> TooManyAttempts:
    headers = {"Retry-After": str(math.ceil(wait_s)), "x-should-retry": "false"}
    return TooManyAttempts(
        "too many wrong credentials have come from this address (auth.failures_per_min); wait, and send the right one",
        headers=headers,
    )
