"""Whoever reads the log may stop, leave, or have no room: Edge serves on, and ends as it always does."""

import asyncio
import fcntl
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from support.cli import environment, run_code
from support.hanging import hang_limit
from support.raw import CHAT, ask, chat_body
from support.shapes import get

HANG_S = 120.0
SIMULATED = {"EDGE_UPSTREAM_KIND": "simulator", "EDGE_UPSTREAM_PACE_S": "0"}


class Logged:
    """A process whose log goes into a pipe, and the reading end of that."""

    def __init__(self, process: asyncio.subprocess.Process, reading: int) -> None:
        self.process = process
        self.reading = reading
        self.port = 0

    async def until(self, text: bytes) -> bytes:
        """Read until this has come."""
        seen = b""
        while text not in seen or not seen.endswith(b"\n"):
            part = await asyncio.to_thread(os.read, self.reading, 65536)
            assert part, seen
            seen += part
        return seen

    async def talk(self, count: int) -> list[int]:
        """The statuses of so many small requests, each of which is two lines of the log."""
        body = chat_body(stream=False, model="echo")
        return [(await ask(self.port, CHAT, body)).status for _ in range(count)]

    async def ended(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        async with hang_limit():
            return await self.process.wait()


@asynccontextmanager
async def logged(**variables: str) -> AsyncIterator[Logged]:
    """``edge serve`` with a log pipe that is full after a few requests."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "edge", "serve", env=environment(**SIMULATED, **variables), stdout=writing, stderr=writing
    )
    os.close(writing)
    one = Logged(process, reading)
    try:
        seen = await one.until(b'"upstream found"')
        address = re.search(rb"http://127\.0\.0\.1:(\d+)", seen)
        assert address is not None
        one.port = int(address[1])
        yield one
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        with suppress(OSError):
            os.close(reading)


async def test_a_log_that_nobody_reads_stops_neither_answers_nor_the_end() -> None:
    """Each request is 1 KiB of log and the pipe takes 4. The pipe is still full when the process has ended."""
    async with logged() as edge:
        assert set(await edge.talk(30)) == {200}
        assert (await get(edge.port, "/health")).status == 200
        assert await edge.ended() == 0


async def test_lines_wait_for_a_reader_that_comes_back() -> None:
    async with logged() as edge:
        await edge.talk(30)
        seen = b""
        while seen.count(b'"event":"exchange"') < 30:
            seen += await edge.until(b"\n")
        assert b"lines dropped" not in seen
        assert await edge.ended() == 0


async def test_a_log_whose_reader_has_gone_changes_nothing() -> None:
    async with logged() as edge:
        os.close(edge.reading)
        assert set(await edge.talk(5)) == {200}
        assert await edge.ended() == 0


@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&-", ">&- 2>&- <&-", "2>/dev/full >/dev/full"])
async def test_a_full_disk_or_no_stderr_at_all_changes_nothing(redirection: str, tmp_path: Path) -> None:
    command = f'exec "{sys.executable}" -m edge serve {redirection}'
    listen = f"unix:{tmp_path}/edge.sock"
    process = await asyncio.create_subprocess_exec(
        "/bin/sh", "-c", command, env=environment(**SIMULATED, EDGE_SERVER_LISTEN=listen)
    )
    try:
        async with hang_limit():
            while True:
                with suppress(OSError):
                    reader, writer = await asyncio.open_unix_connection(tmp_path / "edge.sock")
                    break
                await asyncio.sleep(0.05)
        writer.write(b"GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n")
        assert b" 200 " in await reader.readline()
        writer.close()
        if "2>&-" in redirection:  # and no socket or file has taken the number of stderr
            assert Path(f"/proc/{process.pid}/fd/2").readlink() == Path(os.devnull)  # noqa: ASYNC240 - nothing else runs
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), HANG_S) == 0
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def test_a_mistake_in_the_configuration_is_an_end_too_when_nobody_reads(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writing, b"x" * 4096)
    os.set_blocking(writing, True)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "edge", "serve", "--config", tmp_path / "none", env=environment(), stderr=writing
    )
    try:
        assert await asyncio.wait_for(process.wait(), HANG_S) == 2
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        os.close(reading)
        os.close(writing)


PRINTS = """
import fcntl, os, sys, threading, warnings
from edge.telemetry.stray_output import divert
reading, writing = os.pipe()
fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
os.dup2(writing, 2)
os.dup2(writing, 1)
divert()
class Bad:
    def __del__(self):
        raise ValueError
def fail():
    raise ValueError
for _ in range(100):
    warnings.warn("odd")
    print("x" * 100)
    sys.stderr.write("x" * 100)
    Bad()
    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
fail()
"""


async def test_what_is_printed_past_the_log_waits_for_nobody_either() -> None:
    """Warnings, tracebacks of threads and of finalizers, prints, and the last traceback of all."""
    assert (await run_code(PRINTS)).status == 1


async def test_what_is_printed_past_the_log_is_there_to_be_read() -> None:
    printed = "divert(); print('out'); sys.stderr.write('a\\nb\\n')"
    done = await run_code(f"import sys; from edge.telemetry.stray_output import divert; {printed}")
    assert (done.status, done.out, done.err) == (0, "out\n", "a\nb\n")


async def test_who_is_refused_again_and_again_does_not_fill_the_log() -> None:
    async with logged(EDGE_AUTH_KEYS="canary-key-of-a-client") as edge:
        statuses = [(await get(edge.port, "/v1/models")).status for _ in range(300)]
        assert set(statuses) == {401, 429} or set(statuses) == {401}
        reading = asyncio.create_task(edge.until(b'"event":"stopped"'))
        assert await edge.ended() == 0
        lines = [line for line in (await reading).split(b"\n") if b'"refused"' in line]
    more = [int(found[1]) for line in lines if (found := re.search(rb'"more":(\d+)', line))]
    assert len(lines) - len(more) + sum(more) == 300
    assert len(lines) <= 11 * len(set(statuses))
