"""A disk that hangs, as SQLite's threads meet it: a statement does not come back before the test lets it.

In: an opened ``SqliteFile``. Out: that its writer, or its reader, hangs in a statement of a kind. Must not: outlast the
test: leaving the block lets everything go on.
"""

import asyncio
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from edge.store.sqlite.batcher import SqliteFile
from support.hanging import HANG_S

SHORT_S = 0.05  # of patience, while nothing can answer anyway; a busy machine only makes it longer


class HungDisk:
    """See the module; use as a context manager.

    Args:
        file: It has been written to, and for ``reading`` read.
        statement: How the one begins in which it hangs.
        reading: The reader hangs, else the writer.
    """

    def __init__(self, file: SqliteFile, statement: str = "BEGIN", *, reading: bool = False) -> None:
        self._file = file
        self._statement = statement
        self._gate = threading.Event()
        self.hangs = asyncio.Event()
        connection = file._reader._connection if reading else file._writer.file.connection
        assert connection is not None
        self._trace: Callable[[Callable[[str], None] | None], None] = connection.set_trace_callback

    def __enter__(self) -> Self:
        loop = asyncio.get_running_loop()

        def trace(statement: str) -> None:
            if statement.lstrip().startswith(self._statement) and not self._gate.is_set():
                loop.call_soon_threadsafe(self.hangs.set)
                self._gate.wait(HANG_S)

        self._trace(trace)
        self._file.hung_s = SHORT_S
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.hung_s = HANG_S
        self._gate.set()
