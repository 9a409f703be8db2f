"""The simulator's tokens are the text, and no bound is ever passed."""

from hypothesis import given
from hypothesis import strategies as st
from support.streams import FORGERIES, unhurried

from edge.protocol.canonical import Ask, Message, TextPart
from edge.protocol.events import Finish, Text
from edge.upstream.simulator.models import say, words

texts = st.text() | st.sampled_from(FORGERIES)
few = st.lists(st.sampled_from("ab \n"), max_size=12).map("".join)


@unhurried
@given(texts)
def test_the_tokens_of_a_text_are_the_text(text: str) -> None:
    assert "".join(words(text)) == text
    assert all(words(text))


@unhurried
@given(few, st.lists(few, max_size=3), st.none() | st.integers(1, 5))
def test_an_answer_ends_at_its_first_bound(text: str, stops: list[str], most: int | None) -> None:
    ask = Ask(model="echo", messages=[Message("user", (TextPart(text),))], stop=stops, max_tokens=most)
    *said, end = say("echo", ask, None, 0)
    assert isinstance(end, Finish)
    told = "".join(event.text for event in said if isinstance(event, Text))
    stopped = min((text.find(stop) for stop in stops if stop and stop in text), default=len(text))
    if end.reason == "length":
        assert len(said) == most
        assert text[:stopped].startswith(told)
        assert len(told) < stopped
    else:
        assert (end.reason, told) == ("stop", text[:stopped])
        assert end.stop_sequence is None or text[stopped:].startswith(end.stop_sequence)
