"""Server-sent events: an incremental, bounded splitter, a block parser and an encoder.

In: bytes as they came from the network, cut anywhere. Out: runs of whole events, then single events.
Must not: decode JSON, know a dialect, or hold more than ``max_event_bytes`` of an unfinished event.

Format: WHATWG HTML Living Standard, section 9.2 "Server-sent events". A line ends with LF, CRLF or CR; a blank
line ends an event; a line that starts with a colon is a comment.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from edge.protocol.json_text import dumps

# Atomic groups: without them CRLF would match as CR followed by LF, that is as a blank line. The group is the event's
# own end; further blank lines belong to no event.
BOUNDARY = re.compile(rb"((?>\r\n|\n|\r)(?>\r\n|\n|\r))(?>\r\n|\n|\r)*")
_HALFBOUNDARY = 3  # bytes: the longest start of a boundary that may still be completed, CR LF CR
_LINE_END = re.compile(rb"\r\n|\n|\r")
_BOM = b"\xef\xbb\xbf"


class EventTooLarge(ValueError):
    """An event is over the bound.

    Args:
        limit: The bound, in bytes.
        before: The whole events that came before it in the same read.
    """

    def __init__(self, limit: int, before: bytes) -> None:
        super().__init__(f"an event is over {limit} bytes")
        self.before = before


class SseSplitter:
    """Cuts a byte stream into runs of whole events.

    Args:
        max_event_bytes: How long an event may be before ``EventTooLarge`` is raised.
    """

    __slots__ = ("_buffer", "_first", "_scanned", "max_event_bytes")

    def __init__(self, max_event_bytes: int) -> None:
        self._buffer = bytearray()  # always the same object
        self._scanned = 0
        self.max_event_bytes = max_event_bytes
        self._first = True

    @property
    def held(self) -> bytearray:
        """What is held of an event that has not ended; not to be changed, and the same object for ever."""
        return self._buffer

    def feed(self, data: bytes) -> bytes:
        """Return the whole events that ``data`` completes, in order; keep the rest.

        Raises:
            EventTooLarge: an event, finished or not, is over the bound; nothing may be fed after it.
        """
        if self._first:
            data = self._strip_bom(data)
        buffer = self._buffer
        if b"\r" not in data:
            # The usual read: LF events, mostly whole. Two scans in C; going over each boundary instead cost 40 times
            # as much for a read of many events.
            end = data.rfind(b"\n\n") + 2
            if end > 1 and len(buffer) + end <= self.max_event_bytes and len(data) - end <= self.max_event_bytes:
                if not buffer and end == len(data):
                    return data
                whole = bytes(buffer) + data[:end]
                buffer[:] = data[end:]
                self._scanned = max(0, len(buffer) - _HALFBOUNDARY)
                return whole
        buffer += data
        end = self._last_boundary()
        whole = bytes(self._buffer[:end])
        del self._buffer[:end]
        # What is left is looked at once, not again with each read: else a large event in small reads is quadratic.
        self._scanned = max(0, len(self._buffer) - _HALFBOUNDARY)
        return whole

    def rest(self) -> bytes:
        """What is left at the end of the body: empty, or an event that was never finished."""
        left = bytes(self._buffer)
        self._buffer.clear()
        self._scanned = 0
        return left

    def _strip_bom(self, data: bytes) -> bytes:
        held = bytes(self._buffer) + data
        self._buffer.clear()
        if len(held) < len(_BOM) and _BOM.startswith(held):
            self._buffer += held
            return b""
        self._first = False
        return held.removeprefix(_BOM)

    def _last_boundary(self) -> int:
        end = 0
        for match in BOUNDARY.finditer(self._buffer, self._scanned):
            if match.end(1) - end > self.max_event_bytes:
                raise EventTooLarge(self.max_event_bytes, bytes(self._buffer[:end]))
            if match.end() == len(self._buffer) and self._buffer.endswith(b"\r"):
                break  # it may be half of a CRLF: cutting there would leave a stray LF before the next event
            end = match.end()
        if len(self._buffer) - end > self.max_event_bytes:
            raise EventTooLarge(self.max_event_bytes, bytes(self._buffer[:end]))
        return end


class Event(NamedTuple):
    """One event: its type, its data (lines joined with LF), the bytes to relay for it, and where it ends in the run."""

    event: str
    data: bytes
    raw: bytes
    end: int


def events(whole: bytes, start: int = 0) -> Iterator[Event]:
    """Parse a run of whole events, from ``start`` on.

    Comments, ``id:`` and ``retry:`` lines are left out of ``raw``: Edge makes its own heartbeats, and an ``id:`` line
    would make the official OpenAI client choke on them. Blocks without data yield nothing. An event that has none of
    these keeps its bytes exactly.
    """
    if b"\r" not in whole:
        # What nearly every server sends: 0.8 µs an event of one line, instead of 5.
        while (end := whole.find(b"\n\n", start)) >= 0:
            block = whole[start:end]
            if block.startswith(b"data: ") and b"\n" not in block:
                yield Event("", block[6:], block + b"\n\n", end + 2)
            elif (parsed := _block(block, b"\n\n", end + 2)) is not None:
                yield parsed
            start = end + 2
    else:
        for match in BOUNDARY.finditer(whole, start):
            if (parsed := _block(whole[start : match.start()], match[1], match.end())) is not None:
                yield parsed
            start = match.end()
    if (parsed := _block(whole[start:].rstrip(b"\r\n"), b"\n\n", len(whole))) is not None:
        yield parsed


def _block(block: bytes, separator: bytes, end: int) -> Event | None:
    block = block.lstrip(b"\r\n")
    name = ""
    data: list[bytes] = []
    kept: list[bytes] = []
    dropped = False
    for line in _LINE_END.split(block):
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field in (b"", b"id", b"retry"):
            dropped = True
            continue
        kept.append(line)
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value.decode("utf-8", "replace")
    if not data:
        return None
    raw = b"\n".join(kept) + b"\n\n" if dropped else block + separator
    return Event(name, b"\n".join(data), raw, end)


def one_line(json: bytes) -> bytes:
    """JSON without the further characters at which ``str.splitlines`` ends a line, as ollama-python and httpx do.

    They can only be inside of strings, where their escapes mean the same.
    """
    if json.isascii():
        return json
    if b"\xe2\x80" in json:
        json = json.replace(b"\xe2\x80\xa8", b"\\u2028").replace(b"\xe2\x80\xa9", b"\\u2029")
    return json.replace(b"\xc2\x85", b"\\u0085") if b"\xc2\x85" in json else json


def encode(payload: object, event: str | None = None) -> bytes:
    """One event with ``payload`` as one line of JSON, whatever the text in it."""
    head = b"" if event is None else b"event: " + event.encode() + b"\n"
    return head + b"data: " + one_line(dumps(payload)) + b"\n\n"


SSE_TYPE = "text/event-stream; charset=utf-8"
COMMENT_HEARTBEAT = b": ping\n\n"
DONE = b"data: [DONE]\n\n"
