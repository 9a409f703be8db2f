"""What readers attach to: a journal that grows, who reads it and how far, and how it has ended.

In: events, from whoever makes them (``Generation``, or what replays a stream). Out: pushes to readers; a word to the
maker when it is to wait for them, to go on, or has none left. Must not: know where events come from, or write to a
socket.
"""

from collections.abc import Callable
from dataclasses import dataclass

from edge.errors import EdgeError
from edge.policy.lifecycle import Outcome
from edge.settings import Stream as StreamSettings
from edge.stream.journal import Journal


class Reader:
    """One who reads a journal."""

    __slots__ = ()

    position: int
    wants_events: bool  # and not just the answer in one piece

    @property
    def committed(self) -> bool:
        """The status has gone out."""
        raise NotImplementedError

    def write(self, data: bytes) -> bool:
        """Take what comes next, past the journal; False, and nothing taken, if the reader is not up to it."""
        raise NotImplementedError

    def push(self) -> None:
        """There is more in the journal."""
        raise NotImplementedError

    def ended(self) -> None:
        """Nothing more will come."""
        raise NotImplementedError

    def cut_off(self) -> None:
        """It is too slow, and others want what it holds up."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Retention:
    """That a stream can be come back to.

    Attributes:
        keep_bytes: How much of its events, the latest of them, stays in the journal whoever has taken them.
        write: Where whole events, and how many, are written to that are to outlive this process or its memory.
    """

    keep_bytes: int
    write: Callable[[bytes, int], None] | None = None


class Channel:
    """See the module. ``id`` is the stream id, ``st_`` and 32 hex digits.

    Attributes:
        outcome: How it ended; None before.
        error: For a reader that has got nothing, if it did not end well.
        clean: It ended, and the journal ends with the surface's regular end: nothing has to be cut off.
        fails_in_stream: It failed before the answer, and readers get that as a stream, not as a status.
        handed_over: Some event of the answer is, or was, within a reader's reach.
        begun: The status may go out though nothing is handed over: there is something to be said before.
        error_sent: It did not end well, and the journal ends with the event that says so.
        parting: What readers get beside the journal, last of all, if it did not end well.
        pauses: Times that all readers lagged so far that its maker was to wait.
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
        """How many there are."""
        return len(self._readers)

    # --- what its maker does --------------------------------------------------------------------------------------

    def heartbeat(self, *, lively: bool) -> bytes:
        """A keep-alive in the surface's shape; empty if there is none. ``lively``: see ``SurfaceFormat.beat``."""
        raise NotImplementedError

    def committed(self) -> None:
        """A reader's status has gone out, and perhaps nothing else."""

    def fail(self, bug: BaseException) -> None:
        """End it with the truth about a bug of ours."""
        raise NotImplementedError

    def break_off(self, error: EdgeError) -> None:
        """What comes cannot be used any more."""
        raise NotImplementedError

    def left(self, *, stalled: bool) -> None:
        """The last reader has gone."""
        raise NotImplementedError

    def pause_source(self) -> None:
        """All readers lag: make no more for now."""
        raise NotImplementedError

    def resume_source(self) -> None:
        """One has caught up."""
        raise NotImplementedError

    # --- readers --------------------------------------------------------------------------------------------------

    def attach(self, reader: Reader) -> None:
        """A reader begins at its position."""
        self._readers.append(reader)

    def detach(self, reader: Reader, *, stalled: bool = False) -> None:
        """A reader is gone; idempotent."""
        if reader not in self._readers:
            return
        self._readers.remove(reader)
        if self._readers:
            self.advanced()
        else:
            self.left(stalled=stalled)

    def advanced(self) -> None:
        """A reader has taken bytes: let go of what all have, and read on if one has caught up."""
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
        """Whole events, for every reader."""
        if self._retention is not None and self._retention.write is not None:
            self._retention.write(data, count)
        journal, readers = self.journal, self._readers
        # The fast path, and its one condition: the only reader has everything so far, and takes this as it comes.
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
        """Whoever lags, or is gone, is not waited for any more."""
        if self._paused:
            self._paused = False
            self.resume_source()

    def conclude(self) -> None:
        """The end is in the journal, and ``outcome`` is set."""
        for reader in tuple(self._readers):
            reader.ended()

    def _bound(self) -> None:
        """What is kept is bounded, but so that the furthest reader always finds what it has not taken."""
        journal = self.journal
        if journal.end - journal.start > journal.keep_bytes:
            journal.bound(max(journal.keep_bytes, self._settings.buffer_bytes + self._largest))
