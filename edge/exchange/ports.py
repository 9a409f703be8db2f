"""What exchanges and transfers work with: what all of them share, who asked for what, and who looks at them.

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
    """Who asked for what.

    Attributes:
        client: The address of who is calling, as far as it can be believed.
        headers: Allowlisted request headers that go upstream.
        release: Gives the body's share of the budget back.
        accepted_at: When the request line was seen, on ``ExchangeServices.clock``.
        opening: What goes out at once, before the upstream has said anything; empty where the status is held.
        resume: The client wants a stream that it can come back to.
        session: The session that it is part of.
        lane: How much hurry there is.
        settle: Called once, when nothing more is generated: keeps what was said. The readers see the end when
            it calls its last argument, which it does in any case, soon.
        detached: Called each time that nobody reads it any more, and it goes on for one that may come back.
        upload: The body, where it is passed on as it comes.
        passed: The Edges that the request has passed before this one.
        after_error: How the client's stream may end after an error event.
        id_made: ``request_id`` is Edge's own, not the client's.
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
    """What is asked, and by whom.

    Attributes:
        operation: What for, as metrics name it: pull, push, create, copy, delete or blobs.
        model: The model it is about; None for a blob.
        headers: Of the body, besides its framing.
        body: All of it, unless there is an ``upload``.
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
    """An exchange, for whoever looks at it from outside; ``exchange.Exchange``."""

    stream_id: str
    asked: ExchangeRequest
    generation: Generation

    @property
    def prepared(self) -> Prepared:
        """The request; without its body, once no attempt can need that any more."""

    @property
    def upstream(self) -> str | None:
        """The name of the upstream tried last; None if none was."""

    @property
    def elapsed_s(self) -> float:
        """Since the request was accepted."""


class RunningTransfer(Protocol):
    """A request that changes an upstream's models, for whoever looks at it from outside; ``transfer.Transfer``."""

    asked: TransferRequest
    member: Member
    outcome: Outcome | None

    @property
    def elapsed_s(self) -> float:
        """Since the request was accepted."""

    def stop(self) -> None:
        """Somebody stopped it."""


ExchangeRegistry = Registry[RunningExchange, RunningTransfer]


class ExchangeObserver:
    """What an exchange reports to."""

    __slots__ = ()

    def started(self, exchange: RunningExchange) -> None:
        """It was accepted."""
        raise NotImplementedError

    def progressed(self, exchange: RunningExchange) -> None:
        """It has been running for another ``log.progress_s``."""
        raise NotImplementedError

    def failed(self, request_id: str, stream_id: str | None, bug: BaseException) -> None:
        """An exchange, or a reader that came back, ended by a bug of ours."""
        raise NotImplementedError

    def ended(self, record: StreamRecord) -> None:
        """It is over on both sides."""
        raise NotImplementedError

    def returned(self, record: ReturnRecord) -> None:
        """A reader that came back to a stream has gone."""
        raise NotImplementedError

    def transferred(self, record: TransferRecord) -> None:
        """A request that changes an upstream's models is over."""
        raise NotImplementedError


@dataclass(slots=True)
class ExchangeServices:
    """What all exchanges share.

    Attributes:
        settings: In force now. A reload puts others here; an exchange keeps those that it began with.
        apart: Does work on a large body in another process.
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
