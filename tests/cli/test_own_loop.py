"""``edge serve`` where there is no uvloop: asyncio's own loop, and nothing a client would notice."""

import os
import signal
from pathlib import Path

import pytest
from fakes.model_server import DONE, FakeModel, chat_finish, chat_token, chunk, end, gate, head, rst
from support.cli import run_code, serving
from support.raw import CHAT, RawClient, ask, chat_body


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A PYTHONPATH on which uvloop cannot be imported."""
    (tmp_path / "uvloop.py").write_text("raise ImportError('hidden')\n")
    return os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])


async def test_uvloop_is_hidden_here(path: str) -> None:
    """Else the others would prove nothing."""
    assert "ImportError: hidden" in (await run_code("import uvloop", PYTHONPATH=path)).err


async def test_answers_cuts_and_the_drain_are_the_same(fake: FakeModel, path: str) -> None:
    async with serving(EDGE_UPSTREAM_URL=fake.url, PYTHONPATH=path) as edge:
        await edge.line("upstream found")
        fake.script(head(), chunk(chat_token("a") + chat_finish() + DONE), end())
        answer = await ask(edge.port, CHAT, chat_body())
        assert (answer.status, answer.clean, answer.events[-1]) == (200, True, DONE)

        fake.script(head(), chunk(chat_token("a")), rst())
        answer = await ask(edge.port, CHAT, chat_body())
        assert (answer.clean, answer.ending) == (False, "reset")

        fake.script(head(), chunk(chat_token("a")), gate("rest"), chunk(chat_finish() + DONE), end())
        async with RawClient(edge.port) as client:
            await client.post(CHAT, chat_body())
            await client.until(b'"a"')
            edge.signal(signal.SIGTERM)
            await edge.line("draining")
            fake.open("rest")
            answer = await client.answer()
        assert (answer.clean, answer.events[-1]) == (True, DONE)
        done = await edge.ended()
    assert (done.status, "Traceback" in done.err) == (0, False)


async def test_a_reader_that_leaves_stops_the_model(fake: FakeModel, path: str) -> None:
    fake.script(head(), chunk(chat_token("a")), gate("never"))
    async with serving(EDGE_UPSTREAM_URL=fake.url, PYTHONPATH=path) as edge:
        await edge.line("upstream found")
        async with RawClient(edge.port) as client:
            await client.post(CHAT, chat_body())
            await client.until(b'"a"')
        assert (await edge.line("exchange"))["outcome"] == "client_gone"
        assert (await edge.signalled(signal.SIGTERM)).status == 0
