"""``edge serve`` as a process: how it begins, how it ends, and what it says when it cannot begin."""

import os
import signal
import socket
import time
from pathlib import Path

import orjson
import pytest
from fakes.model_server import DONE, FakeModel, chat_finish, chat_token, chunk, end, gate, head
from support.cli import run, serving
from support.raw import CHAT, RawClient, ask, chat_body
from support.shapes import get
from support.unprivileged import CAN_BE_PLAIN, PLAIN, take_away

KEY = "canary-key-of-a-client"


async def test_it_serves_until_it_is_told_to_stop(fake: FakeModel) -> None:
    async with serving(EDGE_UPSTREAM_URL=fake.url, EDGE_AUTH_KEYS=KEY) as edge:
        await edge.line("upstream found")
        answer = await ask(edge.port, CHAT, chat_body(), {"x-api-key": KEY})
        assert (answer.status, answer.events[-1]) == (200, DONE)
        done = await edge.signalled(signal.SIGTERM)
    assert done.status == 0
    assert '"event":"exchange"' in done.err
    assert '"event":"stopped"' in done.err_lines[-1]
    assert KEY not in done.err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=str)
async def test_either_signal_ends_it_with_status_0_whenever_it_comes(number: int) -> None:
    """Here as soon as it listens: its first look at the upstreams may still be under way."""
    async with serving() as edge:
        done = await edge.signalled(number)
    assert done.status == 0
    assert "Traceback" not in done.err


async def test_running_streams_end_before_it_does(fake: FakeModel) -> None:
    fake.script(head(), chunk(chat_token("a")), gate("rest"), chunk(chat_finish() + DONE), end())
    async with serving(EDGE_UPSTREAM_URL=fake.url) as edge:
        await edge.line("upstream found")
        async with RawClient(edge.port) as client:
            await client.post(CHAT, chat_body())
            await client.until(b'"a"')
            edge.signal(signal.SIGTERM)
            assert (await edge.line("draining"))["streams"] == 1
            fake.open("rest")
            answer = await client.answer()
        assert (answer.clean, answer.events[-1]) == (True, DONE)
        assert (await edge.ended()).status == 0


async def test_a_second_signal_ends_it_at_once(fake: FakeModel) -> None:
    fake.script(head(), chunk(chat_token("a")), gate("never"))
    async with serving(EDGE_UPSTREAM_URL=fake.url) as edge, RawClient(edge.port) as client:
        await edge.line("upstream found")
        await client.post(CHAT, chat_body())
        await client.until(b'"a"')
        edge.signal(signal.SIGINT)
        await edge.line("draining")
        edge.signal(signal.SIGINT)
        assert (await edge.ended()).status == 128 + signal.SIGINT


async def test_the_command_line_overrides_where_to_listen(tmp_path: Path) -> None:
    unix = f"unix:{tmp_path}/edge.sock"
    listen = ("--listen", "127.0.0.1:0", "--listen", unix)
    async with serving(*listen, EDGE_SERVER_LISTEN="192.0.2.1:1", EDGE_AUTH_ALLOW_ANONYMOUS="true") as edge:
        assert (await get(edge.port, "/health")).status == 200
        assert (tmp_path / "edge.sock").is_socket()
        await edge.signalled(signal.SIGTERM)
    assert list(tmp_path.iterdir()) == []  # noqa: ASYNC240 - nothing else runs now


async def test_a_taken_address_is_one_clear_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = await run("serve", "--listen", "127.0.0.1:0", "--listen", address)
    assert (done.status, done.out) == (1, "")
    why = f"edge: cannot listen on {address}: Address already in use; choose another with --port"
    assert done.err_lines == [why]


async def test_a_unix_socket_of_another_process_is_not_taken_from_it(tmp_path: Path) -> None:
    unix = f"unix:{tmp_path}/edge.sock"
    async with serving("--listen", unix):
        done = await run("serve", "--listen", unix)
        assert (done.status, done.err_lines) == (1, [f"edge: cannot listen on {unix}: Address already in use"])
        assert (tmp_path / "edge.sock").is_socket()


async def test_a_unix_socket_that_a_killed_process_left_is_replaced(tmp_path: Path) -> None:
    unix = f"unix:{tmp_path}/edge.sock"
    async with serving("--listen", unix) as edge:
        await edge.signalled(signal.SIGKILL)
    async with serving("--listen", unix) as edge:
        assert (await edge.signalled(signal.SIGTERM)).status == 0


async def test_every_mistake_in_the_configuration_is_a_line(tmp_path: Path) -> None:
    file = tmp_path / "edge.toml"
    file.write_text('[server]\nlisten = ["0.0.0.0:1"]\n[stream]\ntotal = 5\nheartbeat_s = 0\n[srever]\n')
    done = await run("serve", "--config", str(file), EDGE_SERVER_LISTEN="", EDGE_STREAM_CONNECT_S="soon")
    assert (done.status, done.out) == (2, "")
    assert [line.rsplit(": ", 2)[-2] for line in done.err_lines] == [
        "server.listen", "stream.total", "stream.heartbeat_s", "srever", "stream.connect_s",
    ]  # fmt: skip


async def test_a_variable_that_is_no_setting_is_warned_of(fake: FakeModel) -> None:
    async with serving(EDGE_UPSTREAM_URL=fake.url, EDGE_HEARTBEAT="1") as edge:
        done = await edge.signalled(signal.SIGTERM)
    assert done.status == 0
    assert "EDGE_HEARTBEAT is ignored" in done.err


class TestSimulate:
    """``--simulate``: models without a model server."""

    async def test_it_serves_simulated_models_and_no_others(self, fake: FakeModel, tmp_path: Path) -> None:
        file, script = tmp_path / "edge.toml", tmp_path / "script.txt"
        file.write_text(f'[[upstream]]\nname = "real"\nurl = "{fake.url}"\napi_key = "${{NOT_SET}}"\n')
        script.write_text("As it is written.")
        options = ("--config", str(file), "--simulate", "--pace", "0", "--script", str(script))
        async with serving(*options) as edge:
            found = await edge.line("upstream found")
            assert (found["upstream"], found["kind"]) == ("simulator", "simulator")
            answer = await ask(edge.port, CHAT, chat_body(model="script", stream=False))
            assert answer.json["choices"][0]["message"]["content"] == "As it is written."
            echo = await ask(edge.port, CHAT, chat_body(model="echo"))
            assert echo.events[-1] == DONE
            assert (await edge.signalled(signal.SIGTERM)).status == 0
        assert fake.requests == []

    async def test_words_take_time(self) -> None:
        async with serving("--simulate", "--pace", "0.02") as edge:
            await edge.line("upstream found")
            began = time.monotonic()
            await ask(edge.port, CHAT, chat_body(model="lorem", max_tokens=10))
            assert time.monotonic() - began >= 0.2

    async def test_its_options_are_of_no_use_alone(self) -> None:
        done = await run("serve", "--pace", "1")
        assert (done.status, done.err_lines[-1]) == (2, "Error: --pace and --script work with --simulate only")

    async def test_a_script_that_cannot_be_read_is_one_clear_line(self) -> None:
        done = await run("serve", "--simulate", "--script", "/nowhere")
        line = "--simulate: upstream[0].script: cannot be read: No such file or directory"
        assert (done.status, done.err_lines) == (2, [line])


@pytest.mark.parametrize("what", ["enter", "make"])
async def test_a_store_that_cannot_be_used_is_a_warning_at_the_start_with_the_path_and_the_remedy(
    what: str, tmp_path: Path
) -> None:
    """And it serves: what is generated is kept in memory. Where there may be keys, only if nobody needs one."""
    if not CAN_BE_PLAIN:
        pytest.fail("root needs setpriv (util-linux) for this")
    closed = tmp_path / "closed"
    closed.mkdir()
    take_away(closed, 0o5 if what == "make" else 0)
    try:
        env = {"EDGE_STORE_URL": f"sqlite:{closed}/edge.db", "EDGE_UPSTREAM_KIND": "simulator"}
        if what == "enter":
            async with serving(by=PLAIN, **env) as edge:
                refused = await ask(edge.port, CHAT, chat_body(model="echo"))
                assert (refused.status, refused.json["error"]["code"]) == (503, "auth_unavailable")
            env["EDGE_AUTH_ALLOW_ANONYMOUS"] = "true"
        async with serving(by=PLAIN, **env) as edge:
            (warning,) = [orjson.loads(line) for line in edge.log.splitlines() if '"store"' in line]
            assert warning["level"] == "warning"
            assert f"may not {what}" in warning["problem"]
            assert str(closed) in warning["problem"]
            assert "set store.url" in warning["problem"]
            answer = await ask(edge.port, CHAT, chat_body(model="echo"))
            assert (answer.status, answer.events[-1]) == (200, DONE)
            assert (await edge.signalled(signal.SIGTERM)).status == 0
    finally:
        closed.chmod(0o700)


async def test_a_socket_that_may_not_be_made_is_told_with_what_helps(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    take_away(closed, 0o5)
    try:
        done = await run("serve", "--listen", f"unix:{closed}/sock", by=PLAIN)
    finally:
        closed.chmod(0o700)
    assert done.status == 1
    head = f"edge: cannot listen on unix:{closed}/sock: Permission denied; "
    assert done.err_lines == [f"{head}let user {os.geteuid()} write in {closed}, or choose another directory"]
