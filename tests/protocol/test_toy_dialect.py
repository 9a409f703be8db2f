"""A dialect is a folder, one member of ``Surface`` and one ``DialectSpec``: a copy of Edge gets one more and serves it.

What is added here is what docs/adding-a-dialect.md says.
"""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest
from fakes.answers import chat_role
from fakes.model_server import DONE, FakeModel, chat_finish, chat_token, chunk, end, head, rst
from support.cli import Serving, serving
from support.raw import ask
from support.shapes import get

TOY = "/v1/toy"
EDGE = Path(__file__).parents[2] / "edge"
MEMBER = '    TOY = "toy", Facts("chat", "/v1/toy", generates=True)\n'
IMPORTS = "from edge.protocol.toy import encode as toy_encode\nfrom edge.protocol.toy import parse as toy_parse\n"
SPEC = """    DialectSpec(
        toy_encode.ToyDialect(),
        parse=toy_parse.parse,
        encoder=toy_encode.ToyEncoder,
        through=(Surface.CHAT,),
    ),
"""


@pytest.fixture(scope="module")
def another(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of Edge with the toy dialect: the three steps, and nothing else."""
    folder = tmp_path_factory.mktemp("another")
    protocol = folder / "edge" / "protocol"
    shutil.copytree(EDGE, folder / "edge", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(Path(__file__).parent / "toy", protocol / "toy", ignore=shutil.ignore_patterns("__pycache__"))
    insert(protocol / "surface.py", MEMBER, before='    RERANK = "/v1/rerank"')
    insert(protocol / "dialects.py", IMPORTS, before="from edge.protocol.transcode_ports")
    insert(protocol / "dialects.py", SPEC, before="    # Vectors are translated")
    return folder


def insert(path: Path, text: str, *, before: str) -> None:
    whole = path.read_text()
    assert whole.count(before) == 1
    path.write_text(whole.replace(before, text + before))


@pytest.fixture
async def edge(another: Path, fake: FakeModel) -> AsyncIterator[Serving]:
    async with serving(by=("env", "-C", str(another)), EDGE_UPSTREAM_URL=fake.url, EDGE_STORE_URL="memory:") as one:
        await one.line("upstream found")
        yield one


async def test_its_clients_get_streams_of_any_chat_server(edge: Serving, fake: FakeModel) -> None:
    fake.script(head(), chunk(chat_role() + chat_token("a") + chat_token("b") + chat_finish() + DONE), end())
    answer = await ask(edge.port, TOY, orjson.dumps({"model": "m", "say": "hi", "stream": True}))
    assert (answer.status, answer.clean) == (200, True)
    assert answer.body == b'data: {"t":"a"}\n\ndata: {"t":"b"}\n\ndata: {"end":true}\n\n'
    sent = orjson.loads(fake.requests[0].body)
    assert sent["messages"] == [{"role": "user", "content": "hi"}]
    assert (await edge.line("exchange"))["surface"] == "toy"


async def test_and_answers_in_one_piece(edge: Serving, fake: FakeModel) -> None:
    fake.script(head(), chunk(chat_role() + chat_token("a") + chat_token("b") + chat_finish() + DONE), end())
    answer = await ask(edge.port, TOY, orjson.dumps({"model": "m", "say": "hi"}))
    assert (answer.status, answer.json) == (200, {"all": "ab"})


async def test_an_error_has_its_shape_before_and_in_the_stream(edge: Serving, fake: FakeModel) -> None:
    refused = await ask(edge.port, TOY, orjson.dumps({"model": "m", "say": 1}))
    assert (refused.status, list(refused.json)) == (400, ["oops"])
    assert "say" in refused.json["oops"]
    fake.script(head(), chunk(chat_role() + chat_token("a")), rst())
    cut = await ask(edge.port, TOY, orjson.dumps({"model": "m", "say": "hi", "stream": True}))
    assert not cut.clean
    assert b'data: {"oops":' in cut.body
    assert b'"end"' not in cut.body


async def test_its_route_is_described(edge: Serving) -> None:
    document = (await get(edge.port, "/openapi.json")).json
    assert "post" in document["paths"][TOY]
    metrics = (await get(edge.port, "/metrics")).body
    assert metrics
