"""``edge check``: what it shows, and the exit status that a script goes by."""

import asyncio
import os
import platform
import pty
import signal
import socket
import sqlite3
import sys
from pathlib import Path

import orjson
import pytest
from fakes.model_server import FakeModel
from support.cli import Done, environment, run, serving
from support.tls import make_certificate
from support.unprivileged import PLAIN, take_away

from edge import __version__

KEY = "canary-key-of-a-client"
CERTIFICATE = Path(__file__).parent.parent / "support" / "certificate.pem"


def cells(done: Done) -> dict[str, list[str]]:
    """The rows of all tables by their first column; columns are at least two blanks apart."""
    rows = [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in done.out.splitlines()]
    return {row[0]: row[1:] for row in rows if row}


def config(tmp_path: Path, text: str) -> str:
    file = tmp_path / "edge.toml"
    file.write_text(text)
    return str(file)


async def test_all_is_well(fake: FakeModel, tmp_path: Path) -> None:
    """What is installed, what is bound, who may call, and what the upstream is and has."""
    fake.models = ["m", "org/big"]
    file = config(
        tmp_path,
        f'[server]\nlisten = ["127.0.0.1:0", "unix:{tmp_path}/e.sock", "systemd"]\nmax_connections = 77\n'
        f'[auth]\nkeys = ["{KEY}", "${{OTHER}}"]\n'
        f'[[upstream]]\nname = "gpu"\nurl = "{fake.url}"\nsurfaces = ["chat", "messages"]\n'
        'repairs = ["drop-null-events"]\n',
    )
    done = await run("check", "--config", file, EDGE_SERVER_LISTEN="", OTHER=f"{KEY}-2")
    assert (done.status, done.err) == (0, "")
    rows = cells(done)
    assert rows["edge"] == [__version__]
    assert rows["config"] == [file]
    assert rows["python"] == [f"{platform.python_version()} {sys.executable}"]
    assert rows["binary"][0].endswith("edge/__main__.py")
    assert int(rows["open files"][0]) > 0
    assert rows["connections"] == ["at most 77"]
    assert rows["auth"] == ["2 keys"]
    assert rows["127.0.0.1:0"] == rows[f"unix:{tmp_path}/e.sock"] == ["free"]
    assert rows["systemd"] == ["the sockets come with the start"]
    assert rows["gpu"] == [
        "OpenAI-compatible", fake.url, "up", "m, org/big", "chat, messages", "drop-null-events",
    ]  # fmt: skip
    assert KEY not in done.out
    assert not Path(tmp_path, "e.sock").exists()  # noqa: ASYNC240 - nothing else runs now
    assert fake.requests == []


async def test_an_upstream_that_is_down_is_told_with_the_reason(fake: FakeModel, tmp_path: Path) -> None:
    """One of two is enough to serve, but not for all to be well."""
    await fake.refuse()
    async with FakeModel() as other:
        file = config(
            tmp_path, f'[[upstream]]\nname = "a"\nurl = "{fake.url}"\n[[upstream]]\nname = "b"\nurl = "{other.url}"\n'
        )
        done = await run("check", "--config", file)
    assert (done.status, done.err) == (1, "")
    rows = cells(done)
    assert rows["a"][2] == "refuses connections: nothing listens there"
    assert rows["b"][2] == "up"


async def test_an_address_in_use_is_told(fake: FakeModel, tmp_path: Path) -> None:
    """Each of them, for what it is; and a live socket is left alone, a left-behind one would be replaced."""
    (tmp_path / "file").write_text("")
    with socket.socket() as taken, socket.socket(socket.AF_UNIX) as live, socket.socket(socket.AF_UNIX) as dead:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        live.bind(str(tmp_path / "live"))
        live.listen()
        dead.bind(str(tmp_path / "dead"))
        dead.close()
        tcp = f"127.0.0.1:{taken.getsockname()[1]}"
        paths = [f"unix:{tmp_path}/{name}" for name in ("live", "dead", "file", "none/none")]
        done = await run("check", EDGE_UPSTREAM_URL=fake.url, EDGE_SERVER_LISTEN=",".join([tcp, *paths]))
        assert (tmp_path / "live").is_socket()
    assert done.status == 1
    rows = cells(done)
    assert rows[tcp] == ["Address already in use"]
    assert rows[paths[0]] == ["something listens there already"]
    assert rows[paths[1]] == ["free"]
    assert rows[paths[2]] == ["there is a file of that name, which is no socket"]
    assert "not there, or not writable" in rows[paths[3]][0]


async def test_an_address_of_another_machine_cannot_be_listened_on(fake: FakeModel) -> None:
    done = await run(
        "check", EDGE_UPSTREAM_URL=fake.url, EDGE_SERVER_LISTEN="192.0.2.1:80", EDGE_AUTH_ALLOW_ANONYMOUS="true"
    )
    assert done.status == 1
    assert cells(done)["192.0.2.1:80"] == ["Cannot assign requested address"]


async def test_everything_wrong_with_the_configuration_is_told_one_a_line(tmp_path: Path) -> None:
    file = config(
        tmp_path,
        '[stream]\nheartbeat = 5\nconnect_s = "x"\n[auth]\nkeys = ["${NOT_SET}"]\n'
        f'[[upstream]]\nname = "a"\nurl = "https://h"\nca_file = "{__file__}"\n',
    )
    done = await run("check", "--config", file)
    assert (done.status, done.out) == (2, "")
    starts = [line.partition(": ")[2].partition(":")[0] for line in done.err_lines]
    assert starts == ["stream.heartbeat", "stream.connect_s", "auth.keys", "upstream[0].ca_file"]
    assert all(line.startswith(f"{file}:") for line in done.err_lines)


async def test_a_file_that_is_not_there_is_a_wrong_configuration(tmp_path: Path) -> None:
    done = await run("check", "--config", str(tmp_path / "none.toml"))
    assert (done.status, len(done.err_lines)) == (2, 1)


async def test_without_a_config_the_usual_ports_are_looked_at(fake: FakeModel) -> None:
    fake.server_header = "llama.cpp"
    fake.get["/v1/models"] = (
        200, {"Server": "llama.cpp"}, orjson.dumps({"object": "list", "data": [{"id": "tiny", "owned_by": "llamacpp"}]})
    )  # fmt: skip
    found = await run("check", EDGE_DISCOVERY_ENABLED="true", EDGE_DISCOVERY_PORTS=str(fake.port))
    assert (found.status, found.err) == (0, "")
    rows = cells(found)
    assert rows["config"] == ["none: defaults and environment"]
    assert rows["auth"] == ["anonymous: no keys"]
    assert rows[f"llama.cpp-{fake.port}"][:4] == ["llama.cpp", fake.url, "up", "tiny"]
    await fake.refuse()
    missed = await run("check", EDGE_DISCOVERY_ENABLED="true", EDGE_DISCOVERY_PORTS=str(fake.port))
    assert missed.status == 1
    assert f"no model server has been found yet at {fake.url}" in missed.out


@pytest.mark.parametrize("status", [401, 403])
async def test_a_server_that_wants_a_key_is_told_of(fake: FakeModel, status: int) -> None:
    """Whether or not there is another."""
    fake.get["/v1/models"] = (status, {"Content-Type": "application/json"}, b'{"error":"Unauthorized"}')
    looks = {"EDGE_DISCOVERY_ENABLED": "true", "EDGE_DISCOVERY_PORTS": str(fake.port)}
    alone = await run("check", **looks)
    why = f"wants an API key that it was not given (it answers {status} to /v1/models)"
    said = f"{fake.url} {why}: name it in [[upstream]]"
    assert (alone.status, said in alone.out) == (1, True)
    async with FakeModel() as other:
        listed = orjson.dumps({"object": "list", "data": [{"id": "t", "owned_by": "llamacpp"}]})
        other.get["/v1/models"] = (200, {"Server": "llama.cpp"}, listed)
        looks["EDGE_DISCOVERY_PORTS"] += f",{other.port}"
        both = await run("check", **looks)
    assert (both.status, both.out.count(said)) == (0, 1)


async def test_without_a_config_and_without_looking_there_is_nothing_to_serve() -> None:
    done = await run("check")
    assert done.status == 1
    assert "no upstream is configured, and discovery is off" in done.out


async def test_variables_that_are_no_setting_are_warned_of(fake: FakeModel) -> None:
    done = await run("check", EDGE_UPSTREAM_URL=fake.url, EDGE_HEARTBEAT="1")
    assert done.status == 0
    assert done.err_lines[0].startswith("warning: EDGE_HEARTBEAT is ignored")


async def test_where_there_is_no_terminal_lines_are_plain_and_whole(fake: FakeModel) -> None:
    """No colours, no frames, nothing cut or wrapped, and a name from outside is harmless."""
    fake.models = ["[red]" + "x" * 90, "esc\x1b[31m"]
    done = await run("check", EDGE_UPSTREAM_URL=fake.url, FORCE_COLOR="1", COLUMNS="20", TERM="xterm-256color")
    assert done.status == 0
    (line,) = [line for line in done.out.splitlines() if line.startswith("local ")]
    assert "[red]" + "x" * 90 in line
    assert "esc?[31m" in line
    assert "split-long" in line
    assert "\x1b" not in done.out
    assert done.out.isascii()


async def test_a_terminal_gets_framed_tables_that_fit_it(fake: FakeModel) -> None:
    ours, theirs = pty.openpty()
    env = {**environment(EDGE_UPSTREAM_URL=fake.url), "COLUMNS": "120", "TERM": "xterm"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "edge", "check", env=env, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    shown = b""
    try:
        while data := await asyncio.to_thread(os.read, ours, 65536):
            shown += data
    except OSError:  # how Linux tells that the other side of a terminal is closed
        pass
    finally:
        os.close(ours)
    assert await process.wait() == 0
    assert "╭" in shown.decode()
    assert b"\x1b[1m" in shown
    assert b"local" in shown


@pytest.mark.parametrize("command", ["serve", "check", "demo"])
async def test_every_command_has_a_help_text(command: str) -> None:
    done = await run(command, "--help")
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith(f"Usage: edge {command}") or f"{command} [OPTIONS]" in done.out


async def test_the_version_is_told() -> None:
    done = await run("--version")
    assert (done.status, done.out) == (0, f"edge, version {__version__}\n")


async def test_an_unknown_command_is_refused_in_one_line_after_the_usage() -> None:
    done = await run("chekc")
    assert done.status == 2
    assert "No such command 'chekc'" in done.err_lines[-1]


async def test_a_certificate_file_is_read_before_it_is_needed() -> None:
    done = await run("check", EDGE_UPSTREAM_URL="https://127.0.0.1:1", EDGE_UPSTREAM_CA_FILE=str(CERTIFICATE))
    assert done.status == 1
    assert "nothing listens there" in done.out


async def test_a_simulator_is_always_up() -> None:
    done = await run("check", EDGE_UPSTREAM_KIND="simulator")
    assert (done.status, done.err) == (0, "")
    assert cells(done)["local"][:4] == [
        "simulator", "in Edge", "up", "cut, echo, error, error-mid, lorem, stall, think, tools",
    ]  # fmt: skip


@pytest.mark.parametrize("listen", ["127.0.0.1:{port}", "0.0.0.0:{port}", "unix:{path}/edge.sock"])
async def test_the_edge_that_runs_already_is_no_obstacle(listen: str, tmp_path: Path) -> None:
    given = {"EDGE_UPSTREAM_KIND": "simulator", "EDGE_AUTH_KEYS": KEY, "EDGE_STORE_URL": f"sqlite:{tmp_path}/edge.db"}
    listens = ("--listen", "127.0.0.1:0", "--listen", f"unix:{tmp_path}/edge.sock")
    async with serving(*listens, **given) as edge:
        address = listen.format(port=edge.port, path=tmp_path)
        done = await run("check", EDGE_SERVER_LISTEN=address, **given)
        assert (tmp_path / "edge.sock").is_socket()
        assert cells(done)[address] == [f"Edge serves there already (edge/{__version__})"]
        assert done.status == 0
        assert (await edge.signalled(signal.SIGTERM)).status == 0


async def test_an_edge_that_runs_already_with_tls_is_no_obstacle(tmp_path: Path) -> None:
    made = make_certificate(tmp_path)
    given = {f"EDGE_SERVER_{name.upper()}": str(value) for name, value in made.items()}
    given |= {"EDGE_UPSTREAM_KIND": "simulator", "EDGE_STORE_URL": "memory:"}
    async with serving(**given) as edge:
        done = await run("check", **{**given, "EDGE_SERVER_LISTEN": f"127.0.0.1:{edge.port}"})
    assert done.status == 0


async def test_the_store_is_written_to_and_nothing_is_made_or_changed(tmp_path: Path) -> None:
    given = {"EDGE_UPSTREAM_KIND": "simulator", "EDGE_STORE_URL": f"sqlite:{tmp_path}/kept/edge.db"}
    done = await run("check", **given)
    assert (done.status, cells(done)["store"]) == (0, [f"sqlite:{tmp_path}/kept/edge.db"])
    assert list(tmp_path.iterdir()) == []  # noqa: ASYNC240 - nothing else runs now
    assert (await run("keys", "create", "--name", "a", **given)).status == 0
    assert (await run("check", **given)).status == 0
    with sqlite3.connect(tmp_path / "kept" / "edge.db") as connection:  # somebody writes, and does not end
        connection.execute("BEGIN EXCLUSIVE")
        locked = await run("check", **given)
    connection.close()
    assert locked.status == 1
    assert "database is locked" in locked.out


async def test_what_the_user_may_not_is_told(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    take_away(closed, 0o5)
    given = {"EDGE_UPSTREAM_KIND": "simulator", "EDGE_STORE_URL": f"sqlite:{closed}/edge.db"}
    try:
        done = await run("check", by=PLAIN, **given)
    finally:
        closed.chmod(0o700)
    assert done.status == 1
    assert f"may not make {closed}/edge.db in {closed}" in done.out


async def test_a_store_that_is_no_store_is_told(tmp_path: Path) -> None:
    (tmp_path / "edge.db").write_text("not a database, though it is long enough to be taken for one" * 20)
    done = await run("check", EDGE_UPSTREAM_KIND="simulator", EDGE_STORE_URL=f"sqlite:{tmp_path}/edge.db")
    assert done.status == 1
    assert "is no database" in done.out
