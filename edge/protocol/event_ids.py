"""Events by number: where the first so many of a run end, and the ``id:`` lines that let a reader come back.

In: runs of whole events. Out: the same with ids, or places in them. Must not: look into an event's data.

An id is only ever inside a block that has data: the official OpenAI client never resets the last id, and takes any
block without data for an event as soon as it has seen one. For the same reason a comment has no blank line after it.
"""

import re
from itertools import islice, pairwise

from typing_extensions import override

from edge.protocol.sse import BOUNDARY, SSE_TYPE

_CURSOR = re.compile(r"(st_[0-9a-f]{32}):(0|[1-9][0-9]{0,15})")
_STREAM_ID = re.compile(r"st_[0-9a-f]{32}")


def parse_cursor(text: str) -> tuple[str, int] | None:
    """Stream and sequence of an id; None if it is none."""
    found = _CURSOR.fullmatch(text)
    return None if found is None else (found[1], int(found[2]))


def is_stream(text: str) -> bool:
    """Whether this can be a stream's id."""
    return _STREAM_ID.fullmatch(text) is not None


class Numbering:
    """How the events of one stream are numbered for one reader."""

    __slots__ = ()

    def number(self, run: bytes) -> bytes:
        """A run of whole events as this reader gets it."""
        raise NotImplementedError

    def safe(self, heartbeat: bytes) -> bytes:
        """A heartbeat as this reader gets it."""
        raise NotImplementedError

    @staticmethod
    def aside(event: bytes) -> bytes:
        """An event that is none of the stream's, as this reader gets it: without a number, or not at all."""
        raise NotImplementedError

    @staticmethod
    def cut(run: bytes, count: int) -> int:
        """Where the first ``count`` events of a run end."""
        raise NotImplementedError


class EventIds(Numbering):
    """Server-sent events, which get ids.

    Args:
        last: Sequence of the event before the first that will be numbered.
    """

    __slots__ = ("_head", "_last")

    def __init__(self, stream_id: str, last: int = 0) -> None:
        self._head = b"id: %b:" % stream_id.encode()
        self._last = last

    @override
    def number(self, run: bytes) -> bytes:
        if b"\r" in run:
            ends = [match.end() for match in BOUNDARY.finditer(run)]
            return b"".join([self._block(run[start:end]) for start, end in pairwise([0, *ends])])
        if run.find(b"\n\n") + 2 == len(run):  # the usual run
            return self._block(run)
        return b"".join([self._block(block) + b"\n\n" for block in run[:-2].split(b"\n\n")])

    @override
    def safe(self, heartbeat: bytes) -> bytes:
        """A comment without a blank line after it."""
        return heartbeat.removesuffix(b"\n") if heartbeat.startswith(b":") else heartbeat

    @staticmethod
    @override
    def aside(event: bytes) -> bytes:
        """The reader's last id stays what it was."""
        return event

    @staticmethod
    @override
    def cut(run: bytes, count: int) -> int:
        ends = islice(BOUNDARY.finditer(run), count)
        return max((match.end() for match in ends), default=0)

    def _block(self, block: bytes) -> bytes:
        self._last += 1
        return b"%b%d\n%b" % (self._head, self._last, block)


class LineCount(Numbering):
    """Lines of JSON, which the reader counts; so that it can, heartbeats are marked."""

    @override
    def number(self, run: bytes) -> bytes:
        return run

    @override
    def safe(self, heartbeat: bytes) -> bytes:
        return heartbeat[: heartbeat.rindex(b"}")] + b',"heartbeat":true}\n' if heartbeat else heartbeat

    @staticmethod
    @override
    def aside(event: bytes) -> bytes:
        """The cut alone has to say it."""
        return b""

    @staticmethod
    @override
    def cut(run: bytes, count: int) -> int:
        end = 0
        for _ in range(count):
            end = run.find(b"\n", end) + 1 or len(run)
        return end


def numbering(stream_type: str, stream_id: str, last: int = 0) -> Numbering:
    """That of streams of this content type."""
    return EventIds(stream_id, last) if stream_type == SSE_TYPE else LineCount()
