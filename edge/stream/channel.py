"""A channel: what readers attach to. A journal that grows, its readers and their positions, and how it ended.

In: events from a subclass that makes them (``Generation``, ``Replay``, ``Mux``). Out: writes to readers; calls to the
subclass when it has to pause, may resume, or has no reader left. Must not: know where events come from, or write to a
socket.
"""

from collections.abc import Callable
from dataclasses import dataclass

from edge.errors import EdgeError
from edge.policy.lifecycle import Outcome
from edge.settings import Stream as StreamSettings
from edge.stream.journal import Journal


class Reader:
    """A reader of a channel's journal."""

    __slots__ = ()

    position: int
    wants_events: bool  # and not just the answer in one piece

    @property
    def committed(self) -> bool:
        """The status has gone out."""
        raise NotImplementedError

    def write(self, data: bytes) -> bool:
        """Take the next bytes directly, without the journal; False if it cannot now, and then it has taken nothing."""
        raise NotImplementedError

    def push(self) -> None:
        """The journal has more."""
        raise NotImplementedError

    def ended(self) -> None:
        """Nothing more will come."""
        raise NotImplementedError

    def cut_off(self) -> None:
        """Cut it: it is too slow, and others wait for what it holds up."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Retention:
    """What is kept of a stream, so that readers can come back to it.

    Attributes:
        keep_bytes: How many bytes of its latest events stay in the journal even after all readers have taken them.
        write: Writes whole events, and how many they are, to a store.
    """

    keep_bytes: int
    write: Callable[[bytes, int], None] | None = None


class Channel:
    """What readers attach to; see the module. ``id`` is the stream id, ``st_`` and 32 hex digits.

    Attributes:
        outcome: How it ended; None while it runs.
        error: Why it failed; readers that have got nothing yet get this as their HTTP status.
        clean: It ended, and the journal ends with the surface's regular end, so the connection need not be cut.
        fails_in_stream: It failed before the answer, and readers get the error as a stream, not as a status.
        handed_over: Some event of the answer has been published.
        begun: The status may go out although no event of the answer has: Edge has published an event of its own.
        error_sent: It failed, and the journal ends with the error event.
        parting: Events that a failed stream sends last, and that are not in the journal.
        pauses: How often the source was paused because all readers lagged.
    """

    __slots__ = (
        "_largest",
        "_paused",
        "_readers",
        "_retention",
        "_settings",
        "begun",
        "clean",
        "error",
        "error_sent",
        "fails_in_stream",
        "handed_over",
        "id",
        "journal",
        "outcome",
        "parting",
        "pauses",
    )  # as attributes of a dict they would take 1.5 KB

    def __init__(self, stream_id: str, settings: StreamSettings, retention: Retention | None = None) -> None:
        self.id = stream_id
        self.journal = Journal(0 if retention is None else retention.keep_bytes)
        self.outcome: Outcome | None = None
        self.error: EdgeError | None = None
        self.clean = False
        self.error_sent = False
        self.handed_over = False
        self.begun = False
        self.fails_in_stream = False
        self.parting = b""
        self.pauses = 0
        self._retention = retention
        self._settings = settings
        self._readers: list[Reader] = []
        self._largest = 0  # of the batches published
        self._paused = False

    @property
    def readers(self) -> int:
        """How many readers are attached."""
        return len(self._readers)

    # --- what a subclass does -------------------------------------------------------------------------------------

    def heartbeat(self, *, lively: bool) -> bytes:
        """A keep-alive in the surface's shape; empty if there is none. ``lively``: see ``SurfaceFormat.beat``."""
        raise NotImplementedError

    def committed(self) -> None:
        """A reader's status has gone out, and perhaps nothing else."""

    def fail(self, bug: BaseException) -> None:
        """End it because of a bug in Edge."""
        raise NotImplementedError

    def break_off(self, error: EdgeError) -> None:
        """End it because its events cannot be used any more."""
        raise NotImplementedError

    def left(self, *, stalled: bool) -> None:
        """The last reader has left."""
        raise NotImplementedError

    def pause_source(self) -> None:
        """All readers lag: publish nothing for now."""
        raise NotImplementedError

    def resume_source(self) -> None:
        """A reader has caught up: go on."""
        raise NotImplementedError

    # --- readers --------------------------------------------------------------------------------------------------

    def attach(self, reader: Reader) -> None:
        """Attach a reader, at its position."""
        self._readers.append(reader)

    def detach(self, reader: Reader, *, stalled: bool = False) -> None:
        """Detach a reader; idempotent."""
        if reader not in self._readers:
            return
        self._readers.remove(reader)
        if self._readers:
            self.advanced()
        else:
            self.left(stalled=stalled)

    def advanced(self) -> None:
        """A reader has taken bytes: drop what all have taken, and resume the source if one has caught up."""
        readers, journal = self._readers, self.journal
        if not readers:
            return
        if not journal.keep_bytes:
            journal.trim(min(reader.position for reader in readers))
        if self._paused:
            furthest = max(reader.position for reader in readers)
            if journal.end - furthest <= self._settings.buffer_bytes // 2:
                self.unpause()

    def publish(self, data: bytes, count: int) -> None:
        """Hand whole events to every reader."""
        if self._retention is not None and self._retention.write is not None:
            self._retention.write(data, count)
        journal, readers = self.journal, self._readers
        # The fast path, and its one condition: the only reader has everything so far, and takes this directly.
        if len(readers) == 1 and readers[0].position == journal.end and readers[0].write(data):
            if not journal.keep_bytes:
                # The journal counts it and holds nothing; here, since a call would be 60 ns of the 0.7 µs of a token.
                journal.start = journal.end = journal.end + len(data)
                journal.before = journal.last = journal.last + count
                return
            journal.append(data, count)
            self._bound()
            return
        journal.append(data, count)
        for reader in readers:
            reader.push()
        # The next read may bring as much as any did, and has to fit too.
        self._largest = max(self._largest, len(data))
        if journal.keep_bytes:
            self._bound()
        elif not readers:
            journal.trim(journal.end)
        if readers and not self._paused:
            buffer_bytes = self._settings.buffer_bytes
            room = max(buffer_bytes - self._largest, buffer_bytes // 2)
            if journal.end - journal.start > room and journal.end - max(r.position for r in readers) > room:
                self._paused = True
                self.pauses += 1
                self.pause_source()

    def unpause(self) -> None:
        """Wait for slow readers no longer."""
        if self._paused:
            self._paused = False
            self.resume_source()

    def conclude(self) -> None:
        """Let the readers end: the last event is in the journal, and ``outcome`` is set."""
        for reader in tuple(self._readers):
            reader.ended()

    def _bound(self) -> None:
        """Bound what is kept, but never drop what the foremost reader has not taken."""
        journal = self.journal
        if journal.end - journal.start > journal.keep_bytes:
            journal.bound(max(journal.keep_bytes, self._settings.buffer_bytes + self._largest))
