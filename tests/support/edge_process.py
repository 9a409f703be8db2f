"""Edge as its users run it: a process of its own, configured by a file, ended by signals."""

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import orjson

from support.hanging import HANG_S, hang_limit
from support.running import Lines

START_S = HANG_S


class EdgeProcess:
    """``python -m edge serve`` in front of ``upstream``, for which ``sets`` is set; ``sections`` as in ``running``."""

    process: asyncio.subprocess.Process
    port: int

    def __init__(
        self,
        directory: Path,
        upstream: str,
        sets: Mapping[str, Any] | None = None,
        listen: str | None = "127.0.0.1:0",
        **sections: Mapping[str, Any],
    ) -> None:
        self._listen = () if listen is None else ("--listen", listen)
        self._config = directory / "edge.toml"
        place = _keys({"name": "up", "url": upstream, **(sets or {})})
        self.configure(f"{_toml({'discovery': {'enabled': False}, **sections})}[[upstream]]\n{place}")
        # glibc gives what is larger than this straight back to the system: then memory tells what is held, and not what
        # the allocator keeps for later.
        self.environ = {
            "PATH": os.environ["PATH"],
            "MALLOC_MMAP_THRESHOLD_": "1000000",
            "XDG_STATE_HOME": str(directory),
            "XDG_RUNTIME_DIR": str(directory),
        }
        self.prefix: list[str] = []  # words before the command
        self.lines = Lines()

    def configure(self, text: str) -> None:
        """Write the configuration file anew."""
        self._config.write_text(text)

    async def __aenter__(self) -> Self:
        self.process = await asyncio.create_subprocess_exec(
            *(*self.prefix, sys.executable, "-m", "edge", "serve", "--config", self._config, *self._listen),
            env=self.environ,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        self._reading = asyncio.create_task(self._read())
        try:
            listening = (await self.lines.wait("listening"))[0]
        except BaseException:
            await self.__aexit__()
            raise
        address = listening["addresses"][0]
        self.port = int(address.rsplit(":", 1)[1]) if address.startswith("http") else 0
        return self

    async def __aexit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)  # and its successors, which log into the same pipe
        await self.process.wait()
        await self._reading

    @property
    def successors(self) -> list[int]:
        """Process ids of those that have taken over, the last of them serves."""
        return [line["pid"] for line in self.lines.of("replaced")]

    async def ready(self) -> None:
        """Wait until its upstream has been found."""
        await self.lines.wait("upstream found")

    def send_signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def wait(self, timeout_s: float = HANG_S) -> int:
        """Its exit status."""
        async with hang_limit(timeout_s):
            return await self.process.wait()

    def memory(self) -> int:
        """Resident bytes that are its own (code shared with others left out)."""
        text = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text()
        return sum(int(kilobytes) * 1024 for kilobytes in re.findall(r"Private_\w+: +(\d+) kB", text))

    def peak_memory(self) -> int:
        """The most resident bytes there ever were."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("VmHWM"))

    def children(self) -> set[int]:
        """Process ids of its children."""
        tasks = Path(f"/proc/{self.process.pid}/task").iterdir()
        return {int(pid) for task in tasks for pid in (task / "children").read_text().split()}

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            with contextlib.suppress(orjson.JSONDecodeError):
                self.lines.write(line.decode())


def _toml(sections: Mapping[str, Mapping[str, Any]]) -> str:
    """JSON's scalars and lists of scalars are TOML's too."""
    return "".join(f"[{name}]\n{_keys(section)}" for name, section in sections.items())


def _keys(section: Mapping[str, Any]) -> str:
    return "".join(f"{key} = {orjson.dumps(value).decode()}\n" for key, value in section.items())
