"""A disk that hangs under the store: streams go on, and requests that need the store are told so."""

from pathlib import Path

from fakes.model_server import FakeModel
from support.hanging import HANG_S, until
from support.hung_disk import HungDisk
from support.raw import CHAT, RawClient, ask, chat_body
from support.running import Running, Serve

from edge.store.sqlite.batcher import SqliteFile

SESSION = {"session_id": "s", "message": "hi"}


def file_of(edge: Running) -> SqliteFile:
    return edge.edge._stores._opened_file()


async def got(edge: Running, path: str) -> int:
    async with RawClient(edge.port) as client:
        await client.get(path)
        return (await client.answer(HANG_S)).status


async def test_streams_go_on_and_who_needs_the_store_gets_503(serve: Serve, fake: FakeModel, tmp_path: Path) -> None:
    edge = await serve(fake.url, store={"url": f"sqlite:{tmp_path / 'edge.db'}"})
    assert (await ask(edge.port, "/v1/chat/stream", SESSION, timeout_s=HANG_S)).status == 200
    assert await got(edge, "/v1/sessions/s") == 200
    file = file_of(edge)
    with HungDisk(file):
        refused = await ask(edge.port, "/v1/chat/stream", SESSION, timeout_s=HANG_S)
        assert (refused.status, refused.json["error"]["code"]) == (503, "store_unavailable")
        kept = await ask(edge.port, CHAT, chat_body(), {"x-edge-resume": "1"}, timeout_s=HANG_S)
        assert kept.status == 200
        assert b"[DONE]" in kept.body
        assert await got(edge, "/v1/sessions/s") == 200, "it can still be read"
        assert len(edge.lines.of("store down")) == 1
    await edge.lines.wait("store back")
    with HungDisk(file, reading=True):
        assert await got(edge, "/v1/sessions/s") == 503
        assert await got(edge, "/v1/streams") == 503
    await until(lambda: file._hung_read is None or file._hung_read.done())
    assert await got(edge, "/v1/sessions/s") == 200
    await until(lambda: file.up)
    assert (await ask(edge.port, "/v1/chat/stream", SESSION, timeout_s=HANG_S)).status == 200
