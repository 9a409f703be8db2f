"""What is printed in a serving process past the log: warnings, tracebacks, whatever a library writes.

In: ``sys.stdout`` and ``sys.stderr`` as they are. Out: the same text on the same descriptors, by way of ``LineWriter``.
Must not: let a print wait for its reader, leave anything for the interpreter to flush at its end (which fails with
status 120 if nobody reads), or import what a parsing process does not need.

What writes to the descriptor itself, such as faulthandler's last words, is left alone.
"""

import io
import logging
import os
import sys
from contextlib import suppress

from edge.telemetry.line_writer import LineWriter, writer_for


class _Diverted(io.TextIOBase):
    """A text stream, buffered by lines."""

    encoding = "utf-8"  # click looks at it
    errors = "backslashreplace"

    def __init__(self, descriptor: int, writer: LineWriter, *, is_terminal: bool) -> None:
        self._descriptor = descriptor
        self._writer = writer
        self._is_terminal = is_terminal
        self._partial = ""

    def write(self, text: str) -> int:
        whole, end, rest = (self._partial + text).rpartition("\n")
        self._partial = rest
        if end:
            self._writer.put(f"{whole}\n".encode(errors=self.errors))
        return len(text)

    def flush(self) -> None:
        """Nothing: a line is on its way already, and the rest of one waits for its end."""

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return self._is_terminal

    def writable(self) -> bool:
        return True


def divert() -> None:
    """Have what this process prints written without waiting from now on, and warnings logged; idempotent."""
    _fill_closed()
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None or isinstance(stream, _Diverted):
            continue
        with suppress(OSError, ValueError):  # a stream of a test, without a descriptor
            stream.flush()
            descriptor = stream.fileno()
            setattr(sys, name, _Diverted(descriptor, writer_for(descriptor), is_terminal=stream.isatty()))
    logging.captureWarnings(capture=True)


def _fill_closed() -> None:
    """Open what was closed by whoever started this process: a socket or the store's file would get its number."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # takes the lowest number that is free
