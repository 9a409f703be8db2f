"""What every client asks for is what the upstream is asked, in its own words."""

from itertools import product

import pytest
from cross.matrix.conftest import Meeting
from cross.matrix.said import HISTORY, PNG, SCHEMA, Heard, Said
from cross.matrix.speakers import asked
from cross.matrix.table import CELLS, NO_WORD, POSSIBLE, REQUESTS, Cell
from support.raw import CHAT, COMPLETIONS, MESSAGES, RESPONSES

TOLD = {
    "image": Heard("hi", images=(PNG,)),
    "stop": Heard("hi", stop=("END", "漢")),
    "schema": Heard("hi", schema=SCHEMA),
    "tools": Heard("hi", tools=("clock",)),
    "system": Heard("hi", system="be brief"),
    "history": Heard("hi", tools=("clock",), history=HISTORY),
}
ASKABLE = [(cell, feature) for cell, feature in product(POSSIBLE, sorted(REQUESTS)) if feature in cell.speaker.takes]
RELAYED = [cell for cell in POSSIBLE if cell.speaker.path == cell.tongue.path]


def names(pairs: list[tuple[Cell, str]]) -> list[str]:
    return [f"{cell}-{feature}" for cell, feature in pairs]


@pytest.mark.parametrize(("meeting", "feature"), ASKABLE, indirect=["meeting"], ids=names(ASKABLE))
async def test_what_is_asked_for_arrives(meeting: Meeting, feature: str) -> None:
    await meeting.told(Said(), asked(feature))
    body = meeting.fake.requests[0].json
    assert meeting.cell.tongue.heard(body) == TOLD[feature]
    assert (body["model"], body["stream"]) == ("m", True)


@pytest.mark.parametrize("meeting", POSSIBLE, indirect=True, ids=str)
async def test_the_upstream_is_asked_for_a_stream_also_by_who_wants_none(meeting: Meeting) -> None:
    if meeting.cell.speaker.whole:
        meeting.says(Said())
        answer, _ = await meeting.answered(asked("plain"))
        assert answer.headers["content-type"] == "application/json"
        assert meeting.fake.requests[0].json["stream"] is True


TRIED = [
    (cell, feature)
    for cell in POSSIBLE
    if cell not in RELAYED
    for feature, extra in sorted(NO_WORD.get(cell.speaker.name, {}).items())
    if extra
]


@pytest.mark.parametrize(("meeting", "feature"), TRIED, indirect=["meeting"], ids=names(TRIED))
async def test_what_a_surface_has_no_word_for_changes_nothing_and_is_told(meeting: Meeting, feature: str) -> None:
    """Or it reaches the server as it is: those beside Edge have extensions of their own."""
    cell = meeting.cell
    extra = NO_WORD[cell.speaker.name][feature]
    meeting.says(Said())
    body = {**cell.speaker.body(asked("stream")), **extra}
    async with meeting.client() as client:
        await client.post(cell.speaker.path, body)
        answer = await client.answer()
    assert answer.status == 200, answer.body
    (name,) = extra
    sent = meeting.fake.requests[0].json
    dropped = answer.headers.get("x-edge-dropped-params", "").split(", ")
    assert (name in dropped) != (sent.get(name) == extra[name])


@pytest.mark.parametrize(
    "meeting",
    [
        cell
        for cell in POSSIBLE
        if cell not in RELAYED and cell.speaker.path not in (CHAT, COMPLETIONS, RESPONSES, MESSAGES)
    ],
    indirect=True,
    ids=str,
)
async def test_a_field_that_only_the_upstreams_surface_has_is_not_slipped_to_it(meeting: Meeting) -> None:
    """Two choices would be read as one answer. Where it is a word to the surface it is refused: see ``CANNOT``."""
    cell = meeting.cell
    meeting.says(Said())
    async with meeting.client() as client:
        await client.post(cell.speaker.path, {**cell.speaker.body(asked("stream")), "n": 2})
        answer = await client.answer()
    assert answer.status == 200
    assert "n" in answer.headers["x-edge-dropped-params"].split(", ")
    assert "n" not in meeting.fake.requests[0].json


def test_what_a_surface_has_no_word_for_is_listed() -> None:
    for speaker in CELLS:
        assert speaker.takes == REQUESTS - NO_WORD.get(speaker.name, {}).keys(), speaker.name
