"""Streams that are come back to: every surface with one to read, and what a reader has of it.

In: a running Edge and the fake model server. Out: requests, and bytes to compare. Must not: know what is proven with
them.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fakes import ollama
from fakes.model_server import FakeModel, chunk, end, gate, head
from fakes.steps import Step

from edge.protocol.surface import UPSTREAM_PATHS
from support.faults import whole_stream
from support.raw import CHAT, COMPLETIONS, MESSAGES, RESPONSES, Answer, RawClient
from support.running import Running
from support.shapes import get
from support.surfaces import SPOKEN, Spoken

RESUME = {"x-edge-resume": "1"}
OLLAMA_CHAT, OLLAMA_GENERATE = "/api/chat", "/api/generate"
KEYS = {"keys": ["first-key-of-two", "second-key-of-two"]}
ONE, TWO = {"x-api-key": "first-key-of-two"}, {"x-api-key": "second-key-of-two"}

_ID = re.compile(rb"^id: (st_[0-9a-f]{32}):([0-9]+)\n", re.MULTILINE)
_BODIES: dict[str, dict[str, Any]] = {
    **{spoken.path: spoken.request for spoken in SPOKEN},
    OLLAMA_CHAT: {"messages": [{"role": "user", "content": "hi"}]},
    OLLAMA_GENERATE: {"prompt": "hi"},
}
_CHAT, _COMPLETIONS, _MESSAGES, _RESPONSES = SPOKEN
_OLLAMA = Spoken(OLLAMA_CHAT, {}, b"", ollama.token("tok"), ollama.last())
_GENERATE = Spoken(OLLAMA_GENERATE, {}, b"", ollama.generated("tok"), ollama.generated_last())


@dataclass(frozen=True, eq=False)
class Case:
    """A client's surface, and what the model server speaks that answers it."""

    path: str
    says: Spoken
    upstream: dict[str, Any]

    @property
    def body(self) -> dict[str, Any]:
        return {"model": "m", **_BODIES[self.path], "stream": True}

    @property
    def surface(self) -> str:
        """By its name in settings, logs and metrics."""
        return next(str(surface) for surface, path in UPSTREAM_PATHS.items() if path == self.path)

    @property
    def lines(self) -> bool:
        """The client gets lines of JSON."""
        return self.path in (OLLAMA_CHAT, OLLAMA_GENERATE)

    @property
    def failed(self) -> tuple[bool, str]:
        """Whether a stream that failed has a clean end, and which: on these surfaces the error is one by itself."""
        return (True, "framed") if self.lines or self.path == RESPONSES else (False, "reset")

    @property
    def native(self) -> bool:
        return self.path == self.says.path

    @property
    def whole(self) -> bytes:
        """What a client gets that neither resumes nor asks for usage; only if it is the same as the server says."""
        return self.says.token + self.says.ending if self.lines else whole_stream(self.says)

    def head(self) -> Step:
        return ollama.lines_head() if self.says.path in (OLLAMA_CHAT, OLLAMA_GENERATE) else head()

    def begins(self, *then: Step) -> list[Step]:
        """An answer's beginning, up to ``tok``; and then."""
        return [self.head(), chunk(self.says.prelude + self.says.token), *then]

    def held(self, name: str = "more") -> list[Step]:
        """An answer that stands still after ``tok`` until the gate is open."""
        return self.begins(gate(name), chunk(self.says.ending), end())

    def answer(self) -> list[Step]:
        return self.begins(chunk(self.says.ending), end())

    def __str__(self) -> str:
        name = self.path.removeprefix("/v1/").removeprefix("/").replace("/", "-")
        return name if self.native else f"{name} of {self.says}"


NATIVE = (
    Case(CHAT, _CHAT, {"surfaces": ["chat"]}),
    Case(COMPLETIONS, _COMPLETIONS, {"surfaces": ["completions"]}),
    Case(MESSAGES, _MESSAGES, {"surfaces": ["messages"]}),
    Case(RESPONSES, _RESPONSES, {"surfaces": ["responses"]}),
    Case(OLLAMA_CHAT, _OLLAMA, {"surfaces": ["ollama_chat", "ollama_generate"]}),
    Case(OLLAMA_GENERATE, _GENERATE, {"surfaces": ["ollama_chat", "ollama_generate"]}),
)
CASES = (
    *NATIVE,
    Case(CHAT, _MESSAGES, {"surfaces": ["messages"]}),
    Case(CHAT, _OLLAMA, {"surfaces": ["ollama_chat"]}),
    Case(COMPLETIONS, _GENERATE, {"surfaces": ["ollama_generate"]}),
    Case(MESSAGES, _CHAT, {"surfaces": ["chat"]}),
    Case(MESSAGES, _OLLAMA, {"surfaces": ["ollama_chat"]}),
    Case(RESPONSES, _CHAT, {"surfaces": ["chat"]}),
    Case(RESPONSES, _MESSAGES, {"surfaces": ["messages"]}),
    Case(OLLAMA_CHAT, _CHAT, {"surfaces": ["chat"]}),
    Case(OLLAMA_CHAT, _MESSAGES, {"surfaces": ["messages"]}),
    Case(OLLAMA_GENERATE, _CHAT, {"surfaces": ["chat"]}),
)
CHAT_CASE, _, MESSAGES_CASE, RESPONSES_CASE, OLLAMA_CASE, _ = NATIVE


def sequences(body: bytes) -> list[int]:
    """The numbers of the ids in it."""
    return [int(number) for _, number in _ID.findall(body)]


def bare(body: bytes) -> bytes:
    """A stream without its ids and without comments."""
    return _ID.sub(b"", body).replace(b": ping\n\n", b"").replace(b": ping\n", b"")


def pieces(case: Case, body: bytes) -> list[bytes]:
    """The events, or lines, of a stream."""
    mark = b"\n" if case.lines else b"\n\n"
    return [piece + mark for piece in body.split(mark)[:-1]]


async def stream_id(client: RawClient) -> str:
    """That of the answer on this connection."""
    head = await client.until(b"\r\n\r\n")
    found = re.search(rb"(?im)^x-stream-id: (\S+)\r$", head)
    assert found is not None, head
    return found[1].decode()


async def opened(
    edge: Running, case: Case, client: RawClient, headers: Mapping[str, str] = RESUME, mark: bytes = b"tok"
) -> str:
    """Ask for a stream that can be resumed, and read until its first token; its id."""
    await client.post(case.path, case.body, headers)
    await client.until(mark)
    return await stream_id(client)


async def left(edge: Running, fake: FakeModel, case: Case = CHAT_CASE, headers: Mapping[str, str] = RESUME) -> str:
    """A stream that runs on though its reader has gone, held at the gate ``more``."""
    fake.script(*case.held())
    async with RawClient(edge.port) as client:
        stream = await opened(edge, case, client, headers)
    await readers(edge, stream, 0)
    return stream


async def finished(edge: Running, fake: FakeModel, case: Case = CHAT_CASE, headers: Mapping[str, str] = RESUME) -> str:
    """A stream that has been read whole."""
    fake.script(*case.answer())
    async with RawClient(edge.port) as client:
        await client.post(case.path, case.body, headers)
        answer = await client.answer()
    assert (answer.status, answer.clean) == (200, True), answer.body
    stream = answer.headers["x-stream-id"]
    await ended(edge, stream)
    return stream


async def resumed(edge: Running, stream: str, after: int | str = 0, headers: Mapping[str, str] | None = None) -> Answer:
    """All that follows."""
    return await get(edge.port, f"/v1/streams/{stream}?starting_after={after}", headers)


async def readers(edge: Running, stream: str, count: int) -> None:
    """Wait until so many read it."""
    await edge.wait(lambda: edge.edge.registry.streams[stream].generation.readers == count)


async def ended(edge: Running, stream: str) -> None:
    """Wait until it has a record."""
    await edge.wait(lambda: stream not in edge.edge.registry.streams)


async def moved(edge: Running) -> None:
    """Wait until all that has ended is where it is kept, and no more in the memory of this process."""
    if edge.edge.archive.stores.streams() is not None:
        await edge.wait(lambda: not edge.edge.archive.memory._ended)
