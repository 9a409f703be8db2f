"""The fake model server as a child process.

In: a core. Out: its URL and its counts. Must not: serve by itself (``server`` does).
"""

import json
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from processes import Process

from edge.cli.bench_load import Target, fetch

_HERE = Path(__file__).parent
_ASK_S = 5.0


class Model:
    """A running fake model server, as a context manager."""

    def __init__(self, core: int, folder: Path) -> None:
        argv = [sys.executable, str(_HERE / "server.py")]
        self._process = Process(argv, core, folder / "model.log", piped=True)
        self.port = 0
        self.url = ""

    def __enter__(self) -> Self:
        self._process.__enter__()
        words = self._process.out.readline().split()
        if len(words) != 2:
            why = self._process.ended()
            self._process.__exit__(None, None, None)
            raise RuntimeError(f"the model server did not start: {why}")
        self.port = int(words[1])
        self.url = f"http://127.0.0.1:{self.port}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.__exit__(kind, error, trace)

    async def stats(self) -> dict[str, int]:
        """See ``server.Stats``."""
        target = Target.parse(self.url)
        _, body = await fetch(target, target.get("/stats"), _ASK_S)
        return json.loads(body)
