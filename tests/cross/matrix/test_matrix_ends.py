"""However an answer ends, every client can tell: whole, broken, cut, refused, or left by itself."""

from itertools import product

import pytest
from cross.matrix.conftest import Meeting, ServeWire
from cross.matrix.said import HELLO, Said, Want
from cross.matrix.table import POSSIBLE, Cell
from fakes.model_server import FakeModel, chunk, end, fin, gate, json_answer, rst, stall
from support.faults import ended_by_error
from support.raw import Answer
from support.sdk import BEATING, heartbeats

everywhere = pytest.mark.parametrize("meeting", POSSIBLE, indirect=True, ids=str)


def assert_broken_off(meeting: Meeting, answer: Answer) -> None:
    """A stream that nobody can take for whole: it was cut, or its surface's error is the end."""
    assert (answer.status, answer.clean) == (200, ended_by_error(meeting.cell.speaker.path)), answer.body


@everywhere
async def test_an_error_before_the_answer(meeting: Meeting) -> None:
    asked = [*product(meeting.cell.modes, (404, 429, 503))]
    for stream, status in asked:
        meeting.fake.script(
            *json_answer(meeting.cell.tongue.refusal("the model is away"), status, {"retry-after": "7"})
        )
        answer, told = await meeting.answered(Want(stream=stream))
        assert (told.error, told.text, told.done) == ("the model is away", "", False)
        if meeting.cell.speaker.at_once:
            assert_broken_off(meeting, answer)
        else:
            assert (answer.status, answer.clean) == (status, True)
            assert answer.headers["retry-after"] == "7"
    assert len(meeting.fake.requests) == len(asked), "nobody tried again"


@everywhere
async def test_an_error_in_the_middle(meeting: Meeting) -> None:
    for index, stream in enumerate(meeting.cell.modes):
        meeting.begins(chunk(meeting.cell.tongue.error("the model broke")), end())
        answer, told = await meeting.answered(Want(stream=stream))
        assert (told.error, told.done) == ("the model broke", False)
        if stream:
            assert_broken_off(meeting, answer)
            assert told.text == "tok"
        else:
            assert (answer.status >= 500, answer.clean) == (True, True)
        assert (await meeting.edge.record(index))["outcome"] == "upstream_error"


@everywhere
async def test_a_cut(meeting: Meeting) -> None:
    """Also by a server that ends the body as HTTP wants it, in the middle of what it says."""
    for index, (stream, how) in enumerate(product(meeting.cell.modes, (fin(), rst(), end()))):
        meeting.begins(how)
        answer, told = await meeting.answered(Want(stream=stream))
        assert told.error
        assert not told.done
        if stream:
            assert_broken_off(meeting, answer)
        else:
            assert (answer.status, answer.clean) == (502, True)
        assert (await meeting.edge.record(index))["outcome"] == "upstream_cut"


@everywhere
async def test_a_client_that_leaves_stops_the_model(meeting: Meeting) -> None:
    """Before the first word, and after it."""
    for index, (stream, begun) in enumerate(product(meeting.cell.modes, (False, True))):
        held = f"held {index}"
        if begun:
            meeting.begins(gate(held), stall())
        else:
            meeting.fake.script(gate(held), stall())
        async with meeting.client() as client:
            await client.post(meeting.cell.speaker.path, meeting.cell.speaker.body(Want(stream=stream)))
            await meeting.fake.reached(held)
            if stream and begun:
                await client.until(b"tok")
        meeting.fake.open(held)
        assert await meeting.fake.requests[index].left() in ("fin", "reset")
        assert (await meeting.edge.record(index))["outcome"] == "client_gone"


@pytest.mark.parametrize("cell", POSSIBLE, ids=str)
async def test_a_silent_model_is_bridged(cell: Cell, serve_wire: ServeWire, fake: FakeModel) -> None:
    """Before its first word and in mid-stream; the answer stays whole, and what fails then is told in the stream."""
    edge = await serve_wire(cell.wire, stream=BEATING)
    meeting = Meeting(cell, edge, fake)
    first, *rest = cell.tongue.events(Said())
    silence = heartbeats(edge, 1)
    fake.script(silence, cell.tongue.head(), chunk(first), *map(chunk, rest[:2]), silence, *map(chunk, rest[2:]), end())
    answer, told = await meeting.answered(Want())
    assert (answer.status, answer.clean, told.done) == (200, True, True)
    assert (told.text, told.finish) == ("".join(HELLO), "stop")
    fake.script(silence, *json_answer(cell.tongue.refusal("the model is away"), 503))
    answer, told = await meeting.answered(Want())
    assert_broken_off(meeting, answer)
    assert (told.error, told.text, told.done) == ("the model is away", "", False)
