"""What ``edge serve`` tells a service manager, over the real socket."""

import signal
import time
import uuid
from pathlib import Path

import pytest
from fakes.model_server import DONE, FakeModel, chat_finish, chat_token, chunk, end, gate, head
from support.cli import serving
from support.notified import Ear
from support.raw import CHAT, RawClient, chat_body

from edge.service.attend import Attendant
from edge.service.notify import Notifier, watchdog_s


@pytest.fixture(params=["path", "abstract"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "notify") if request.param == "path" else f"@edge-test-{uuid.uuid4()}"


async def test_ready_is_told_once_it_listens_and_has_looked_and_stopping_when_it_drains(
    address: str, fake: FakeModel
) -> None:
    with Ear(address) as ear:
        async with serving(NOTIFY_SOCKET=address, EDGE_UPSTREAM_NAME="up", EDGE_UPSTREAM_URL=fake.url) as edge:
            ready = await ear.next("READY")
            assert ready == {"READY": "1", "STATUS": "0 streams; upstreams: up up"}
            edge.signal(signal.SIGTERM)
            stopping = await ear.next("STOPPING")
            assert (await edge.ended()).status == 0
    assert int(stopping["EXTEND_TIMEOUT_USEC"]) > 30_000_000  # the drain's default and more
    assert ear.heard == [ready, stopping]  # no watchdog without WATCHDOG_USEC, no status that is the same


async def test_the_status_tells_streams_and_the_drain(tmp_path: Path, fake: FakeModel) -> None:
    fake.script(head(), chunk(chat_token("a")), gate("rest"), chunk(chat_finish() + DONE), end())
    with Ear(str(tmp_path / "notify")) as ear:
        async with serving(NOTIFY_SOCKET=ear.address, EDGE_UPSTREAM_URL=fake.url) as edge:
            await ear.next("READY")
            async with RawClient(edge.port) as client:
                await client.post(CHAT, chat_body())
                assert (await ear.next("STATUS"))["STATUS"].startswith("1 stream; upstreams: ")
                edge.signal(signal.SIGTERM)
                await ear.next("STOPPING")
                assert (await ear.next("STATUS"))["STATUS"] == "draining: 1 stream left"
                fake.open("rest")
                assert (await edge.ended()).status == 0


async def test_the_watchdog_is_fed_by_a_loop_that_turns_and_by_no_other(tmp_path: Path) -> None:
    with Ear(str(tmp_path / "notify")) as ear:
        async with serving(NOTIFY_SOCKET=ear.address, WATCHDOG_USEC="400000") as edge:
            await ear.next("READY")
            begun = time.monotonic()
            for _ in range(4):
                await ear.next("WATCHDOG")
            assert time.monotonic() - begun > 0.5  # after the first, each half of the limit
            edge.signal(signal.SIGSTOP)
            await ear.silence(1)  # five times its period
            edge.signal(signal.SIGCONT)
            await ear.next("WATCHDOG")


async def test_a_reload_is_bracketed_and_a_takeover_names_the_process(tmp_path: Path) -> None:
    with Ear(str(tmp_path / "notify")) as ear:
        attendant = Attendant(Notifier(ear.address), 0.2, lambda: "well")
        attendant.ready()
        await ear.next("READY")
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        attendant.reloading()
        reloading = await ear.next("RELOADING")
        assert before <= int(reloading["MONOTONIC_USEC"]) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        attendant.ready()
        assert await ear.next("READY") == {"READY": "1", "STATUS": "well"}
        attendant.hand_over(4711)
        assert await ear.next("MAINPID") == {"MAINPID": "4711"}
        told = len(ear.heard)
        await ear.silence(0.3)

        assert len(ear.heard) == told  # the other one feeds the watchdog now


async def test_a_status_is_one_line_whatever_is_in_it(tmp_path: Path) -> None:
    with Ear(str(tmp_path / "notify")) as ear:
        assert Notifier(ear.address).status("up\nMAINPID=1\r\x1b[2J\udc80 end")
        assert await ear.next("STATUS") == {"STATUS": "up MAINPID=1 [2J  end"}


@pytest.mark.parametrize("address", [None, "", "/", "vsock:2:1", "/nobody/is/here"])
def test_without_a_manager_it_is_silent(address: str | None) -> None:
    told = Notifier(address)
    told.ready()
    told.stopping(1)
    assert not told.status("x")


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "20000000"}, 20.0),
        ({"WATCHDOG_USEC": "20000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
    ids=str,
)
def test_the_watchdog_is_only_for_the_process_that_is_watched(environ: dict[str, str], expected: float | None) -> None:
    assert watchdog_s(environ) == expected
