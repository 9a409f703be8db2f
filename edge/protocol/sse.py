"""Server-sent events: an incremental, bounded splitter, a block parser and an encoder.

In: bytes as they came from the network, cut anywhere. Out: runs of whole events, then single events.
Must not: decode JSON, know a dialect, or hold more than ``max_event_bytes`` of an unfinished event.

Format: WHATWG HTML Living Standard, section 9.2 "Server-sent events". A line ends with LF, CRLF or CR; a blank
line ends an event; a line that starts with a colon is a comment.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import orjson

# Atomic groups: without them CRLF would match as CR followed by LF, that is as a blank line.
_BOUNDARY = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)+")
_LINE_END = re.compile(rb"\r\n|\n|\r")
_BOM = b"\xef\xbb\xbf"


class EventTooLarge(ValueError):
    """An event did not end within the bound."""


class SseSplitter:
    """Cuts a byte stream into runs of whole events.

    Args:
        max_event_bytes: How long an unfinished event may grow before ``EventTooLarge`` is raised.
    """

    __slots__ = ("_buffer", "_first", "_max", "_scanned")

    def __init__(self, max_event_bytes: int) -> None:
        self._buffer = bytearray()
        self._scanned = 0
        self._max = max_event_bytes
        self._first = True

    @property
    def pending(self) -> int:
        """Bytes held of an event that has not ended."""
        return len(self._buffer)

    def feed(self, data: bytes) -> bytes:
        """Return the whole events that ``data`` completes, in order; keep the rest.

        Raises:
            EventTooLarge: the unfinished event is over the bound.
        """
        if self._first:
            data = self._strip_bom(data)
        if not self._buffer:
            # The usual read is exactly some whole LF events: no copy, no scan but two memchr-like ones.
            if data.endswith(b"\n\n") and b"\r" not in data:
                return data
            self._scanned = 0
        self._buffer += data
        end = self._last_boundary()
        if end == 0:
            # Three bytes: the longest start of a boundary that may still be completed.
            self._scanned = max(0, len(self._buffer) - 3)
            if len(self._buffer) > self._max:
                raise EventTooLarge(f"an event is over {self._max} bytes")
            return b""
        whole = bytes(self._buffer[:end])
        del self._buffer[:end]
        self._scanned = 0
        if len(self._buffer) > self._max:
            raise EventTooLarge(f"an event is over {self._max} bytes")
        return whole

    def rest(self) -> bytes:
        """What is left at the end of the body: empty, or an event that was never finished."""
        left = bytes(self._buffer)
        self._buffer.clear()
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
        for match in _BOUNDARY.finditer(self._buffer, self._scanned):
            end = match.end()
        # A CR at the very end may be half of a CRLF: cutting there would leave a stray LF before the next event.
        if end == len(self._buffer) and end and self._buffer[-1:] == b"\r":
            return 0 if end == 1 else self._boundary_before(end)
        return end

    def _boundary_before(self, limit: int) -> int:
        end = 0
        for match in _BOUNDARY.finditer(self._buffer, self._scanned):
            if match.end() < limit:
                end = match.end()
        return end


@dataclass(frozen=True, slots=True)
class Event:
    """One event: its type, its data (lines joined with LF), and the bytes to relay for it."""

    event: str
    data: bytes
    raw: bytes


def events(whole: bytes) -> Iterator[Event]:
    """Parse a run of whole events.

    Comments, ``id:`` and ``retry:`` lines are left out of ``raw``: Edge makes its own heartbeats, and an ``id:`` line
    would make the official OpenAI client choke on them. Blocks without data yield nothing. An event that has none of
    these keeps its bytes exactly.
    """
    start = 0
    for match in _BOUNDARY.finditer(whole):
        block = whole[start : match.start()]
        separator = match.group()
        start = match.end()
        parsed = _block(block, separator)
        if parsed is not None:
            yield parsed
    if start < len(whole):
        parsed = _block(whole[start:].rstrip(b"\r\n"), b"\n\n")
        if parsed is not None:
            yield parsed


def _block(block: bytes, separator: bytes) -> Event | None:
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
    return Event(name, b"\n".join(data), raw)


def encode(payload: object, event: str | None = None) -> bytes:
    """One event with ``payload`` as one line of JSON, whatever the text in it."""
    head = b"" if event is None else b"event: " + event.encode() + b"\n"
    return head + b"data: " + orjson.dumps(payload) + b"\n\n"


COMMENT_HEARTBEAT = b": ping\n\n"
DONE = b"data: [DONE]\n\n"
