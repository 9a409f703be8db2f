"""Newline-delimited JSON: an incremental, bounded splitter, a line parser and an encoder.

In: bytes as they came from the network, cut anywhere. Out: runs of whole lines, then single lines. Must not: decode
JSON, know a dialect, or hold more than ``max_event_bytes`` of an unfinished line.
"""

from collections.abc import Iterator

from edge.protocol.json_text import dumps
from edge.protocol.sse import Event, EventTooLarge, one_line


class LineSplitter:
    """Cuts a byte stream into runs of whole lines; see ``sse.SseSplitter``."""

    __slots__ = ("_buffer", "max_event_bytes")

    def __init__(self, max_event_bytes: int) -> None:
        self._buffer = bytearray()  # always the same object
        self.max_event_bytes = max_event_bytes

    @property
    def held(self) -> bytearray:
        """What is held of a line that has not ended; not to be changed, and the same object for ever."""
        return self._buffer

    def feed(self, data: bytes) -> bytes:
        """Return the whole lines that ``data`` completes, in order; keep the rest.

        Raises:
            EventTooLarge: a line, finished or not, is over the bound; nothing may be fed after it.
        """
        buffer, most = self._buffer, self.max_event_bytes
        end = data.rfind(b"\n") + 1
        whole = bytes(buffer) + data[:end] if end else b""
        if end:
            buffer[:] = data[end:]
        else:
            buffer += data
        if len(buffer) > most:
            raise EventTooLarge(most, whole)
        if len(whole) > most:
            self._check(whole)
        return whole

    def rest(self) -> bytes:
        """What is left at the end of the body: a last line without its end is whole if it is JSON."""
        left = bytes(self._buffer)
        self._buffer.clear()
        return left

    def _check(self, whole: bytes) -> None:
        start = 0
        while (end := whole.find(b"\n", start)) >= 0:
            if end + 1 - start > self.max_event_bytes:
                raise EventTooLarge(self.max_event_bytes, whole[:start])
            start = end + 1


def lines(whole: bytes, start: int = 0) -> Iterator[Event]:
    """The lines of a run, from ``start`` on; empty ones are left out."""
    while start < len(whole):
        end = whole.find(b"\n", start) + 1 or len(whole)
        line = whole[start:end].rstrip(b"\r\n")
        if line.strip():
            yield Event("", line, line + b"\n", end)
        start = end


def encode_line(payload: object) -> bytes:
    """One line, whatever the text in it."""
    return one_line(dumps(payload)) + b"\n"
