"""The process for large bodies: whatever happens to it, each piece of work ends, and the next one is done."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from support.hanging import hang_limit

from edge.api.parsing import Parser
from edge.errors import BadRequest, Busy

HANG_S = 120.0


def count(body: bytes, letter: bytes) -> tuple[int, bytes]:
    return body.count(letter), body


def refuse(body: bytes) -> None:
    raise BadRequest(f"no: {len(body)}", param="model")


def lack_memory(_body: bytes) -> None:
    raise MemoryError


def die(_body: bytes) -> None:
    os._exit(1)


def give_what_cannot_be_pickled(_body: bytes) -> object:
    return lambda: None


def working_directory(_body: bytes) -> list[str]:
    return [entry for entry in sys.path if entry in ("", str(Path.cwd()))]


def is_there(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


@asynccontextmanager
async def parser(**given: float) -> AsyncIterator[Parser]:
    one = Parser(**given)
    try:
        async with hang_limit():
            yield one
    finally:
        pid = one.pid
        await one.close()
        assert pid is None or not is_there(pid), "it ends with Edge, and is no zombie"


async def test_one_process_does_one_after_the_other() -> None:
    async with parser() as one:
        large = bytearray(b"ab" * 500_000)
        answers = await asyncio.gather(*(one.run(count, large, letter) for letter in (b"a", b"b", b"c")))
        assert answers == [(500_000, large), (500_000, large), (0, large)]
        pid = one.pid
        assert await one.run(count, b"", b"a") == (0, b"")
        assert one.pid == pid


async def test_what_the_work_raises_is_raised_and_the_process_lives_on() -> None:
    async with parser() as one:
        with pytest.raises(BadRequest, match="no: 3") as told:
            await one.run(refuse, b"abc")
        assert told.value.param == "model"
        pid = one.pid
        with pytest.raises(RuntimeError, match="pickle"):
            await one.run(give_what_cannot_be_pickled, b"")
        assert (await one.run(count, b"aa", b"a"))[0] == 2
        assert one.pid == pid


@pytest.mark.parametrize("work", [die, lack_memory])
async def test_a_process_that_failed_is_followed_by_another(work) -> None:
    async with parser() as one:
        with pytest.raises(Busy) as told:
            await one.run(work, b"abc")
        assert told.value.headers["Retry-After"] == "1"
        assert (await one.run(count, b"aa", b"a"))[0] == 2


async def test_a_process_that_was_killed_meanwhile_is_not_noticed() -> None:
    async with parser() as one:
        await one.run(count, b"", b"a")
        pid = one.pid
        assert pid is not None
        kill(pid)
        assert (await one.run(count, b"aa", b"a"))[0] == 2
        assert one.pid != pid


async def test_only_edge_decides_when_it_ends() -> None:
    async with parser() as one:
        await one.run(count, b"", b"a")
        pid = one.pid
        assert pid is not None
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(pid, number)
        assert (await one.run(count, b"aa", b"a"))[0] == 2
        assert one.pid == pid


async def test_one_that_hangs_is_given_up_and_so_are_those_behind_it() -> None:
    async with parser() as one:
        await one.run(count, b"", b"a")
        assert one.pid is not None
        os.kill(one.pid, signal.SIGSTOP)
        one.within_s = 0.1
        waiting = [asyncio.create_task(one.run(count, b"aa", b"a")) for _ in range(2)]
        for answer in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(answer, Busy)
        assert one.pid is None
        one.within_s = HANG_S
        assert (await one.run(count, b"aa", b"a"))[0] == 2


async def test_a_client_that_leaves_leaves_no_half_of_its_request() -> None:
    async with parser() as one:
        await one.run(count, b"", b"a")
        assert one.pid is not None
        os.kill(one.pid, signal.SIGSTOP)
        leaving = asyncio.create_task(one.run(count, bytes(5_000_000), b"a"))
        waiting = asyncio.create_task(one.run(count, b"aa", b"a"))
        await asyncio.sleep(0.05)
        leaving.cancel()
        assert (await waiting)[0] == 2


async def test_where_none_can_be_started_work_is_refused_until_one_can(monkeypatch) -> None:
    async with parser() as one:
        with monkeypatch.context() as patched:
            patched.setattr(sys, "executable", "/nowhere/python")
            with pytest.raises(Busy):
                await one.run(count, b"", b"a")
        assert (await one.run(count, b"aa", b"a"))[0] == 2


async def test_an_idle_one_ends_and_gives_its_memory_back() -> None:
    async with parser(idle_s=0.0) as one:
        pids = set()
        for _ in range(2):
            running = asyncio.create_task(one.run(count, b"a", b"a"))
            while one.pid is None:
                await asyncio.sleep(0)
            pids.add(one.pid)
            assert (await running)[0] == 1
            while one.pid is not None or any(map(is_there, pids)):
                await asyncio.sleep(0.001)
        assert len(pids) == 2


async def test_it_imports_what_edge_does_and_nothing_from_the_working_directory(monkeypatch, tmp_path) -> None:
    (tmp_path / "edge").mkdir()
    (tmp_path / "edge" / "__init__.py").write_text("raise SystemExit")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    async with parser() as one:
        assert await one.run(working_directory, b"") == []
