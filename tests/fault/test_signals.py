"""Signals while requests run: whatever comes, and in whatever order, nothing of Edge is left behind."""

import asyncio
import contextlib
import os
import signal
from pathlib import Path

import pytest
from fakes.model_server import FakeModel, chat_role, chat_token, chunk, head, stall
from support.edge_process import EdgeProcess
from support.hanging import hang_limit
from support.raw import CHAT, RawClient, ask, chat_body

HANGING_S = 120.0
STREAMS = 10
LARGE = chat_body(messages=[{"role": "user", "content": "x" * 1_200_000}])  # parsed by a process of its own
SEQUENCES = {
    "term": [signal.SIGTERM],
    "int twice": [signal.SIGINT, signal.SIGINT],
    "hup, term": [signal.SIGHUP, signal.SIGTERM],
    "usr2, term": [signal.SIGUSR2, signal.SIGTERM],
}


@pytest.mark.parametrize("numbers", SEQUENCES.values(), ids=SEQUENCES)
async def test_nothing_is_left_behind(fake: FakeModel, tmp_path: Path, numbers: list[signal.Signals]) -> None:
    temporary, runtime = tmp_path / "tmp", tmp_path / "run"
    temporary.mkdir()
    runtime.mkdir(mode=0o700)
    edge = EdgeProcess(tmp_path, fake.url, server={"drain_s": 0.3})
    edge.environ |= {"TMPDIR": str(temporary), "XDG_RUNTIME_DIR": str(runtime)}
    async with edge, contextlib.AsyncExitStack() as stack:
        await edge.ready()
        clients = [await stack.enter_async_context(RawClient(edge.port)) for _ in range(STREAMS)]
        assert (await ask(edge.port, CHAT, LARGE, timeout_s=HANGING_S)).status == 200
        for client in clients:
            fake.script(head(), chunk(chat_role() + chat_token("tok")), stall())
            await client.post(CHAT, chat_body())
            await client.until(b"tok", HANGING_S)
        for number in numbers:
            edge.send_signal(number)
        status = await edge.wait(HANGING_S)
        assert status in (0, 128 + numbers[-1])
        for client in clients:
            assert not (await client.answer(HANGING_S)).clean
        await gone(edge)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", edge.port)
        assert [path for path in (*temporary.rglob("*"), *runtime.rglob("*")) if not path.is_dir()] == []


async def gone(edge: EdgeProcess) -> None:
    """Wait until no process of its session is left; a successor, if there is one yet, has been told to end too."""
    async with hang_limit():
        while left := members(edge.process.pid):
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    if pid in edge.successors:
                        os.kill(pid, signal.SIGTERM)
            await asyncio.sleep(0.02)


def members(session: int) -> list[int]:
    """The processes of a session that are no zombies."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, _, of_session = path.read_text().rpartition(")")[2].split()[:4]
            if int(of_session) == session and state != "Z":
                found.append(int(path.parent.name))
    return found
