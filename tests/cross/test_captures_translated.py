"""Recorded answers of a real Ollama and a real vLLM, translated: clients of other surfaces read what was said."""

from collections.abc import Iterator

import orjson
import pytest
from cross.captured import CLIENTS, GOLDEN, settled, tells_logprobs, translatable, translated
from cross.matrix.speakers import Speaker
from fakes.model_server import FakeModel
from support.captures import HOME, Capture, Gist, gist
from support.raw import Answer
from support.running import Serve

HOW = "if this is meant, write them anew and read them: PYTHONPATH=.:tests python tests/captures/made.py"
_FINISHES = {
    "end_turn": "stop",
    "max_tokens": "length",
    "tool_use": "tool_calls",
    None: "length",  # Ollama has stopped a model that repeats itself
}
# It broke off without a word, or with one.
_CUT = ("v1-chat-stream-runner-killed", "v1-messages-stream-runner-killed")


def _cases() -> Iterator[tuple[Capture, Speaker, bool]]:
    for capture in translatable():
        for client in CLIENTS[capture.surface]:
            for stream in (True, False) if capture.streamed else (False,):
                if stream or client.whole:
                    yield capture, client, stream


def _named(case: tuple[Capture, Speaker, bool]) -> str:
    capture, client, stream = case
    return f"{capture}-{client.name}-{'stream' if stream else 'whole'}"


def _no_object(said: Gist) -> bool:
    """A model with random weights has called a tool with ``false``."""
    return any(not isinstance(orjson.loads(given), dict) for _, given in said.calls)


@pytest.mark.parametrize("case", list(_cases()), ids=_named)
async def test_a_client_reads_what_was_said(serve: Serve, fake: FakeModel, case: tuple[Capture, Speaker, bool]) -> None:
    capture, client, stream = case
    said = gist(capture)
    edge, answer = await translated(serve, fake, capture, client, stream=stream)
    if said.error or capture.name in _CUT:
        _assert_failed(answer, client, said, capture)
    elif _no_object(said) and client.name.startswith("ollama"):
        assert answer.status == 502
        assert b"are no JSON object" in answer.body
    else:
        _assert_said(answer, client, said)
        _assert_likely(answer, client, said, capture)
        assert (await edge.record())["outcome"] == "complete"


def _assert_said(answer: Answer, client: Speaker, said: Gist) -> None:
    told = client.told(answer)
    assert (answer.status, answer.clean, told.done, told.error) == (200, True, True, None)
    assert told.text == said.text
    if "reasoning" in client.shows:
        assert told.reasoning == said.thought
    if "calls" in client.shows or client.name == "ollama-generate":
        assert told.calls == [(name, orjson.loads(given)) for name, given in said.calls]
        if client.name != "session":
            finish = _FINISHES.get(said.finish, said.finish)
            assert told.finish == ("tool_calls" if said.calls else finish)
    if said.usage is not None:
        assert told.usage == said.usage


def _assert_likely(answer: Answer, client: Speaker, said: Gist, capture: Capture) -> None:
    """The log probabilities, token by token, where they were asked for."""
    if not (tells_logprobs(capture, client) and said.logprobs):
        return
    if client.name == "chat":
        data = [event.removeprefix(b"data: ") for event in answer.events] or [answer.body]
        chunks = [orjson.loads(piece) for piece in data if b"[DONE]" not in piece]
        lists = [choice.get("logprobs") or {} for chunk in chunks for choice in chunk["choices"]]
        told = [token for each in lists for token in each.get("content") or []]
    else:
        told = [token for line in answer.body.splitlines() for token in orjson.loads(line).get("logprobs") or []]
    assert told == said.logprobs


def _assert_failed(answer: Answer, client: Speaker, said: Gist, capture: Capture) -> None:
    """A status if nothing had been said, else the error after what had; and nothing that looks like an end."""
    told = client.told(answer)
    assert told.error
    assert not told.done
    if said.error and answer.status != 400:  # a prompt that is too long is told in the words that agents know
        assert said.error in told.error or "prompt is too long" in told.error
    if answer.status == 200:
        assert said.text.startswith(told.text)
        assert told.text or not said.text
        assert client.name == "session" or told.text == said.text
    elif capture.status >= 400:
        assert answer.status == capture.status
    else:
        assert answer.status in (400, 500, 502)
    assert answer.clean is (answer.status != 200 or client.name in ("responses", "ollama-chat", "ollama-generate"))


@pytest.mark.parametrize("capture", [one for one in translatable() if str(one) in GOLDEN], ids=str)
async def test_it_is_this_to_the_byte(serve: Serve, capture: Capture) -> None:
    written = (HOME / "translated" / f"{capture}.txt").read_bytes()
    made = []
    for client in CLIENTS[capture.surface]:
        if capture.streamed or client.whole:
            async with FakeModel() as fake:
                _, answer = await translated(serve, fake, capture, client, stream=capture.streamed, at_once=True)
                made.append(f"##### {client.name}\n".encode() + settled(answer))
    assert b"".join(made) == written, HOW


def test_no_golden_file_is_left_over() -> None:
    assert {path.stem for path in (HOME / "translated").glob("*")} == set(GOLDEN)


def test_there_is_text_to_compare() -> None:
    assert sum(bool(gist(one).text) for one in translatable()) > 20
