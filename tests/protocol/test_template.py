"""The mould: what it takes for plain is plain, whatever stands in the text; what it does not know it leaves alone."""

import json
import re
from typing import Any

import pytest
from fakes import answers as say
from hypothesis import given
from hypothesis import strategies as st
from support.streams import FORGERIES, unhurried

from edge.protocol.template import EventTemplate

OPENING = re.compile(rb'"(?:content|text)": ?"')


def event(content: str, finish: str | None = None, **extra: Any) -> bytes:
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": finish}
    return b"data: " + json.dumps({"id": "c", "choices": [choice], **extra}).encode() + b"\n\n"


@pytest.fixture
def mould() -> EventTemplate:
    mould = EventTemplate(OPENING)
    assert mould.learn(event("first"))
    return mould


texts = st.one_of(st.sampled_from(FORGERIES), st.text(min_size=1)).filter(bool)


@unhurried
@given(st.lists(texts, min_size=1, max_size=9))
def test_events_that_differ_in_their_text_alone_are_counted(run: list[str]) -> None:
    mould = EventTemplate(OPENING)
    mould.learn(event("first"))
    assert mould.count(b"".join(map(event, run))) == len(run)
    mould.strict = True
    assert mould.count(b"".join(map(event, run))) == len(run)


@unhurried
@given(st.lists(texts, min_size=1, max_size=9))
def test_merged_they_say_the_same(run: list[str]) -> None:
    mould = EventTemplate(OPENING)
    mould.learn(event("first"))
    merged = json.loads(mould.merged(b"".join(map(event, run)))[6:])
    said = merged["choices"][0]["delta"]["content"]
    assert utf16(said) == utf16("".join(run))  # halves of a surrogate pair may have become one character


def utf16(text: str) -> bytes:
    return text.encode("utf-16-le", "surrogatepass")


ODD = {
    "finished": event("x", finish="stop"),
    "empty": event(""),
    "another field after the text": event("x").replace(b'"x"', b'"x", "reasoning": "y"'),
    "usage": event("x", usage={"prompt_tokens": 1}),
    "error": b'data: {"error":{"message":"no"}}\n\n',
    "done": say.DONE,
    "comment": b": ping\n\n",
    "other id": event("x").replace(b'"c"', b'"d"'),
    "two lines": event("x").replace(b"data: ", b"data: \ndata: "),
    "CR": event("x").replace(b"x", b"x\r"),
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
@pytest.mark.parametrize("at", [0, 1, 3])
def test_one_odd_event_among_them_and_none_is_counted(mould: EventTemplate, odd: bytes, at: int) -> None:
    run = [event(text) for text in "abc"]
    run.insert(at, odd)
    mould.strict = True
    assert mould.count(b"".join(run)) == 0


def test_a_run_is_counted_as_far_as_it_goes(mould: EventTemplate) -> None:
    run = event("a") + event("b")
    assert mould.lead(ODD["comment"] + run + ODD["finished"], len(ODD["comment"])) == (2, len(ODD["comment"] + run))
    assert mould.lead(ODD["finished"] + run) == (0, 0)
    for stop in range(len(run)):
        assert mould.lead(run, 0, stop) == ((1, len(event("a"))) if stop >= len(event("a")) else (0, 0))


def test_nothing_is_known_before_it_is_taught() -> None:
    mould = EventTemplate(OPENING)
    assert (mould.count(event("a")), mould.lead(event("a"))) == (0, (0, 0))


@pytest.mark.parametrize(
    "unfit",
    [
        event(""),
        event("a").replace(b"content", b"arguments"),
        event("a", text="b"),  # two texts
        event("a")[:-1],
        event("a").replace(b"\n\n", b"\r\n\r\n"),
    ],
)
def test_what_cannot_be_a_mould_is_none(mould: EventTemplate, unfit: bytes) -> None:
    assert not mould.learn(unfit)
    assert mould.count(event("a")) == 0


def test_it_gives_up_on_a_server_that_varies_more_than_the_text() -> None:
    """Else each event would be parsed and learnt in vain."""
    mould = EventTemplate(OPENING)
    learnt = [mould.learn(event("x", obfuscation="y" * n)) for n in range(20)]
    assert learnt == [True] * 8 + [False] * 12


def test_it_goes_on_learning_while_that_is_of_use() -> None:
    """llama.cpp's ``created`` is new each second."""
    mould = EventTemplate(OPENING)
    for second in range(50):
        assert mould.learn(event("a", created=second))
        assert mould.count(event("b", created=second)) == 1
