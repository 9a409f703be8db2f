"""Several streams in one: events that say whose they are, and the cursor that says how far each of them has been read.

In: runs of whole events of any surface. Out: server-sent events for one ``EventSource``. Must not: know where streams
come from.

What a stream brings has no event name, so that it comes to ``onmessage``, whatever its surface calls its events; that
name is in the data. ``end`` and ``error`` come once per stream, ``done`` once for all.

The id of each event is a cursor: ``st_…:5,st_…:end,…``, for each stream the sequence of the event seen last, or ``end``
once its end has gone out; after ``done`` that word, too. It holds all there is to know about where a reader
is, so nothing has to be remembered between two of its connections.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from edge.errors import EdgeError
from edge.protocol.json_text import dumps
from edge.protocol.shapes import openai_body
from edge.protocol.sse import SSE_TYPE, events, one_line
from edge.protocol.surface_format import Progress, SurfaceFormat

ENDED = -1  # in the place of a sequence: its end has gone out
_HEARTBEAT = b": ping\n"
RETRY = b"retry: 1000\n"  # before the first event of a connection

_MARK = re.compile(r"(st_[0-9a-f]{32}):(0|[1-9][0-9]{0,15}|end)")
_DONE = "done"


@dataclass(frozen=True, slots=True)
class Marks:
    """How far a reader has got: by stream, the sequence of the event that it has seen last, or ``ENDED``.

    ``done``: that all have ended has gone out.
    """

    seen: Mapping[str, int] = field(default_factory=dict)
    done: bool = False


def parse_marks(text: str) -> Marks | None:
    """What a cursor says; None if it is none."""
    parts = text.split(",")
    done = parts[-1] == _DONE
    found = [_MARK.fullmatch(part) for part in (parts[:-1] if done else parts)]
    seen = {mark[1]: ENDED if mark[2] == "end" else int(mark[2]) for mark in found if mark is not None}
    return Marks(seen, done) if len(seen) == len(found) > 0 else None


@dataclass(frozen=True, slots=True)
class Tagged:
    """Events as the reader gets them.

    Attributes:
        data: Those events.
        count: How many there are.
        used: How many bytes of the run they are.
    """

    data: bytes
    count: int
    used: int


class MuxFormat(SurfaceFormat):
    """The events of these streams and what Edge says beside them, each with the cursor of one reader.

    Args:
        order: The streams.
        seen: What the reader has seen of them.
    """

    __slots__ = ("_marks", "_places", "_seen")

    def __init__(self, order: Sequence[str], seen: Mapping[str, int]) -> None:
        super().__init__(None, "")
        self._seen = {stream: seen.get(stream, 0) for stream in order}
        self._places = {stream: place for place, stream in enumerate(order)}
        self._marks = [_mark(stream, last) for stream, last in self._seen.items()]

    def beat(self, progress: Progress | None, *, lively: bool) -> bytes:  # noqa: ARG002 - a comment fits anywhere
        """A comment in one line, so that an event may follow it at once."""
        return _HEARTBEAT

    def error(self, error: EdgeError, progress: Progress) -> bytes:  # noqa: ARG002 - events need no numbers here
        """That the connection ends before its streams do."""
        return self._event("error", {"stream": None, **_failed(error)})

    def last(self, stream: str) -> int:
        """The sequence of the event seen last, or ``ENDED``."""
        return self._seen[stream]

    def events(self, stream: str, run: bytes, content_type: str, most: int) -> Tagged:
        """The first events of a run, about ``most`` bytes of what is made of them; one at least."""
        place, last = self._places[stream], self._seen[stream]
        before = b"id: " + b"".join(mark + b"," for mark in self._marks[:place]) + stream.encode()
        after = b"".join(b"," + mark for mark in self._marks[place + 1 :])
        made: list[bytes] = []
        size = used = 0
        for name, data, end in _pieces(run, content_type):
            last += 1
            fields = {"stream": stream, "seq": last, "event": name or None, "data": data.decode("utf-8", "replace")}
            made.append(b"%b:%d%b\ndata: %b\n\n" % (before, last, after, one_line(dumps(fields))))
            used = end
            size += len(made[-1])
            if size >= most:
                break
        self._note(stream, last)
        return Tagged(b"".join(made), len(made), used)

    def end(self, stream: str, outcome: str, error: EdgeError | None) -> bytes:
        """That a stream has ended, and how; what failed, if something did."""
        self._note(stream, ENDED)
        return self._event("end", {"stream": stream, "outcome": outcome, **_failed(error)})

    def lost(self, stream: str, error: EdgeError, *, final: bool) -> bytes:
        """That this reader gets no more of a stream; ``final``: nor will it if it comes back."""
        if final:
            self._note(stream, ENDED)
        return self._event("error", {"stream": stream, **_failed(error)})

    def done(self) -> bytes:
        """That all have ended."""
        return self._event("done", {"streams": len(self._marks)}, b"," + _DONE.encode())

    def _note(self, stream: str, last: int) -> None:
        self._seen[stream] = last
        self._marks[self._places[stream]] = _mark(stream, last)

    def _event(self, name: str, fields: Mapping[str, object], more: bytes = b"") -> bytes:
        cursor = b",".join(self._marks) + more
        return b"id: %b\nevent: %b\ndata: %b\n\n" % (cursor, name.encode(), one_line(dumps(fields)))


def _failed(error: EdgeError | None) -> dict[str, object]:
    return {} if error is None else {"error": openai_body(error)["error"]}


def _mark(stream: str, last: int) -> bytes:
    return f"{stream}:{'end' if last == ENDED else last}".encode()


def _pieces(run: bytes, content_type: str) -> Iterator[tuple[str, bytes, int]]:
    """Name, data and end of each event."""
    if content_type == SSE_TYPE:
        for event in events(run):
            yield event.event, event.data, event.end
        return
    start = 0
    while start < len(run):
        end = run.find(b"\n", start) + 1 or len(run)
        yield "", run[start:end].rstrip(b"\r\n"), end
        start = end
