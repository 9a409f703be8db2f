"""The part of reading a stream that all SSE surfaces share: cut, take the fast path if every event is plain, else walk.

In: network reads. Out: batches. Must not: decode an event of a stream that is under way and looks plain; that is what
keeps a relayed token at microseconds (one ``count`` or two over the read, no split, no JSON).
"""

from enum import Enum
from typing import Any

import orjson

from edge.errors import UpstreamSaid
from edge.protocol.batch import Batch, Usage
from edge.protocol.dialect import BadStream
from edge.protocol.sse import Event, EventTooLarge, SseSplitter, events

EMPTY = Batch(b"")


class Seen(Enum):
    """What one event is to the stream."""

    PRELUDE = 0  # relayed, carries no generated content
    TOKEN = 1
    DROP = 2  # not relayed: a heartbeat, or a chunk the client did not ask for
    END = 3  # the terminator


class SeenError(Exception):
    """The event is the upstream's in-band error.

    Args:
        said: What it says.
        relay: Its bytes are in the surface's shape, so they are passed on.
        final: It is also the surface's regular end (``response.failed``), so no abort has to follow.
    """

    def __init__(self, said: UpstreamSaid, *, relay: bool, final: bool = False) -> None:
        super().__init__(said.message)
        self.said = said
        self.relay = relay
        self.final = final


class Plain:
    """Knows runs of events that all begin alike, end in ``}`` and have no further line.

    Args:
        head: What each event begins with.
    """

    __slots__ = ("_head", "_joint", "_named", "_start")

    def __init__(self, head: bytes) -> None:
        self._head = head
        self._start = b"\n\n" + head
        self._joint = b"}" + self._start
        self._named = head.startswith(b"event")  # then each data line follows an event line

    def count(self, whole: bytes) -> int:
        """How many events there are if every one is like that; else 0.

        Inside JSON a line end is always escaped, so model text cannot forge a joint. Counting the long patterns costs
        less than counting line ends: 290 against 510 ns for each event of a large read.
        """
        if not (whole.startswith(self._head) and whole.endswith(b"}\n\n")):
            return 0
        joints = whole.count(self._joint)
        alike = (
            whole.count(self._start) == joints and whole.count(b"\ndata") == joints + self._named and b"\r" not in whole
        )
        return joints + 1 if alike else 0


class SseCodec:
    """Base of the surfaces' codecs; a subclass tells what is plain, and observes the rest event by event."""

    terminator = b""

    def __init__(self, max_event_bytes: int) -> None:
        self.usage: Usage | None = None
        self._splitter = SseSplitter(max_event_bytes)
        self._started = False

    def feed(self, data: bytes) -> Batch:
        """See ``dialect.Codec.feed``."""
        splitter = self._splitter
        if self._started and not splitter.pending and len(data) <= splitter.max_event_bytes:
            # The usual read is plain events, whole: what proves that also proves that there is nothing to cut.
            count = self._plain(data)
            if count:
                return Batch(data, count, count)
        try:
            whole = splitter.feed(data)
        except EventTooLarge as error:
            return self._too_large(error)
        if not whole:
            return EMPTY
        if self._started:
            count = self._plain(whole)
            if count:
                return Batch(whole, count, count)
        return self._walk(whole)

    def _too_large(self, error: EventTooLarge) -> Batch:
        batch = self._walk(error.before)
        if batch.terminated or batch.error is not None:
            return batch
        bad = BadStream(f"the upstream sent too large an event: {error}")
        bad.before = batch
        raise bad from None

    def eof(self) -> Batch:
        """What the end of the body completes: some servers leave out the last blank line.

        An event that was cut in the middle is dropped, as the SSE format demands; whether that is a loss is
        ``finished``'s to say.
        """
        rest = self._splitter.rest()
        if not rest.strip():
            return EMPTY
        try:
            return self._walk(rest)
        except BadStream:
            return EMPTY

    def _walk(self, whole: bytes) -> Batch:
        kept: list[bytes] = []
        tokens = 0
        for event in events(whole):
            try:
                seen = self._observe(event)
            except SeenError as error:
                if error.relay:
                    kept.append(event.raw)
                data = b"".join(kept)
                return Batch(data, len(kept), tokens, terminated=error.final, error=error.said, told=error.relay)
            except BadStream as error:
                error.before = Batch(b"".join(kept), len(kept), tokens)
                raise
            if seen is Seen.DROP:
                continue
            if seen is Seen.END:
                if self.finished(clean_eof=False):
                    kept.append(event.raw)  # else it would tell the client that a cut answer is whole
                return Batch(b"".join(kept), len(kept), tokens, terminated=True)
            kept.append(event.raw)
            if seen is Seen.TOKEN:
                tokens += 1
                self._started = True
        return Batch(b"".join(kept), len(kept), tokens)

    def finished(self, *, clean_eof: bool) -> bool:
        """See ``dialect.Codec.finished``."""
        raise NotImplementedError

    def _decoded(self, event: Event) -> Any:
        """The event's JSON.

        Raises:
            BadStream: it is none.
        """
        try:
            return orjson.loads(event.data)
        except orjson.JSONDecodeError:
            raise BadStream("the upstream sent a malformed event") from None

    def _plain(self, whole: bytes) -> int:
        """How many events there are if every one is plain generated content; else 0."""
        raise NotImplementedError

    def _observe(self, event: Event) -> Seen:
        """Look at one event.

        Raises:
            BadStream: it is not the surface's.
            SeenError: it is the upstream's error.
        """
        raise NotImplementedError
