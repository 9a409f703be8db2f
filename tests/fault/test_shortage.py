"""A moment without memory or threads, as a container's limits make it: it is told, it passes, and Edge can be ended."""

import asyncio
import resource
import signal
from pathlib import Path

import pytest
from fakes.model_server import FakeModel
from support.edge_process import EdgeProcess
from support.hanging import hang_limit
from support.raw import CHAT, Answer, RawClient, ask, chat_body

HANG_S = 120.0
ROOM = 6 * 2**20  # for a request; a stack takes 8 MiB
LARGE = chat_body(stream=False, picture="A" * 1_500_000)
SESSION = {"session_id": "s", "message": "hi"}


class Shortage:
    """Little more can be mapped: no thread has room for its stack, and no process for its libraries."""

    def __init__(self, edge: EdgeProcess) -> None:
        self._pid = edge.process.pid

    def begin(self) -> None:
        status = Path(f"/proc/{self._pid}/status").read_text()
        size = next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmSize"))
        resource.prlimit(self._pid, resource.RLIMIT_AS, (size + ROOM, resource.RLIM_INFINITY))

    def end(self) -> None:
        resource.prlimit(self._pid, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


async def streams(edge: EdgeProcess) -> Answer:
    async with RawClient(edge.port) as client:
        await client.get("/v1/streams")
        return await client.answer(HANG_S)


@pytest.mark.parametrize("passes", [True, False])
async def test_it_is_told_and_passes_and_sigterm_ends_the_process(
    tmp_path: Path, fake: FakeModel, passes: bool
) -> None:
    async with EdgeProcess(tmp_path, fake.url) as edge:
        await edge.ready()
        shortage = Shortage(edge)
        shortage.begin()
        assert (await ask(edge.port, CHAT, LARGE, timeout_s=HANG_S)).status == 503
        assert (await streams(edge)).status in (200, 503)
        assert (await ask(edge.port, "/v1/chat/stream", SESSION, timeout_s=HANG_S)).status in (200, 503)
        assert (await ask(edge.port, CHAT, chat_body(stream=False))).status == 200
        if passes:
            shortage.end()
            for _ in range(2):
                assert (await ask(edge.port, CHAT, LARGE, timeout_s=HANG_S)).status == 200
            async with hang_limit():
                while (await streams(edge)).status != 200:
                    await asyncio.sleep(0.05)  # the store tries again every two seconds
        edge.send_signal(signal.SIGTERM)
        assert await edge.wait(HANG_S) == 0
        assert edge.lines.of("bug") == []


async def test_a_first_name_to_look_up_does_not_end_the_process(tmp_path: Path, fake: FakeModel) -> None:
    """libuv starts its threads with the first name that is looked up, and aborts if it cannot."""
    async with EdgeProcess(tmp_path, fake.url, listen=f"unix:{tmp_path}/edge.sock") as edge:
        await edge.ready()
        edge.send_signal(signal.SIGHUP)  # the file is read in a thread, which stays
        await edge.lines.wait("reloaded")
        Shortage(edge).begin()
        named = fake.url.replace("127.0.0.1", "localhost")
        edge.configure(f'[discovery]\nenabled = false\n[[upstream]]\nname = "named"\nurl = "{named}"\n')
        edge.send_signal(signal.SIGHUP)
        await edge.lines.wait("reloaded", 2)
        await edge.lines.wait("upstream found", 2)
        assert edge.process.returncode is None
