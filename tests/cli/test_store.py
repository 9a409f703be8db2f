"""``edge store`` shows what is kept and purges it, while Edge runs; and Edge says why it cannot use a file."""

from pathlib import Path

import pytest
from fakes.model_server import FakeModel
from support.cli import Done, run
from support.raw import CHAT, ask, chat_body
from support.running import Running, Serve
from support.sessions import said
from support.shapes import get

RESUME = {"x-edge-resume": "1"}


async def with_something_kept(serve: Serve, url: str) -> Running:
    edge = await serve(store={"url": url})
    for _ in range(2):
        assert (await ask(edge.port, CHAT, chat_body(), RESUME)).clean
    await said(edge, "hi")
    return edge


async def shown(url: str, *words: str) -> Done:
    return await run("store", *words, EDGE_STORE_URL=url)


async def test_it_shows_what_is_kept_and_purges_it_while_edge_runs(
    serve: Serve, fake: FakeModel, tmp_path: Path
) -> None:
    url = f"sqlite:{tmp_path / 'kept.db'}"
    edge = await with_something_kept(serve, url)
    assert len(fake.requests) == 3
    await edge.stop()  # so that all of it is written
    edge = await serve(store={"url": url})
    done = await shown(url)
    assert done.status == 0, done.err
    where, streams, sessions, whole = done.out.splitlines()
    assert where.split() == ["store", url]
    assert streams.startswith("streams   3, 0 of them live, ")
    assert sessions.split() == ["sessions", "1"]
    assert whole.startswith("in all    ")
    assert (await shown(url, "purge", "--older-than", "1h")).out == "0 streams deleted\n"
    assert (await shown(url, "purge")).out == "3 streams deleted\n"
    assert (await get(edge.port, "/v1/streams")).json["data"] == []


@pytest.mark.parametrize("text", ["soon", "1", "-1h", "1y", "1h30m"])
async def test_a_time_that_is_none_is_named(text: str, tmp_path: Path) -> None:
    done = await shown(f"sqlite:{tmp_path}/x.db", "purge", "--older-than", text)
    assert (done.status, "--older-than" in done.err) == (2, True)


async def test_where_nothing_is_kept_yet_it_says_so_and_makes_no_file(tmp_path: Path) -> None:
    file = tmp_path / "none.db"
    done = await shown(f"sqlite:{file}")
    assert (done.status, "streams   0" in done.out) == (0, True)
    assert not file.exists()


async def test_memory_is_in_the_process_that_runs() -> None:
    done = await shown("memory:")
    assert (done.status, done.out) == (1, "")
    assert 'store.url is "memory:"' in done.err


@pytest.mark.parametrize("command", ["serve", "store"])
async def test_a_file_that_is_not_edges_is_refused_by_name_and_left_alone(tmp_path: Path, command: str) -> None:
    file = tmp_path / "letter.db"
    file.write_text("Dear Sir or Madam, " * 1000)
    done = await run(command, EDGE_STORE_URL=f"sqlite:{file}")
    assert done.status == 1
    assert str(file) in done.err
    assert "Traceback" not in done.err
    assert file.read_text().startswith("Dear Sir")


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("postgres://x", "must be memory:, sqlite:, sqlite:PATH or redis://"),
        ("redis://", "must be redis://"),
        ("redis://host:1/name", "must be redis://"),
        ("", "must be memory:"),
    ],
)
async def test_a_store_that_there_is_not_is_refused_with_its_key(url: str, says: str, tmp_path: Path) -> None:
    config = tmp_path / "edge.toml"
    config.write_text(f'[store]\nurl = "{url}"\n')
    done = await run("check", "--config", str(config))
    assert done.status == 2
    assert "store.url" in done.err
    assert says in done.err
