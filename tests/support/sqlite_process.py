"""A process of its own that has streams in an SQLite file: ``python -m support.sqlite_process FILE STREAMS``.

It writes the ids of its streams in one line, then adds events to each for ever, until it is killed. A stream that is to
be stopped ends so, and then its id is written, and whether it is kept.
"""

import asyncio
import itertools
import sys
import time
from pathlib import Path

from contract.kept_streams import Heard

from edge.settings import Store
from edge.store.ports import Ending, StreamLog, StreamMeta
from edge.store.sqlite.batcher import SqliteFile
from edge.store.sqlite.streams import SqliteStreams


def event(number: int) -> bytes:
    """Of sequence ``number``."""
    return b"data: \x00%d\n\n" % number


class _Stops(Heard):
    """Ends what is to be stopped."""

    def __init__(self, logs: dict[str, StreamLog]) -> None:
        super().__init__()
        self._logs = logs

    def stop_asked(self, stream_id: str) -> None:
        ending = Ending("cancelled", clean=False, at=time.time(), status=499)
        self._logs.pop(stream_id).end(ending, "up", 0, lambda kept: _tell(stream_id, str(kept)))


def _tell(*words: str) -> None:
    sys.stdout.write(" ".join(words) + "\n")
    sys.stdout.flush()


async def _run(path: Path, streams: int) -> None:
    logs: dict[str, StreamLog] = {}
    store = SqliteStreams(SqliteFile(path, _Stops(logs)), Store())
    for number in range(streams):
        meta = StreamMeta(f"st_c{number:031x}", "a", "chat", "m", None, "req_1", time.time(), 2**20)
        logs[meta.id] = store.begin(meta)
    _tell(*logs)
    for number in itertools.count(1):
        for log in logs.values():
            log.append(event(number), 1)
        await asyncio.sleep(0.001)


if __name__ == "__main__":
    asyncio.run(_run(Path(sys.argv[1]), int(sys.argv[2])))
