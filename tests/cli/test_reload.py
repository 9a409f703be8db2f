"""Reloading: what is new holds for new requests, what runs is left alone, what is wrong changes nothing."""

import asyncio
import fcntl
import os
import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest
from fakes.model_server import DONE, FakeModel, chat_finish, chat_role, chat_token, chunk, end, gate, head
from support.cli import run
from support.edge_process import EdgeProcess
from support.hanging import hang_limit, until
from support.raw import CHAT, RawClient, ask, chat_body
from support.running import Running, Serve, make_settings

from edge.config import ConfigError
from edge.service import pidfile
from edge.settings import Settings

OLD, NEW = "key-of-old-times", "key-of-new-times"


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def settings_of(*urls: str, **sections: Mapping[str, object]) -> Settings:
    """As the ``serve`` fixture makes them."""
    return make_settings(*urls, **{name: dict(section) for name, section in sections.items()})


async def asked(edge: Running, headers: Mapping[str, str] | None = None) -> int:
    return (await ask(edge.port, CHAT, chat_body(), headers)).status


async def test_other_keys_hold_at_once_and_a_stream_of_the_old_one_goes_on(serve: Serve, fake: FakeModel) -> None:
    fake.script(head(), chunk(chat_role() + chat_token("tok")), gate("rest"), chunk(chat_finish() + DONE), end())
    edge = await serve(fake.url, auth={"keys": [OLD]})
    async with RawClient(edge.port) as client:
        await client.post(CHAT, chat_body(), bearer(OLD))
        await client.until(b"tok")
        await edge.edge.reload(settings_of(fake.url, auth={"keys": [NEW]}))
        assert [await asked(edge, bearer(key)) for key in (OLD, NEW)] == [401, 200]
        fake.open("rest")
        answer = await client.answer()
        assert (answer.status, answer.clean, answer.events[-1]) == (200, True, DONE)
    (line,) = edge.lines.of("reloaded")
    assert (line["changed"], line["needs_restart"]) == (["auth.keys"], [])
    assert NEW not in str(edge.lines.lines)


async def test_hosts_and_origins_are_those_of_now(serve: Serve, fake: FakeModel) -> None:
    edge = await serve(fake.url)
    page, host = {"Origin": "https://app.example"}, {"Host": "edge.example"}
    before = await asked(edge, host), (await ask(edge.port, CHAT, chat_body(), page)).headers
    await edge.edge.reload(
        settings_of(fake.url, server={"allowed_hosts": ["edge.example"], "cors_origins": ["https://app.example"]})
    )
    after = await asked(edge, host), (await ask(edge.port, CHAT, chat_body(), page)).headers
    assert (before[0], after[0]) == (403, 200)
    assert ("access-control-allow-origin" in before[1], after[1]["access-control-allow-origin"]) == (
        False,
        "https://app.example",
    )


async def test_a_stream_keeps_its_clocks_and_the_next_one_has_the_new_ones(serve: Serve, fake: FakeModel) -> None:
    fake.script(head(), chunk(chat_role() + chat_token("tok")), gate("rest"), chunk(chat_finish() + DONE), end())
    fake.script(head(), chunk(chat_role() + chat_token("tok")), gate("never"))
    edge = await serve(fake.url)
    async with RawClient(edge.port) as first, RawClient(edge.port) as second:
        await first.post(CHAT, chat_body())
        await first.until(b"tok")
        await edge.edge.reload(settings_of(fake.url, stream={"inter_token_s": 0.1}))
        await second.post(CHAT, chat_body())
        assert not (await second.answer()).clean
        fake.open("rest")
        assert (await first.answer()).clean
    assert [record["outcome"] for record in edge.records] == ["upstream_stall", "complete"]


async def test_bounds_of_bodies_and_sessions_are_those_of_now(serve: Serve, fake: FakeModel) -> None:
    edge = await serve(fake.url)
    await edge.edge.reload(settings_of(fake.url, server={"max_body_bytes": 1024}, sessions={"max_bytes": 1024}))
    large = await ask(edge.port, CHAT, chat_body(user="x" * 2000))
    long = await ask(edge.port, "/v1/chat/stream", {"session_id": "s", "message": "x" * 800})
    assert (large.status, long.status) == (413, 400)


async def test_an_upstream_comes_and_another_goes_under_a_running_stream(serve: Serve, fake: FakeModel) -> None:
    fake.script(head(), chunk(chat_role() + chat_token("tok")), gate("rest"), chunk(chat_finish() + DONE), end())
    async with FakeModel() as other:
        edge = await serve(fake.url, discovery={"interval_s": 0.05})
        async with RawClient(edge.port) as client:
            await client.post(CHAT, chat_body())
            await client.until(b"tok")
            settings = settings_of(other.url, discovery={"interval_s": 0.05})
            (upstream,) = settings.upstream
            await edge.edge.reload(
                msgspec.structs.replace(settings, upstream=[msgspec.structs.replace(upstream, name="other")])
            )
            assert await asked(edge) == 200
            assert len(other.requests) == 1  # at once: it was looked at before it was used
            fake.open("rest")
            answer = await client.answer()
            assert (answer.clean, answer.events[-1]) == (True, DONE)
        async with hang_limit():
            while fake.live:
                await asyncio.sleep(0.01)  # the last connection goes with the next look
        (line,) = edge.lines.of("reloaded")
        assert line["changed"] == ["upstream other added", "upstream up removed"]
        await edge.stop()


async def test_an_upstream_that_stays_keeps_its_connections_and_one_with_another_key_uses_it(
    serve: Serve, fake: FakeModel
) -> None:
    edge = await serve(fake.url)
    (before,) = edge.edge.fleet.members
    await edge.edge.reload(settings_of(fake.url, stream={"total_s": 9}))
    assert edge.edge.fleet.members == (before,)
    await edge.edge.reload(settings_of(fake.url, upstream={"api_key": "key-for-upstream"}))
    assert await asked(edge) == 200
    assert fake.requests[-1].headers["authorization"] == "Bearer key-for-upstream"
    assert edge.lines.of("reloaded")[-1]["changed"] == ["stream.total_s", "upstream up changed"]


async def test_what_needs_a_restart_is_said_each_time_and_stays_as_it_is(serve: Serve, fake: FakeModel) -> None:
    edge = await serve(fake.url)
    other = settings_of(fake.url, server={"listen": ["127.0.0.1:1"], "max_connections": 7, "drain_s": 0.1})
    for _ in range(2):
        await edge.edge.reload(other)
    first, second = edge.lines.of("reloaded")
    assert first["needs_restart"] == second["needs_restart"] == ["server.listen", "server.max_connections"]
    assert (first["changed"], second["changed"]) == (["server.drain_s"], [])
    assert await asked(edge) == 200


async def test_keys_are_not_dropped_while_the_old_address_is_beyond_loopback(serve: Serve, fake: FakeModel) -> None:
    """The new settings are sound by themselves, but the address would stay as it is, open to everybody."""
    everywhere = {"listen": ["0.0.0.0:0"]}
    edge = await serve(fake.url, server=everywhere, auth={"keys": [OLD]})
    with pytest.raises(ConfigError, match="without a restart"):
        await edge.edge.reload(settings_of(fake.url))
    assert await asked(edge) == 401


def config(fake: FakeModel, text: str) -> str:
    return f'{text}\ndiscovery.enabled = false\n[[upstream]]\nname = "up"\nurl = "{fake.url}"\n'


async def test_the_command_reloads_a_process_and_a_wrong_file_is_refused_whole(fake: FakeModel, tmp_path: Path) -> None:
    """It has happened, or it has not, by the time the command ends."""
    async with EdgeProcess(tmp_path, fake.url) as edge:
        await edge.ready()
        who = ("reload", "--pid", str(edge.process.pid))
        edge.configure(config(fake, f'auth.keys = ["{NEW}"]\nlog.level = "info"\nserver.max_connections = 7'))
        done = await run(*who, EDGE_HEARTBEAT="1")
        assert (done.status, done.err) == (0, "")
        assert done.out.splitlines() == [
            f"process {edge.process.pid}: reload done",
            "  changed: auth.keys",
            "  needs a restart, or edge upgrade: server.max_connections",
        ]
        assert (await ask(edge.port, CHAT, chat_body())).status == 401
        edge.configure(config(fake, f'auth.keys = ["{OLD}"]\nstream.heartbeat_s = -1\nserver.nonsense = 1'))
        done = await run(*who)
        assert (done.status, done.out) == (1, "")
        head, *problems = done.err_lines
        assert head == f"edge: reload refused by process {edge.process.pid}, which goes on as it was:"
        assert [problem.split(": ")[1] for problem in problems] == ["stream.heartbeat_s", "server.nonsense"]
        (refused,) = await edge.lines.wait("reload refused")
        assert [f"  {problem}" for problem in refused["problems"]] == problems
        statuses = [(await ask(edge.port, CHAT, chat_body(), bearer(key))).status for key in (OLD, NEW)]
        assert statuses == [401, 200]
        edge.configure(config(fake, f'auth.keys = ["{NEW}"]\nlog.level = "error"'))
        assert (await run(*who)).status == 0
        before = len(edge.lines.lines)
        assert (await ask(edge.port, CHAT, chat_body(), bearer(NEW))).status == 200
        assert len(edge.lines.lines) == before


def has_left_its_id(folder: Path) -> bool:
    """Whether a process that keeps its files there has written its id: it does so once it serves."""
    return any(file.read_text().strip() for file in folder.rglob("edge.pid"))


async def test_the_commands_find_the_process_by_its_file_and_none_that_has_ended(
    fake: FakeModel, tmp_path: Path
) -> None:
    there = {"XDG_RUNTIME_DIR": str(tmp_path / "run"), "PATH": "/nonexistent"}
    (tmp_path / "run").mkdir()
    (tmp_path / "other").mkdir()
    async with EdgeProcess(tmp_path / "other", fake.url) as elsewhere:
        assert (await run("reload", **there)).status == 2
        edge = EdgeProcess(tmp_path / "run", fake.url)
        async with edge:
            await edge.ready()
            await until(lambda: has_left_its_id(tmp_path / "run"))
            assert str(edge.process.pid) in (await run("reload", **there)).out
            upgraded = await run("upgrade", **there)
            await edge.lines.wait("replaced")
            assert upgraded.status == 0
            assert f"process {edge.successors[-1]} serves now; no streams are left" in upgraded.out
            assert str(edge.successors[-1]) in (await run("reload", **there)).out
        assert (tmp_path / "run" / "edge.pid").exists()  # it was killed
        done = await run("reload", **there)
        assert (done.status, "no running Edge of this user was found" in done.err) == (2, True)
        assert "edge serve" in done.err
        assert elsewhere.lines.of("reloaded") == []


async def test_an_upgrade_that_cannot_be_is_refused_with_the_reason(fake: FakeModel, tmp_path: Path) -> None:
    async with EdgeProcess(tmp_path, fake.url) as edge:
        await edge.ready()
        edge.configure(config(fake, "stream.heartbeat_s = -1"))
        done = await run("upgrade", XDG_RUNTIME_DIR=str(tmp_path))
        assert (done.status, done.out) == (1, "")
        assert done.err_lines[0] == f"edge: upgrade refused by process {edge.process.pid}, which goes on as it was:"
        assert "stream.heartbeat_s" in done.err_lines[1]
        assert (await ask(edge.port, CHAT, chat_body())).status == 200


async def test_a_process_that_was_started_without_a_runtime_directory_is_found(fake: FakeModel, tmp_path: Path) -> None:
    """As from cron, in a container, or by ``sudo -u``; and where the command runs with other variables, by its id."""
    edge = EdgeProcess(tmp_path, fake.url)
    del edge.environ["XDG_RUNTIME_DIR"]
    edge.environ["STATE_DIRECTORY"] = str(tmp_path / "gone")
    edge.environ["TMPDIR"] = str(tmp_path)
    directory = tmp_path / f"edge-{os.getuid()}"
    async with edge:
        await edge.ready()
        if not await asyncio.to_thread(Path(f"/run/user/{os.getuid()}").exists):
            await until(lambda: has_left_its_id(tmp_path))
            assert directory.stat().st_mode & 0o777 == 0o700
            assert str(edge.process.pid) in (await run("reload", TMPDIR=str(tmp_path))).out
        assert (await run("reload", "--pid", str(edge.process.pid), PATH="/nonexistent")).status == 0
        edge.send_signal(signal.SIGTERM)
        assert await edge.wait() == 0
        assert not directory.exists()


async def test_a_directory_that_somebody_else_may_have_made_is_not_used(tmp_path: Path) -> None:
    """In ``/tmp`` anybody can make one of that name first, and put the id of a process of the victim's there."""
    directory = tmp_path / f"edge-{os.getuid()}"
    directory.mkdir()
    directory.chmod(0o777)
    places = pidfile.directories({"TMPDIR": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path / "none")}, os.getuid())
    file = pidfile.PidFile(places)
    file.hold()
    file.write_outcome(pidfile.Outcome("reload", 0.0, done=True, lines=[]))
    assert list(directory.iterdir()) == []
    with (directory / "edge.pid").open("w") as foreign:
        foreign.write(f"{os.getpid()}\n")
        foreign.flush()
        fcntl.flock(foreign, fcntl.LOCK_EX)
        found = await run("reload", TMPDIR=str(tmp_path), PATH="/nonexistent")
    assert found.status == 2


async def test_a_process_that_says_nothing_is_not_waited_for_once_it_has_ended() -> None:
    process = await asyncio.create_subprocess_exec("sleep", "600")
    try:
        done = await run("reload", "--pid", str(process.pid))  # whom the signal ends
    finally:
        await process.wait()
    assert done.status == 1
    assert done.err_lines == [
        f"edge: process {process.pid} ended before it reported the outcome of the reload; its log says more"
    ]


@pytest.mark.parametrize("command", ["reload", "upgrade"])
async def test_a_process_that_is_not_there_is_one_line(command: str) -> None:
    done = await run(command, "--pid", str(2**22 + 1))  # no kernel gives so large a number
    assert (done.status, done.out) == (2, "")
    assert done.err_lines == [f"edge: process {2**22 + 1} cannot be signalled: No such process"]


async def test_who_has_read_that_it_listens_finds_it(tmp_path: Path) -> None:
    """Also while it still looks for its model servers, which may take long to answer."""
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, and says nothing
        async with EdgeProcess(tmp_path, f"http://127.0.0.1:{silent.getsockname()[1]}") as edge:
            assert pidfile.find({"XDG_RUNTIME_DIR": str(tmp_path)}) == edge.process.pid


async def test_a_second_one_that_finds_the_address_taken_leaves_the_first_to_be_found(
    tmp_path: Path, fake: FakeModel
) -> None:
    async with EdgeProcess(tmp_path, fake.url) as edge:
        told = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "edge", "serve", "--listen", f"127.0.0.1:{edge.port}"),
            env=edge.environ,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        async with hang_limit():
            assert await told.wait() == 1
        assert pidfile.find({"XDG_RUNTIME_DIR": str(tmp_path)}) == edge.process.pid
