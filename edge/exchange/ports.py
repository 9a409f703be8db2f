"""What exchanges and transfers are given: services that all share, the request, and ports for those who watch them.

In: nothing. Out: values and ports. Must not: run anything.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from edge.exchange.limits import Limits
from edge.exchange.registry import Registry
from edge.exchange.slot_wait import AdmissionTimer
from edge.policy.after_error import ALWAYS_RESETS, AfterError
from edge.policy.auth.principal import Principal
from edge.policy.lifecycle import Outcome
from edge.policy.queue.lanes import Lane
from edge.protocol.dialect import Dialect
from edge.protocol.request import Prepared
from edge.settings import Settings
from edge.stream.generation import Generation
from edge.stream.persistence import StreamArchive
from edge.stream.ticker import Ticker
from edge.telemetry.record import ReturnRecord, StreamRecord, TransferRecord
from edge.upstream.fleet import Fleet
from edge.upstream.health import Member
from edge.upstream.ports import Apart, Upload

STREAM_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


@dataclass(frozen=True, slots=True)
class ExchangeRequest:
    """A request that becomes an exchange: who asks, and how it is to be answered.

    Attributes:
        client: The address of the caller, as far as Edge can trust it.
        headers: Allowlisted request headers that go upstream.
        release: Gives the body's share of the budget back.
        accepted_at: When the request line came, on ``ExchangeServices.clock``.
        opening: Goes out at once, before the upstream has sent anything; empty if the status is held.
        resume: The client wants a stream that it can come back to.
        session: The session that the request belongs to.
        lane: The lane that it waits in.
        settle: Stores the answer; called once, when generating has ended. It calls its last argument soon, in any case:
            only then do the readers see the end.
        detached: Called each time that the last reader leaves and the generation goes on for one that may come back.
        upload: The body, if it is passed on as it comes.
        passed: The Edges that the request passed before this one.
        after_error: How the client's stream may end after an error event.
        id_made: Edge made ``request_id``, not the client.
    """

    request_id: str
    stream_id: str
    principal: Principal
    client: str | None
    dialect: Dialect
    headers: Mapping[str, str]
    release: Callable[[], None]
    accepted_at: float
    opening: bytes = b""
    resume: bool = False
    session: str | None = None
    lane: Lane = Lane.INTERACTIVE
    settle: Callable[[Generation, Outcome, Callable[[], None]], None] | None = None
    detached: Callable[[], None] | None = None
    upload: Upload | None = None
    passed: tuple[str, ...] = ()
    after_error: AfterError = ALWAYS_RESETS
    id_made: bool = False


@dataclass(frozen=True, slots=True)
class TransferRequest:
    """A request that changes an upstream's models: who asks, and for what.

    Attributes:
        operation: What it does, as metrics name it: pull, push, create, copy, delete or blobs.
        model: The model that it changes; None for a blob.
        headers: Headers of the body, besides its framing.
        body: The whole body, unless there is an ``upload``.
    """

    request_id: str
    stream_id: str
    principal: Principal
    client: str | None
    accepted_at: float
    method: str
    path: str
    operation: str
    model: str | None
    headers: Mapping[str, str]
    body: bytes = b""
    upload: Upload | None = None


class RunningExchange(Protocol):
    """An exchange as others see it; ``exchange.Exchange``."""

    stream_id: str
    asked: ExchangeRequest
    generation: Generation

    @property
    def prepared(self) -> Prepared:
        """The request; without its body once no attempt can need it any more."""

    @property
    def upstream(self) -> str | None:
        """The name of the upstream tried last; None if none was."""

    @property
    def elapsed_s(self) -> float:
        """Since the request was accepted."""


class RunningTransfer(Protocol):
    """A request that changes an upstream's models, as others see it; ``transfer.Transfer``."""

    asked: TransferRequest
    member: Member
    outcome: Outcome | None

    @property
    def elapsed_s(self) -> float:
        """Since the request was accepted."""

    def stop(self) -> None:
        """End it: somebody stopped it."""


ExchangeRegistry = Registry[RunningExchange, RunningTransfer]


class ExchangeObserver:
    """Observes what exchanges and transfers do."""

    __slots__ = ()

    def started(self, exchange: RunningExchange) -> None:
        """An exchange has begun."""
        raise NotImplementedError

    def progressed(self, exchange: RunningExchange) -> None:
        """An exchange has been running for another ``log.progress_s``."""
        raise NotImplementedError

    def failed(self, request_id: str, stream_id: str | None, bug: BaseException) -> None:
        """A bug in Edge ended an exchange, or a reader that came back."""
        raise NotImplementedError

    def ended(self, record: StreamRecord) -> None:
        """An exchange has ended on both sides."""
        raise NotImplementedError

    def returned(self, record: ReturnRecord) -> None:
        """A reader that had come back to a stream has gone."""
        raise NotImplementedError

    def transferred(self, record: TransferRecord) -> None:
        """A request that changes an upstream's models is over."""
        raise NotImplementedError


@dataclass(slots=True)
class ExchangeServices:
    """What all exchanges share.

    Attributes:
        settings: The current settings. A reload replaces them; an exchange keeps those that it began with.
        apart: Works on a large body in another process.
    """

    settings: Settings
    fleet: Fleet
    registry: ExchangeRegistry
    ticker: Ticker
    observer: ExchangeObserver
    clock: Callable[[], float]
    archive: StreamArchive
    limits: Limits
    admitting: AdmissionTimer
    apart: Apart
