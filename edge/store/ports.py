"""The store ports: what is to outlive an exchange, whoever keeps it: this process, a file or a server.

In: turns, by principal and session; the events of streams, as they come. Out: the same, as far as the bounds allow.
Must not: know who speaks when (that one request at a time changes a session is the caller's to see to, with ``claim``),
or let whoever appends wait: what is appended is written behind.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from edge.policy.auth.keys import KeyRecord
from edge.policy.limits.counters import Account, Used
from edge.policy.limits.rules import Demand, Spent, Taken
from edge.settings import Sessions as SessionSettings
from edge.settings import Settings


class StoreDown(Exception):
    """The store cannot be asked now: gone, hung, full or broken. What is being streamed goes on without it."""


class InDoubt(StoreDown):
    """The store did not answer in time to what was to be written: it may be there by now, or come to be."""


class Dropped(LookupError):
    """The events asked for are no longer kept, though later ones may be."""


class Unusable(Exception):
    """The store cannot be used at all until somebody mends it: not ours, or of a schema that this version lacks."""


# --- sessions -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of a conversation. ``at`` is Unix time; ``partial``: the answer broke off here."""

    role: Literal["user", "assistant"]
    content: str
    at: float
    partial: bool = False


@dataclass(frozen=True, slots=True)
class Conversation:
    """What is kept of a session: a question and its answer by turns, the oldest first."""

    turns: tuple[Turn, ...]
    created: float
    updated: float


class SessionStore:
    """Keeps conversations, each of one principal. All raise ``StoreDown`` where the store is one that can be."""

    __slots__ = ()

    async def read(self, principal: str, session: str) -> Conversation | None:
        """What is kept of a session; None if there is none."""
        raise NotImplementedError

    async def append(self, principal: str, session: str, question: Turn, answer: Turn) -> None:
        """Add both or neither; what is over the bounds then goes."""
        raise NotImplementedError

    async def delete(self, principal: str, session: str) -> bool:
        """Forget a session; whether there was one."""
        raise NotImplementedError

    async def claim(self, principal: str, session: str) -> bool:
        """Have a session to this process, among those that share the store, until ``yield_up``; False if another has.

        A claim lapses by itself when its process is gone (see ``LEASE_S``). Within a process it is not asked twice.
        """
        raise NotImplementedError

    async def yield_up(self, principal: str, session: str) -> None:
        """Let other processes have the session."""
        raise NotImplementedError

    async def close(self) -> None:
        """Let go of files and connections."""
        raise NotImplementedError


class Durable(SessionStore):
    """A session store that takes other settings."""

    __slots__ = ()

    def apply_settings(self, settings: Settings) -> None:
        """Other settings are in force."""
        raise NotImplementedError


def within(turns: tuple[Turn, ...], bounds: SessionSettings, now: float) -> tuple[Turn, ...]:
    """The latest turns that the bounds allow; the oldest go in pairs, so that a question always comes first."""
    size = sum(len(turn.content.encode()) for turn in turns)
    first = 0
    while first < len(turns) and (
        len(turns) - first > bounds.max_turns or size > bounds.max_bytes or turns[first + 1].at < now - bounds.max_age_s
    ):
        size -= sum(len(turn.content.encode()) for turn in turns[first : first + 2])
        first += 2
    return turns[first:]


# --- streams --------------------------------------------------------------------------------------------------------

# A process that has not renewed its lease for so long is gone: who follows its live streams ends them (``shutdown``).
LEASE_S = 10.0
RENEW_S = 2.5
# So many times ``store.keep_s`` after its end it is forgotten that a stream was there; in memory, for room only.
REMEMBERED = 2


@dataclass(frozen=True, slots=True)
class StreamMeta:
    """What is known of a stream when its journal begins.

    Attributes:
        id: ``st_`` and 32 hex digits.
        principal: Whose it is.
        surface: Whose events it holds, a ``protocol.surface.Surface``.
        created: Unix time.
        keep_bytes: The latest so many bytes of its events are kept, and at least the latest ``Stretch``.
    """

    id: str
    principal: str
    surface: str
    model: str | None
    session: str | None
    request_id: str
    created: float
    keep_bytes: int


@dataclass(frozen=True, slots=True)
class Ending:
    """How a stream ended.

    Attributes:
        outcome: A ``policy.lifecycle.Outcome``.
        clean: The last event is the surface's regular end; else it is an error, and the connection is cut after it.
        at: Unix time.
        status: What the HTTP status was, or would have been for a reader that had got no event.
        error: Of an ``EdgeError``: message, code and type; None for a complete one.
    """

    outcome: str
    clean: bool
    at: float
    status: int = 200
    error: tuple[str, str | None, str] | None = None


@dataclass(frozen=True, slots=True)
class StreamState:
    """A stream as it is now.

    Attributes:
        first: Sequence of the first event that is kept; events count from 1. ``last + 1`` if none is.
        last: Sequence of the last event so far, 0 before the first.
        size: Bytes that are kept.
        here: This process generates it, or did.
        ending: None while it is being generated.
        upstream: Its name, once known.
        reconnections: Readers that came back to it.
    """

    meta: StreamMeta
    first: int
    last: int
    size: int
    here: bool
    ending: Ending | None
    upstream: str | None = None
    reconnections: int = 0

    @property
    def gone(self) -> bool:
        """None of its events is kept any more; only that it was there."""
        return self.ending is not None and self.first > self.last > 0


@dataclass(frozen=True, slots=True)
class Stretch:
    """Whole events in a row; ``last`` is the sequence of the last of the ``count``."""

    data: bytes
    last: int
    count: int


class StreamLog:
    """Where the events of one stream that is generated here are written. Nothing here waits or raises."""

    __slots__ = ()

    def append(self, data: bytes, count: int) -> None:
        """Whole events, ``count`` of them (1 or more)."""
        raise NotImplementedError

    def end(self, ending: Ending, upstream: str | None, reconnections: int, settled: Callable[[bool], None]) -> None:
        """No more will come.

        Args:
            ending: How it ended.
            upstream: The name of that which generated it, if one did.
            reconnections: Readers that came back to it past the store, beside those that ``came_back`` has counted.
            settled: Called once, on the loop: whether all of it is kept. If not, what is left of it is forgotten.
        """
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Sizes:
    """What is in a store: numbers, and bytes as far as they are known."""

    streams: int
    live: int
    stream_bytes: int
    sessions: int
    bytes: int  # of the whole: file, server memory or heap


class StreamStore:
    """Keeps streams. All but ``begin`` raise ``StoreDown`` where the store is one that can be."""

    __slots__ = ()

    def begin(self, meta: StreamMeta) -> StreamLog:
        """A journal for a stream that begins now; kept until ``store.keep_s`` after its end."""
        raise NotImplementedError

    async def find(self, stream_id: str) -> StreamState | None:
        """A stream, whoever's it is; None if there is none (any more). What was appended here before is in it.

        A live stream whose process is gone is found ended, as ``shutdown``: not clean, status 503, with the error that
        ``lost`` gives; its last event is the last that was written. One that had to go, for its age, for room or by a
        purge, is found for a while as ``gone`` (see ``REMEMBERED``), and is not unknown then.
        """
        raise NotImplementedError

    async def find_all(self, principal: str, stream_ids: Sequence[str]) -> dict[str, StreamState]:
        """Those of these streams that are this principal's, as ``find`` has them; asked for at once.

        Somebody else's is not found, and takes as long as one that never was.
        """
        raise NotImplementedError

    async def read(self, stream_id: str, after: int, most: int) -> list[Stretch]:
        """What follows the event of sequence ``after``, about ``most`` bytes of it (one stretch at least).

        Empty at the end. A first stretch may begin before ``after + 1``: nobody but the reader can cut events.

        Raises:
            Dropped: ``after + 1`` is not kept any more, or the stream is not there.
        """
        raise NotImplementedError

    async def changed(self, stream_id: str, last: int, within_s: float) -> None:
        """Return when the stream may have gone on beyond ``last`` or ended, at the latest after ``within_s``."""
        raise NotImplementedError

    async def streams(self, principal: str | None, most: int) -> list[StreamState]:
        """The latest ``most`` streams of a principal, or of all; the latest first."""
        raise NotImplementedError

    async def stop(self, stream_id: str) -> None:
        """Ask the process that generates a stream to stop that; the others hear of it as its end."""
        raise NotImplementedError

    async def came_back(self, stream_id: str) -> int:
        """Count a reader that came back to a stream; how many that makes."""
        raise NotImplementedError

    async def came_back_all(self, stream_ids: Sequence[str]) -> dict[str, int]:
        """Count a reader that came back to each of these streams; how many that makes, of those that there are."""
        raise NotImplementedError

    async def forget(self, stream_id: str) -> bool:
        """Let go of a stream that has ended, and of that it was there; whether its events still were."""
        raise NotImplementedError

    async def purge(self, before: float) -> int:
        """Let go of what ended before this Unix time, but not of that it was there; how many streams that were."""
        raise NotImplementedError

    async def sizes(self) -> Sizes:
        """What is in it."""
        raise NotImplementedError

    def apply_settings(self, settings: Settings) -> None:
        """Other settings are in force."""
        raise NotImplementedError

    async def close(self) -> None:
        """Write what is to be written, then let go of files and connections; live streams of this process are gone."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class StoreStatistics:
    """A snapshot. ``lag_s``: how long the oldest of what is not written yet has waited."""

    up: bool
    backlog_bytes: int
    lag_s: float
    failures: int


class DurableStreams(StreamStore):
    """A stream store that can be down."""

    __slots__ = ()

    def statistics(self) -> StoreStatistics:
        """How it is."""
        raise NotImplementedError


class StoreListener:
    """Hears what happens in a store; on the loop."""

    __slots__ = ()

    def stop_asked(self, stream_id: str) -> None:
        """Somebody wants a stream stopped that is generated here."""
        raise NotImplementedError

    def store_failed(self, why: str) -> None:
        """The store is down; once per outage. Streams go on, kept in memory."""
        raise NotImplementedError

    def store_recovered(self, after_s: float) -> None:
        """It is back."""
        raise NotImplementedError

    def store_reopened(self, what: str) -> None:
        """Its file was deleted, replaced or damaged by somebody else, and is another from now on; a sentence."""
        raise NotImplementedError


# The error for a reader of a stream whose process is gone.
LOST = ("the Edge process that generated this stream is gone; send the request again", "shutdown", "server_error")


def lost(at: float) -> Ending:
    """The end of a stream whose process is gone."""
    return Ending("shutdown", clean=False, at=at, status=503, error=LOST)


# --- counters -------------------------------------------------------------------------------------------------------


class CounterStore:
    """Keeps the counts behind limits and budgets, and what was used by whom.

    One that shares its counts and cannot reach them counts by itself meanwhile: no request waits for it or fails by it.
    """

    __slots__ = ()

    async def open(self) -> None:
        """Learn what has been counted before; later, if that cannot be had now."""
        raise NotImplementedError

    async def reserve(self, demand: Demand) -> Taken:
        """Take all that a demand is bounded by, or nothing of it; at once, as others see it.

        Cancelled, it has taken nothing. A demand without bounds is always allowed.
        """
        raise NotImplementedError

    def end(self, taken: Taken, spent: Spent | None) -> None:
        """Settle what was taken, or with None give it all back; once for each. Does not wait, or raise."""
        raise NotImplementedError

    async def usage(self, first: str) -> dict[Account, Used]:
        """What was used from this day on, by whom.

        Raises:
            StoreDown: it cannot be asked now.
        """
        raise NotImplementedError

    async def close(self) -> None:
        """Write what is to be written, then let go of files and connections."""
        raise NotImplementedError


# --- keys -----------------------------------------------------------------------------------------------------------


class KeyStore:
    """Keeps what is kept of the keys that were made, and the secrets of the installation. All raise ``StoreDown``.

    Attributes:
        place: Where that is, for people.
    """

    __slots__ = ()

    place: str

    async def keys(self) -> list[KeyRecord]:
        """All of them, the oldest first; revoked and expired ones too."""
        raise NotImplementedError

    async def find(self, key_id: str) -> KeyRecord | None:
        """One of them; None if there is none of this id."""
        raise NotImplementedError

    async def put(self, record: KeyRecord) -> None:
        """Keep a record, in place of one with the same id."""
        raise NotImplementedError

    async def forget(self, key_id: str) -> bool:
        """Let go of a record; whether there was one."""
        raise NotImplementedError

    async def mark(self) -> object:
        """Something that differs from what it was before ``put`` or ``forget``, by whomever; cheap to ask for.

        None where that is not known: then they may have changed.
        """
        raise NotImplementedError

    async def secret(self, name: str, proposed: bytes) -> bytes:
        """The secret of this name; if there is none, ``proposed`` is from now on, for everybody."""
        raise NotImplementedError

    async def close(self) -> None:
        """Let go of files and connections."""
        raise NotImplementedError
