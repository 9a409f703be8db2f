"""Tool calls arrive whole and told apart, however a server spells their deltas; a finish says what is there."""

from typing import Any

import orjson
import pytest
from fakes.answers import DONE
from support.streams import codec_for, read

from edge.protocol.canonical import Target
from edge.protocol.chat.collect import ChatCollector
from edge.protocol.chat.repairs import TOOL_INDEX
from edge.protocol.dialects import DIALECTS
from edge.protocol.request import prepare
from edge.protocol.surface import Surface
from edge.protocol.transcode import transcoder, translate
from edge.protocol.transcode_ports import Answering
from edge.protocol.whole_answer import flaw

Delta = dict[str, Any]


def chunk(delta: Delta, finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    told = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    return b"data: " + orjson.dumps(told) + b"\n\n"


def call(identity: str | None, name: str | None, arguments: object = "", index: int | None = 0) -> Delta:
    told: Delta = {"type": "function", "function": {}}
    if index is not None:
        told["index"] = index
    if identity is not None:
        told["id"] = identity
    if name is not None:
        told["function"]["name"] = name
    if arguments != "absent":
        told["function"]["arguments"] = arguments
    return {"tool_calls": [told]}


def as_messages(*deltas: Delta, finish: str = "tool_calls") -> dict[str, Any]:
    """What a Messages client is answered, collected."""
    prepared = prepare(
        Surface.MESSAGES, orjson.dumps({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]})
    )
    asked = translate(prepared, Target(Surface.CHAT))
    source = DIALECTS[Surface.CHAT].codec(prepared, 2**20, frozenset())
    codec = transcoder(source, Surface.CHAT, Answering(prepared, "ab" * 16, 1, echo=asked.echo))
    codec.collect(DIALECTS[Surface.MESSAGES].collector(prepared))
    for event in [*map(chunk, deltas), chunk({}, finish), DONE]:
        codec.feed(event)
    return codec.answer()


def collected(*deltas: Delta, finish: str = "tool_calls") -> dict[str, Any]:
    """What a chat client is answered, collected."""
    codec = codec_for(Surface.CHAT)
    codec.collect(ChatCollector())
    for event in [*map(chunk, deltas), chunk({}, finish), DONE]:
        codec.feed(event)
    return codec.answer()["choices"][0]  # type: ignore[index,no-any-return]


def calls_of(choice: dict[str, Any]) -> list[tuple[str, str, object]]:
    told = choice["message"].get("tool_calls") or []
    return [(one["id"], one["function"]["name"], orjson.loads(one["function"]["arguments"])) for one in told]


def blocks_of(answer: dict[str, Any]) -> list[tuple[str, str, object]]:
    return [(block["id"], block["name"], block["input"]) for block in answer["content"] if block["type"] == "tool_use"]


PARALLEL = [("a", "f", {"x": 1}), ("b", "g", {"y": 2})]
SPELLINGS: dict[str, list[Delta]] = {
    "an index each": [call("a", "f", '{"x":1}'), call("b", "g", '{"y":2}', 1)],
    "one index for all": [call("a", "f", '{"x":1}'), call("b", "g", '{"y":2}')],
    "one index for all, in pieces": [
        call("a", "f"), call(None, None, '{"x"'), call(None, None, ":1}"),
        call("b", "g"), call(None, None, '{"y":2}'),
    ],
    "one index, the id each time": [call("a", "f", '{"x"'), call("a", None, ":1}"), call("b", "g", '{"y":2}')],
    "no index": [call("a", "f", '{"x":1}', None), call("b", "g", '{"y":2}', None)],
    "no index, in pieces": [
        call("a", "f", "", None), call(None, None, '{"x":1}', None), call("b", "g", "", None),
        call(None, None, '{"y":2}', None),
    ],
    "the name after the id": [
        call("a", None), call(None, "f", '{"x":1}'), call("b", None, "", 1), call(None, "g", '{"y":2}', 1),
    ],
    "an empty name first": [call("a", "", "", 0), call("a", "f", '{"x":1}'), call("b", "g", '{"y":2}', 1)],
    "arguments before the name": [call("a", None, '{"x"'), call("a", "f", ":1}"), call("b", "g", '{"y":2}', 1)],
    "arguments as an object": [call("a", "f", {"x": 1}), call("b", "g", {"y": 2}, 1)],
    "interleaved": [
        call("a", "f"), call("b", "g", "", 1), call(None, None, '{"x":1}'), call(None, None, '{"y":2}', 1),
    ],
}  # fmt: skip


@pytest.mark.parametrize("deltas", SPELLINGS.values(), ids=SPELLINGS)
def test_parallel_calls_are_told_apart(deltas: list[Delta]) -> None:
    assert blocks_of(as_messages(*deltas)) == PARALLEL
    if "an object" not in str(deltas) and not any(
        isinstance(d["tool_calls"][0]["function"].get("arguments"), dict) for d in deltas
    ):
        assert calls_of(collected(*deltas)) == PARALLEL


def test_calls_without_ids_are_told_apart_by_their_names() -> None:
    deltas = [call(None, "f", '{"x":1}'), call(None, "g", '{"y":2}')]
    assert [(name, given) for _, name, given in blocks_of(as_messages(*deltas))] == [("f", {"x": 1}), ("g", {"y": 2})]


@pytest.mark.parametrize("arguments", ["absent", "", " ", "\n", None, "null", '"null"', ["nu", "ll"]], ids=repr)
def test_no_arguments_are_an_empty_object(arguments: object) -> None:
    pieces = arguments if isinstance(arguments, list) else [arguments]
    deltas = [call("a", "f", pieces[0]), *(call(None, None, piece) for piece in pieces[1:])]
    assert blocks_of(as_messages(*deltas)) == [("a", "f", {})]
    assert calls_of(collected(*deltas)) == [("a", "f", {})]


@pytest.mark.parametrize("empty", [[], [{"tool_calls": []}], [{"tool_calls": [{}]}], [{"tool_calls": None}]], ids=str)
def test_a_finish_of_calls_without_a_call_is_an_ordinary_end(empty: list[Delta]) -> None:
    assert as_messages({"content": "I will look"}, *empty)["stop_reason"] == "end_turn"


def test_nor_is_it_one_of_calls_when_it_is_collected() -> None:
    assert collected({"content": "I will look"})["finish_reason"] == "stop"


def test_a_relay_that_is_asked_to_gives_parallel_calls_an_index_each() -> None:
    events = [chunk(delta) for delta in SPELLINGS["one index for all"]] + [chunk({}, "tool_calls"), DONE]
    relayed = read(codec_for(Surface.CHAT, frozenset({TOOL_INDEX})), events).data
    told = [orjson.loads(event[6:]) for event in relayed.split(b"\n\n") if event.startswith(b"data: {")]
    calls = [one for event in told for one in event["choices"][0]["delta"].get("tool_calls", [])]
    assert [one["index"] for one in calls] == [0, 1]


# --- content in parts


def test_content_as_a_list_of_parts_is_read() -> None:
    parts = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
        {"type": "text", "text": "blue"},
    ]
    answer = as_messages({"content": parts}, {"content": [{"type": "text", "text": " sky"}]}, finish="stop")
    assert "".join(block.get("text", "") for block in answer["content"]) == "blue sky"
    assert answer["content"][0]["thinking"] == "hm"
    choice = collected({"content": parts}, {"content": [{"type": "text", "text": " sky"}]}, finish="stop")
    assert (choice["message"]["content"], choice["message"]["reasoning_content"]) == ("blue sky", "hm")


@pytest.mark.parametrize("content", [[{"type": "novelty"}], {"text": "x"}, 7, [7]], ids=str)
def test_content_of_an_unknown_shape_is_an_error(content: object) -> None:
    prepared = prepare(
        Surface.OLLAMA_CHAT, orjson.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}]})
    )
    source = DIALECTS[Surface.CHAT].codec(prepared, 2**20, frozenset())
    codec = transcoder(source, Surface.CHAT, Answering(prepared, "ab" * 16, 1))
    done = read(codec, [chunk({"content": content}), chunk({}, "stop"), DONE])  # type: ignore[arg-type]
    assert done.ending == "bad"
    assert "cannot express" in str(done.error)


# --- finish reasons


BROKE = ["abort", "error", "insufficient_system_resource", "network_error", "ERROR"]


@pytest.mark.parametrize("finish", BROKE)
@pytest.mark.parametrize("surface", [Surface.CHAT, Surface.COMPLETIONS], ids=str)
def test_a_finish_reason_that_says_it_broke_is_an_error(surface: Surface, finish: str) -> None:
    done = read(codec_for(surface), [chunk({"content": "half"}), chunk({}, finish), DONE])
    assert (done.ending, done.status) == ("error", 502)
    assert finish in str(done.error)
    assert b"half" in done.data
    assert finish.encode() not in done.data


@pytest.mark.parametrize("finish", BROKE)
def test_so_it_is_in_a_whole_answer(finish: str) -> None:
    assert finish in flaw(Surface.CHAT, {"choices": [{"finish_reason": finish}]})


def test_an_unknown_finish_reason_is_passed_on_and_noted() -> None:
    codec = codec_for(Surface.CHAT)
    done = read(codec, [chunk({"content": "x"}), chunk({}, "novelty"), DONE])
    assert done.ending == "done"
    assert b"novelty" in done.data
    assert codec.unknown_finish == "novelty"


@pytest.mark.parametrize(
    ("surface", "answer"),
    [
        (Surface.CHAT, {"choices": []}),
        (Surface.CHAT, {"choices": None}),
        (Surface.CHAT, {}),
        (Surface.CHAT, []),
        (Surface.COMPLETIONS, {"choices": []}),
        (Surface.MESSAGES, {"type": "message"}),
        (Surface.RESPONSES, {"object": "response"}),
        (Surface.EMBEDDINGS, {"object": "list"}),
    ],
)
def test_json_without_an_answer_in_it_is_none(surface: Surface, answer: object) -> None:
    assert flaw(surface, answer)
