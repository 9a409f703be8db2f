"""Legacy completions across surfaces: fields by name, chunks to events and back."""

from typing import Any

import orjson
import pytest
from fakes.model_server import completion_body, completion_events
from support.ollama import generate_lines
from support.streams import MAX_EVENT, all_cuts

from edge.errors import BadRequest
from edge.protocol.batch import Usage
from edge.protocol.canonical import Ask, Target, Thinking
from edge.protocol.chat.collect import ChoicesCollector
from edge.protocol.chat.completions import CompletionsDecoder, CompletionsEncoder, parse, render
from edge.protocol.dialects import DIALECTS
from edge.protocol.events import Event, Finish, Reasoning, Start, Text
from edge.protocol.ollama.render import render_generate
from edge.protocol.request import prepare
from edge.protocol.surface import Surface
from edge.protocol.transcode import Transcoder, transcoder, translate
from edge.protocol.transcode_ports import Answering

OLLAMA = Target(Surface.OLLAMA_GENERATE, "Ollama")
SERVER = Target(Surface.COMPLETIONS, "up")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": 1}, "model"),
        ({"prompt": None}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": 3}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [1, 2]}, "prompt"),
        ({"prompt": [[1, 2]]}, "prompt"),
        ({"prompt": ["a", "b"]}, "prompt"),
        ({"suffix": 1}, "suffix"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 2}, "top_p"),
        ({"top_k": 0.5}, "top_k"),
        ({"min_p": -1}, "min_p"),
        ({"seed": "s"}, "seed"),
        ({"stop": [1]}, "stop"),
        ({"presence_penalty": "a"}, "presence_penalty"),
        ({"frequency_penalty": "a"}, "frequency_penalty"),
        ({"logprobs": True}, "logprobs"),
        ({"n": 0}, "n"),
        ({"user": 1}, "user"),
        ({"echo": True}, "echo"),
        ({"echo": "yes"}, "echo"),
        ({"best_of": 2}, "best_of"),
        ({"options": 1}, "options"),
    ],
)
def test_a_malformed_field_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        parse({"model": "m", "prompt": "hi", **fields})
    assert caught.value.param == param


@pytest.mark.parametrize(("fields", "param"), [({"n": 2}, "n"), ({"logprobs": 0}, "logprobs"), ({"logprobs": 3},) * 2])
def test_what_ollama_cannot_do_is_refused(fields: dict[str, Any], param: Any) -> None:
    with pytest.raises(BadRequest) as caught:
        render_generate(parse({"model": "m", "prompt": "hi", **fields}), OLLAMA)
    assert caught.value.param in ("n", "logprobs")


@pytest.mark.parametrize("prompt", ["hi", ["hi"]])
def test_a_prompt_is_continued_by_ollama_as_it_stands(prompt: Any) -> None:
    asked = {
        "model": "m", "prompt": prompt, "max_tokens": 9, "stop": "x", "top_k": 5, "user": "u", "logit_bias": {"1": 2},
        "n": 1, "best_of": 1, "echo": False, "stream": True, "stream_options": {"include_usage": True},
    }  # fmt: skip
    rendering = render_generate(parse(asked), OLLAMA)
    assert rendering.body == {
        "model": "m", "stream": True, "options": {"num_predict": 9, "stop": ["x"], "top_k": 5}, "prompt": "hi",
        "raw": True,
    }  # fmt: skip
    assert rendering.dropped == ["user", "logit_bias"]
    assert render_generate(parse({"prompt": "a", "suffix": "z"}), OLLAMA).body["suffix"] == "z"


def test_a_prompt_is_written_for_a_server_of_completions() -> None:
    ask = Ask(
        model="m", prompt="hi", suffix="z", temperature=0.5, min_p=0.1, thinking=Thinking(True), keep_alive=5,
        options={"num_ctx": 1}, extra={"x": 1},
    )  # fmt: skip
    rendering = render(ask, SERVER)
    assert rendering.body == {
        "model": "m", "prompt": "hi", "stream": True, "stream_options": {"include_usage": True}, "suffix": "z",
        "max_tokens": None, "temperature": 0.5, "min_p": 0.1, "x": 1,
    }  # fmt: skip
    assert rendering.dropped == ["thinking", "keep_alive", "options"]
    cloud = render(ask, Target(Surface.COMPLETIONS, "cloud", cloud=True))
    assert cloud.dropped == ["thinking", "keep_alive", "options", "min_p", "x"]
    assert not {"min_p", "x"} & set(cloud.body)


def decoded(chunks: list[Any]) -> list[Event]:
    decoder = CompletionsDecoder()
    for chunk in chunks:
        decoder.add(chunk)
    return decoder.events


def test_chunks_are_read() -> None:
    chunks = [orjson.loads(event[6:]) for event in completion_events()[:-1]]
    assert decoded(chunks) == [Start("m"), Text("Hel"), Text("lo"), Text(" there"), Finish("stop")]
    stopped = {"choices": [{"text": "a", "finish_reason": "stop", "stop_reason": "END"}]}
    assert decoded([stopped])[1:] == [Text("a"), Finish("stop", "END")]
    assert decoded([{"choices": [{"text": "", "finish_reason": "length"}]}])[1:] == [Finish("length")]


@pytest.mark.parametrize("chunk", [None, [], "x", {}, {"choices": 1}, {"choices": [1]}, {"choices": [{"text": []}]}])
def test_odd_chunks_are_skipped(chunk: Any) -> None:
    assert all(isinstance(event, Start) for event in decoded([chunk]))
    assert decoded([{"choices": [{"finish_reason": {}}]}])
    assert Finish("stop") in decoded([{"choices": [{"finish_reason": ["x"]}]}])


def test_a_whole_answer_is_read() -> None:
    decoder = CompletionsDecoder()
    assert decoder.whole(completion_body()) == Usage(7, 3)
    assert decoder.events == [Start("m"), Text("Hello there"), Finish("stop")]
    assert CompletionsDecoder().whole({"error": "x"}) is None


def crossing(*, usage: bool = False, stream: bool = True) -> Transcoder:
    body = {"model": "m", "prompt": "hi", "stream": stream}
    if usage:
        body["stream_options"] = {"include_usage": True}
    prepared = prepare(Surface.COMPLETIONS, orjson.dumps(body))
    source = DIALECTS[Surface.OLLAMA_GENERATE].codec(prepared, MAX_EVENT, frozenset())
    return transcoder(source, Surface.OLLAMA_GENERATE, Answering(prepared, "ab12", 1_700_000_000))


def told(codec: Transcoder, pieces: list[bytes]) -> bytes:
    return b"".join([*(codec.feed(piece).data for piece in pieces), codec.eof().data])


@pytest.mark.parametrize("usage", [True, False])
def test_ollamas_lines_become_chunks(*, usage: bool) -> None:
    *events, done = told(crossing(usage=usage), generate_lines(("a\nb", "é"), "length")).decode().split("\n\n")[:-1]
    chunks = [orjson.loads(event.removeprefix("data: ")) for event in events]
    assert done == "data: [DONE]"
    assert {(chunk["id"], chunk["object"], chunk["model"]) for chunk in chunks} == {
        ("cmpl-ab12", "text_completion", "llama3:8b")
    }
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    assert [(choice["text"], choice["finish_reason"]) for choice in choices] == [
        ("a\nb", None),
        ("é", None),
        ("", "length"),
    ]
    assert [chunk["usage"]["completion_tokens"] for chunk in chunks if "usage" in chunk] == ([3] if usage else [])


def test_a_stream_may_be_cut_anywhere() -> None:
    lines = b"".join(generate_lines(("a🎈", '"done":true', "\u2028")))
    expected = told(crossing(usage=True), [lines])
    assert expected.endswith(b"data: [DONE]\n\n")
    for pieces in all_cuts(lines, pairs=False):
        assert told(crossing(usage=True), pieces) == expected


def test_thinking_has_no_place_here() -> None:
    prepared = prepare(Surface.COMPLETIONS, b'{"prompt":"hi","stream":true}')
    writing = CompletionsEncoder(Answering(prepared, "ab12", 1))
    assert writing.add(Reasoning("hm")) == []
    collector = ChoicesCollector()
    for _, payload in writing.add(Text("a")) + writing.add(Finish("tool_calls")):
        collector.add(payload)
    assert collector.choices()[0]["finish_reason"] == "stop"


def test_a_raw_prompt_is_not_put_into_a_conversation() -> None:
    prepared = prepare(Surface.OLLAMA_GENERATE, b'{"prompt":"hi","raw":true}')
    with pytest.raises(BadRequest) as caught:
        translate(prepared, Target(Surface.CHAT, "up"))
    assert caught.value.param == "raw"
