"""A server that answers before it has read the whole body, and closes, is heard: on every kind of large body."""

import asyncio
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from support.forms import FORM, TRANSCRIPTIONS, form, noise
from support.hasty import SAID, Hasty
from support.raw import CHAT, MESSAGES, Answer, RawClient, chat_body
from support.running import Running, Serve
from support.tls import make_certificate

TIMES = 12  # each failed in nine of ten tries when a write could overtake the answer
MOST = (
    9  # of them, where an answer that comes between a look and the write after it is lost: nobody can decrypt it then
)
UPLOAD = form(noise(3_000_000))
TEXT = "x" * 900_000  # not so large that it is parsed elsewhere, which is not what is looked at here
BLOB = f"/api/blobs/sha256:{hashlib.sha256(b'x').hexdigest()}"
LENGTHS = pytest.mark.parametrize("length", [True, False], ids=["sized", "until the end"])


async def tell(edge: Running, path: str, body: Any, headers: Mapping[str, str] | None = None) -> Answer:
    """One request on a connection of its own, whose answer is read also while the body goes out."""
    async with RawClient(edge.port) as client:
        sending = asyncio.create_task(client.post(path, body, headers))
        answer = await client.answer(120)
        sending.cancel()
        await asyncio.wait([sending])
        return answer


async def assert_heard(
    edge: Running, path: str, body: Any, headers: Mapping[str, str] | None = None, *, least: int = TIMES
) -> None:
    answers = [await tell(edge, path, body, headers) for _ in range(TIMES)]
    heard = [answer for answer in answers if answer.status == 413 and b"too large for me" in answer.body]
    assert len(heard) >= least, [answer.body for answer in answers if answer not in heard]


@LENGTHS
async def test_an_upload(serve: Serve, *, length: bool) -> None:
    with Hasty(length=length) as server:
        await assert_heard(await serve(server.url, upstream={"relay": [TRANSCRIPTIONS]}), TRANSCRIPTIONS, UPLOAD, FORM)


async def test_an_upload_over_tls(serve: Serve, tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)
    with Hasty(certificate=certificate) as server:
        edge = await serve(server.url, upstream={"relay": [TRANSCRIPTIONS], "ca_file": certificate["tls_cert"]})
        await assert_heard(edge, TRANSCRIPTIONS, UPLOAD, FORM, least=MOST)


@LENGTHS
async def test_a_large_prompt(serve: Serve, *, length: bool) -> None:
    with Hasty(length=length) as server:
        body = chat_body(messages=[{"role": "user", "content": TEXT}])
        await assert_heard(await serve(server.url), CHAT, body)


@LENGTHS
async def test_a_blob(serve: Serve, *, length: bool) -> None:
    with Hasty(ollama=True, length=length) as server:
        edge = await serve(server.url, upstream={"allow_management": True})
        for _ in range(TIMES):
            answer = await tell(edge, BLOB, noise(3_000_000))
            assert (answer.status, answer.json) == (413, SAID)
    assert [line["outcome"] for line in edge.lines.of("management")] == ["upstream_error"] * TIMES


@pytest.mark.parametrize(("kind", "path"), [("openai", CHAT), ("anthropic", MESSAGES)])
async def test_a_large_prompt_for_a_cloud(serve: Serve, kind: str, path: str) -> None:
    with Hasty() as server:
        edge = await serve(server.url, upstream={"kind": kind, "api_key": "sk-the-cloud-key"})
        body = chat_body(messages=[{"role": "user", "content": TEXT}], max_tokens=5)
        await assert_heard(edge, path, body, least=MOST)


async def test_one_that_answers_whoever_connects(serve: Serve) -> None:
    """As Edge itself does when it is full."""
    with Hasty() as server:
        edge = await serve(server.url)
        server.reads = False
        await assert_heard(edge, CHAT, chat_body())
