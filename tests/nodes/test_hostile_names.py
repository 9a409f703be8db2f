"""Names that are made to break a store, a path or a log: each is refused with a reason, or is just a name."""

from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from fakes.model_server import FakeModel
from support.raw import CHAT, RawClient, ask, chat_body
from support.running import Serve
from support.shapes import get

from edge.policy.auth.keys import is_name

NAMES = [
    "../../etc/passwd", "..", ".", "a/b", "a\\b", "' OR '1'='1", "'; DROP TABLE sessions; --", '"', "a\x00b", "a\nb",
    "a\rb", "edge:*", "*", "?", "[a-z]", "{a}", "%00", "%s%n", "${jndi:ldap://x}", "\u202e", "\ufeff", "\U0001f4a9",
    "a" * 5000, "-1", "0", "null", "NaN", "__proto__", "st_" + "0" * 32, "st_" + "g" * 32, " ", "\t", "a b", "\x7f",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_no_key_has_such_a_name(name: str) -> None:
    odd = not (name.isascii() and name.replace("-", "").replace("_", "").isalnum()) or len(name) > 64
    assert not (odd and is_name(name))


async def test_of_models_sessions_and_streams(
    serve: Serve, fake: FakeModel, store: dict[str, Any], tmp_path: Path
) -> None:
    edge = await serve(store=store)
    before = files(tmp_path)
    for name in NAMES:
        model = await ask(edge.port, CHAT, chat_body(stream=False, model=name))
        assert model.status in (200, 400, 404), (name, model.body)
        said = await ask(edge.port, "/v1/chat/stream", {"model": "m", "message": "hi", "session_id": name})
        assert said.status in (200, 400), (name, said.body)
        shown = quote(name, safe="")
        for path in (
            f"/v1/sessions/{shown}",
            f"/v1/streams/{shown}",
            f"/v1/models/{shown}",
            f"/v1/streams?ids={shown}",
        ):
            for method in ("GET", "DELETE"):
                answer = await get(edge.port, path, method=method)
                assert answer.status < 500, (name, method, path, answer.body)
        async with RawClient(edge.port) as client:
            header = name.encode("utf-8", "replace").translate(None, b"\r\n\x00")[:4000].decode("latin-1")
            await client.post(CHAT, chat_body(), {"Last-Event-ID": header})
            assert (await client.answer()).status < 500, name
    assert (await ask(edge.port, CHAT, chat_body())).clean
    assert files(tmp_path) == before


def files(directory: Path) -> set[Path]:
    """All but the store's own."""
    return {path for path in directory.rglob("*") if "edge.db" not in path.name}
