"""What cannot be is refused clearly, before anybody is asked; and all of it is in one table."""

from itertools import product

import pytest
from cross.matrix.conftest import ServeWire
from cross.matrix.said import Want
from cross.matrix.table import CANNOT, CELLS, POSSIBLE, WIRES, Cannot, Wire
from fakes.model_server import FakeModel
from support.raw import ask

_WIRES = {wire.name: wire for wire in WIRES}
_SPEAKERS = {speaker.name: speaker for speaker in CELLS}
REFUSED = [
    (cannot, speaker, _WIRES[wire])
    for cannot in CANNOT
    for speaker, wire in product(cannot.speakers.split(), cannot.wires.split())
]


@pytest.mark.parametrize(
    ("cannot", "name", "wire"),
    REFUSED,
    ids=["-".join([name, "on", wire.name, cannot.param or "at all"]) for cannot, name, wire in REFUSED],
)
async def test_what_cannot_be_is_refused(
    serve_wire: ServeWire, fake: FakeModel, cannot: Cannot, name: str, wire: Wire
) -> None:
    edge, speaker = await serve_wire(wire), _SPEAKERS[name]
    for stream in (True, False):
        body = speaker.body(Want(stream=stream, extra=cannot.extra))
        answer = await ask(edge.port, speaker.path, body)
        told = speaker.told(answer)
        assert told.error is not None
        assert (answer.status, answer.clean) == (cannot.status, True), answer.body
        assert answer.headers["content-type"].startswith("application/json")
        assert told.error.startswith(f"{cannot.param}: " if cannot.param else "no upstream"), told.error
    assert fake.requests == []


def test_every_cell_that_cannot_be_is_listed_once() -> None:
    whole = [(name, wire.name) for cannot, name, wire in REFUSED if not cannot.extra]
    possible = [(cell.speaker.name, cell.wire.name) for cell in POSSIBLE]
    assert sorted([*whole, *possible]) == sorted(product(_SPEAKERS, _WIRES))
