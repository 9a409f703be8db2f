"""What a model says is what every client is told, whatever stands between them."""

from itertools import product

import pytest
from cross.matrix.conftest import Meeting
from cross.matrix.said import ANSWER_TOKENS, CALLS, HELLO, PROMPT_TOKENS, Said, Want
from cross.matrix.table import ANSWERS, CELLS, NO_PLACE, POSSIBLE
from fakes.model_server import chunk, end, json_answer

everywhere = pytest.mark.parametrize("meeting", POSSIBLE, indirect=True, ids=str)
# Emoji with joiners and flags, CJK, right to left, combining marks, the ends of each length of UTF-8, what would pass
# for an end of line, and what JSON escapes.
LETTERS = (
    "é🎈漢字かな한글👩\u200d👩\u200d👧🇺🇳",
    "עברית العربية e\u0301\x7f\x80\u07ff\u0800\ud7ff\ue000\uffff\U00010000\U0010ffff",
    '\u2028\u2029\x85\n\r\r\n\t"\\\\"</script>\\u00e9\\ud83d data: [DONE]\n\n',
)


@everywhere
async def test_text_and_usage(meeting: Meeting) -> None:
    for index, stream in enumerate(meeting.cell.modes):
        told = await meeting.told(Said(), Want(stream=stream))
        assert (told.text, told.finish, told.reasoning, told.calls) == ("".join(HELLO), "stop", "", [])
        assert told.usage == (PROMPT_TOKENS, ANSWER_TOKENS)
        record = await meeting.edge.record(index)
        assert (record["tokens_in"], record["tokens_out"], record["outcome"]) == (*told.usage, "complete")


@everywhere
async def test_an_empty_answer_and_a_length_stop(meeting: Meeting) -> None:
    for stream in meeting.cell.modes:
        told = await meeting.told(Said(()), Want(stream=stream))
        assert (told.text, told.finish) == ("", "stop")
        assert (await meeting.told(Said(finish="length"), Want(stream=stream))).finish == "length"
        told = await meeting.told(Said((), finish="length"), Want(stream=stream))
        assert (told.text, told.finish) == ("", "length")


@everywhere
async def test_letters_survive_a_stream_that_is_cut_at_every_byte(meeting: Meeting) -> None:
    """Or nowhere: all of it may come in one read."""
    for stream, every in product(meeting.cell.modes, (1, 10**6)):
        meeting.says(Said(LETTERS), every=every)
        answer, told = await meeting.answered(Want(stream=stream))
        assert (answer.clean, told.text, told.done) == (True, "".join(LETTERS), True)


@everywhere
async def test_a_character_whose_halves_come_in_two_events(meeting: Meeting) -> None:
    """As servers send it that cut text by UTF-16 units; among pieces of plain text, which go another way."""
    events = meeting.cell.tongue.events(Said(("a", "b", "HIGH", "LOW", "c", "HIGH", "LOW", "d")))
    whole = b"".join(events).replace(b"HIGH", b"\\ud83c").replace(b"LOW", b"\\udf88")
    mark = b"\n" if whole.startswith(b"{") else b"\n\n"
    pieces = [event + mark for event in whole.split(mark)[:-1]]
    for stream, at_once in product(meeting.cell.modes, (False, True)):
        meeting.fake.script(meeting.cell.tongue.head(), *map(chunk, [whole] if at_once else pieces), end())
        async with meeting.client() as client:
            await client.post(meeting.cell.speaker.path, meeting.cell.speaker.body(Want(stream=stream)))
            answer = await client.answer()
        assert (answer.status, answer.clean) == (200, True), answer.body
        if stream and meeting.cell.speaker.path == meeting.cell.tongue.path:
            assert answer.body.count(b"\\ud83c") == whole.count(b"\\ud83c"), "what is relayed stays as it is"
        else:
            assert meeting.cell.speaker.told(answer).text == "ab🎈c🎈d"


@everywhere
async def test_an_upstream_that_answers_in_one_body_although_it_was_asked_for_a_stream(meeting: Meeting) -> None:
    if meeting.cell.speaker.whole:
        meeting.fake.script(*json_answer(meeting.cell.tongue.whole("Hello")))
        _, told = await meeting.answered(Want(stream=False))
        assert (told.status, told.text, told.finish) == (200, "Hello", "stop")
        assert told.usage == (PROMPT_TOKENS, ANSWER_TOKENS)


THOUGHT = Said(("yes", "!"), thought=("h", "mm"))
thinking = pytest.mark.parametrize("meeting", [cell for cell in POSSIBLE if cell.tongue.thinks], indirect=True, ids=str)


@thinking
async def test_reasoning_is_told_apart_from_text(meeting: Meeting) -> None:
    shown = "hmm" if "reasoning" in meeting.cell.speaker.shows else ""
    for stream in meeting.cell.modes:
        told = await meeting.told(THOUGHT, Want(stream=stream))
        assert (told.text, told.reasoning, told.finish) == ("yes!", shown, "stop")


calling = pytest.mark.parametrize("meeting", [cell for cell in POSSIBLE if cell.tongue.calls], indirect=True, ids=str)


@calling
async def test_parallel_calls_with_their_arguments_in_pieces(meeting: Meeting) -> None:
    """One call after the other, and their pieces in turns."""
    shown = "calls" in meeting.cell.speaker.shows
    for stream, mixed in product(meeting.cell.modes, (False, True)):
        want = Want(stream=stream, tools="tools" in meeting.cell.speaker.takes)
        told = await meeting.told(Said(("so",), calls=CALLS, mixed=mixed, finish="tool_calls"), want)
        assert (told.text, told.calls) == ("so", list(CALLS) if shown else [])
        if shown:
            assert told.finish == "tool_calls"
            assert len(set(told.call_ids)) == len(told.call_ids)
            assert all(told.call_ids)


@calling
async def test_calls_and_nothing_else(meeting: Meeting) -> None:
    """Also after thinking, and with arguments that are empty."""
    for stream in meeting.cell.modes:
        want = Want(stream=stream, tools="tools" in meeting.cell.speaker.takes)
        said = Said((), thought=("hm",), calls=(("clock", {}), ("now", {"a": 1})), finish="tool_calls")
        told = await meeting.told(said, want)
        shown = meeting.cell.speaker.shows
        assert told.calls == (list(said.calls) if "calls" in shown else [])
        assert (told.text, told.reasoning) == ("", "hm" if "reasoning" in shown else "")


@pytest.mark.parametrize("meeting", [cell for cell in POSSIBLE if cell.tongue.names_stop], indirect=True, ids=str)
async def test_the_stop_sequence_that_ended_an_answer(meeting: Meeting) -> None:
    for stream in meeting.cell.modes:
        told = await meeting.told(Said(stop_sequence="END"), Want(stream=stream))
        assert (told.text, told.finish) == ("".join(HELLO), "stop")
        assert told.stop_sequence == ("END" if "stop_sequence" in meeting.cell.speaker.shows else None)


def test_what_an_answer_has_no_place_for_is_listed() -> None:
    for speaker in CELLS:
        assert speaker.shows == ANSWERS - NO_PLACE.get(speaker.name, frozenset()), speaker.name
