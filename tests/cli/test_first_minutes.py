"""The first minutes with ``edge serve``: what a terminal shows, and what the command line can say."""

import re
import signal
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest
from fakes.model_server import FakeModel
from support.cli import run, serving
from support.lookalikes import Lookalike, ollama, vllm
from support.raw import CHAT, ask, chat_body
from support.terminal import terminal

COLOUR = re.compile("\x1b\\[[0-9;]*m")


async def test_a_terminal_shows_where_edge_listens_in_front_of_what_and_what_to_try() -> None:
    async with terminal("serve", "--simulate", "--port", "0") as screen:
        await screen.shows("curl -N http")
        text = screen.text
    assert re.search(r"^Edge \S+ listens on http://127\.0\.0\.1:\d+", text)
    assert re.search(r"upstream +simulator +cut, echo", text)
    assert re.search(r"keys +none needed", text)
    assert re.search(r"state +sqlite:/", text)
    assert re.search(r"config +none: defaults", text)
    assert '"event"' not in text
    assert "upstream found" not in text  # the screen has said so


async def test_the_curl_line_works_as_it_is_shown() -> None:
    async with terminal("serve", "--simulate", "--pace", "0", "--port", "0", columns=60) as screen:
        body = (await screen.shows(r"-d '(\{.*\})'"))[1]
        answer = await ask(screen.port, CHAT, orjson.loads(body))
    assert answer.status == 200
    assert b"Hello" in answer.body


async def test_each_finished_request_is_one_coloured_line_that_fits() -> None:
    async with terminal("serve", "--simulate", "--pace", "0", "--port", "0", columns=70) as screen:
        await screen.shows("curl -N http")
        assert (await ask(screen.port, CHAT, chat_body(model="echo"))).status == 200
        line = (await screen.shows(r"\n(.*\x1b\[32mcomplete.*)\n"))[1]
    assert len(COLOUR.sub("", line)) <= 70
    assert re.match(r"\d\d:\d\d:\d\d echo +chat", COLOUR.sub("", line))


async def test_no_color_is_heeded() -> None:
    async with terminal("serve", "--simulate", "--pace", "0", "--port", "0", NO_COLOR="1") as screen:
        await screen.shows("curl -N http")
        await ask(screen.port, CHAT, chat_body(model="echo"))
        await screen.shows("complete")
        assert "\x1b" not in screen.text


async def test_it_says_what_it_looks_for_while_it_finds_nothing() -> None:
    looking = {"EDGE_DISCOVERY_ENABLED": "true", "EDGE_DISCOVERY_PORTS": "1"}
    async with terminal("serve", "--port", "0", **looking) as screen:
        await screen.shows(r"looking +no model server yet at 127\.0\.0\.1:1; Edge keeps looking")


async def test_with_keys_it_says_so_and_the_curl_line_sends_one() -> None:
    async with terminal("serve", "--simulate", "--port", "0", EDGE_AUTH_KEYS="a-key-of-sixteen-characters") as screen:
        await screen.shows(r'curl -N \S+ -H "Authorization: Bearer \$EDGE_API_KEY"')
        assert re.search(r"keys +needed", screen.text)
        assert "a-key-of" not in screen.text


async def test_verbose_shows_every_fact_of_a_request() -> None:
    async with terminal("serve", "--simulate", "--pace", "0", "--port", "0", "-v") as screen:
        await screen.shows("listening addresses=")
        await ask(screen.port, CHAT, chat_body(model="echo"))
        await screen.shows(r"info +exchange request_id=.* outcome=complete .*ttft_s=")


async def test_quiet_shows_warnings_only() -> None:
    async with terminal("serve", "--simulate", "-q", "--port", "0", NO_COLOR="1", EDGE_UPSTREAMS_X="1") as screen:
        await screen.shows("EDGE_UPSTREAMS_X is ignored")
        screen.process.terminate()
        assert await screen.ended() == 0
        assert all(line.startswith((" ", screen.text[:8])) for line in screen.text.splitlines())
        assert "stopped" not in screen.text


async def test_the_log_format_can_be_chosen() -> None:
    async with terminal("serve", "--simulate", "--port", "0", "--log-format", "json") as screen:
        await screen.shows('"event":"listening"')


async def test_upstreams_of_the_command_line_take_the_place_of_all_others(fake: FakeModel, tmp_path: Path) -> None:
    config = tmp_path / "edge.toml"
    config.write_text('[[upstream]]\nname = "other"\nurl = "http://127.0.0.1:1"\n')
    options = ("--config", str(config), "--upstream", f"gpu-0={fake.url.removeprefix('http://')}")
    async with serving(*options, EDGE_UPSTREAM_GPU_0_API_KEY="upstream-key") as edge:
        assert (await edge.line("upstream found"))["upstream"] == "gpu-0"
        answer = await ask(edge.port, CHAT, chat_body())
        assert (answer.status, answer.headers["x-edge-upstream"]) == (200, "gpu-0")
        await edge.signalled(signal.SIGTERM)
    assert fake.requests[0].headers["authorization"] == "Bearer upstream-key"


async def test_an_upstream_without_a_name_is_called_by_its_address(fake: FakeModel) -> None:
    async with serving("--upstream", fake.url, EDGE_UPSTREAM_API_KEY="upstream-key") as edge:
        found = await edge.line("upstream found")
        await ask(edge.port, CHAT, chat_body())
        await edge.signalled(signal.SIGTERM)
    assert found["upstream"] == fake.url.removeprefix("http://").replace(":", "-")
    assert fake.requests[0].headers["authorization"] == "Bearer upstream-key"


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--port", "1", "--listen", "127.0.0.1:2"), "--port and --listen"),
        (("--simulate", "--upstream", "http://127.0.0.1:1"), "--simulate"),
        (("-v", "-q"), "--verbose"),
        (("--pace", "1"), "--simulate"),
        (("--upstream", "ftp://x"), "--upstream: upstream[0].url"),
        (("--upstream", "a=http://127.0.0.1:1", "--upstream", "a=http://127.0.0.1:2"), "--upstream: upstream[1].name"),
    ],
)
async def test_options_that_cannot_be_meant_are_told_with_the_fix(options: tuple[str, ...], named: str) -> None:
    done = await run("serve", *options)
    assert done.status == 2
    assert named in done.err
    assert "Traceback" not in done.err


async def test_the_configuration_is_found_where_it_usually_is(tmp_path: Path) -> None:
    """--config, else $EDGE_CONFIG, else ./edge.toml, else $XDG_CONFIG_HOME/edge/edge.toml."""
    home, variable = tmp_path / "home", tmp_path / "variable.toml"
    places = {"xdg": home / "edge" / "edge.toml", "here": tmp_path / "edge.toml", "variable": variable}
    (home / "edge").mkdir(parents=True)
    given: dict[str, str] = {"XDG_CONFIG_HOME": str(home)}
    for name, path in places.items():
        path.write_text(f'[[upstream]]\nname = "{name}"\nkind = "simulator"\n')
        if name == "variable":
            given["EDGE_CONFIG"] = str(path)
        async with terminal("serve", "--port", "0", directory=tmp_path, **given) as screen:
            await screen.shows("curl -N http")
            assert re.search(rf"upstream +{name} ", screen.text)
            assert re.search(rf"config +{re.escape(str(path.resolve()))}", screen.text)


async def test_a_configuration_that_is_named_must_be_there(tmp_path: Path) -> None:
    done = await run("check", EDGE_CONFIG=str(tmp_path / "none.toml"))
    assert (done.status, "none.toml: cannot be read" in done.err) == (2, True)


async def test_the_log_says_which_configuration_was_read(tmp_path: Path) -> None:
    config = tmp_path / "edge.toml"
    config.write_text('[[upstream]]\nname = "s"\nkind = "simulator"\n')
    async with serving("--config", str(config)) as edge:
        assert (await edge.line("config file"))["path"] == str(config)
        await edge.signalled(signal.SIGTERM)


async def test_a_taken_port_says_which_edge_has_it_and_what_to_do() -> None:
    async with serving("--simulate") as edge:
        done = await run("serve", "--simulate", "--port", str(edge.port))
    assert done.status == 1
    assert re.search(
        r"already in use: an Edge \(edge/\S+\) serves there; choose another with --port$", done.err.strip()
    )


@pytest.mark.parametrize(("server", "name"), [(ollama, "Ollama"), (vllm, "vLLM")])
async def test_a_taken_port_says_which_model_server_has_it(server: Callable[..., Lookalike], name: str) -> None:
    async with server("m") as there:
        done = await run("serve", "--simulate", "--port", str(there.port))
    assert done.status == 1
    assert done.err_lines[-1].endswith(f"already in use: {name} listens there; choose another with --port")
