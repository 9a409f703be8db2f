"""One Edge before one upstream for each test of the matrix: what is said there, and what is told here."""

from collections.abc import Awaitable, Callable
from typing import Any

import orjson
import pytest
from cross.matrix.said import Said, Told, Want
from cross.matrix.table import Cell, Wire
from fakes import ollama
from fakes.model_server import FakeModel, Step, chunk, end
from support.raw import Answer, RawClient
from support.running import Running, Serve

# Imported before the collection freezes what there is: see the outermost conftest.
import edge.upstream.cloud.anthropic
import edge.upstream.cloud.openai  # noqa: F401

ServeWire = Callable[..., Awaitable[Running]]


@pytest.fixture
def serve_wire(serve: Serve, fake: FakeModel) -> ServeWire:
    """Start an Edge before an upstream of that kind."""

    async def start(wire: Wire, **sections: Any) -> Running:
        if wire.name == "ollama":
            ollama.be_ollama(fake, "m")
        fake.get["/v1/models?limit=1000"] = (
            200,
            {"Content-Type": "application/json"},
            orjson.dumps({"data": [{"type": "model", "id": "m"}], "has_more": False}),
        )
        stream = {"grace_s": 0.05, **sections.pop("stream", {})}  # a session waits so long for its reader to come back
        # No slots: an Ollama would keep its one for 2 s after a client that left, and the next one here would wait.
        upstream = {"max_concurrency": 0, **wire.settings}
        return await serve(fake.url, upstream=upstream, stream=stream, **sections)

    return start


class Meeting:
    """A client and an upstream, with an Edge between them."""

    def __init__(self, cell: Cell, edge: Running, fake: FakeModel) -> None:
        self.cell = cell
        self.edge = edge
        self.fake = fake

    def says(self, said: Said, *, every: int | None = None) -> None:
        """The next answer; in pieces of ``every`` bytes, else an event at a time."""
        events = self.cell.tongue.events(said)
        steps = [chunk(b"".join(events), every=every)] if every else [*map(chunk, events)]
        self.fake.script(self.cell.tongue.head(), *steps, end())

    def begins(self, *then: Step) -> None:
        """The next answer begins with ``tok``; and then."""
        self.fake.script(self.cell.tongue.head(), chunk(b"".join(self.cell.tongue.begun("tok"))), *then)

    def client(self) -> RawClient:
        """A connection to the Edge."""
        return RawClient(self.edge.port)

    async def answered(self, want: Want) -> tuple[Answer, Told]:
        """Ask, and read."""
        async with self.client() as client:
            await client.post(self.cell.speaker.path, self.cell.speaker.body(want))
            answer = await client.answer()
        told = self.cell.speaker.told(answer)
        assert self.fake.requests[-1].path == self.cell.tongue.path
        return answer, told

    async def told(self, said: Said, want: Want | None = None) -> Told:
        """What the client is told of what the model says; the answer must be whole."""
        self.says(said)
        answer, told = await self.answered(want or Want())
        assert (answer.status, answer.clean, told.error, told.done) == (200, True, None, True), answer.body
        return told


@pytest.fixture
async def meeting(request: pytest.FixtureRequest, serve_wire: ServeWire, fake: FakeModel) -> Meeting:
    """Of the cell that the test is parametrised with."""
    cell: Cell = request.param
    return Meeting(cell, await serve_wire(cell.wire), fake)
