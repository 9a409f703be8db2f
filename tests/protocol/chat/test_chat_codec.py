"""Chat completions and completions: the same bytes and truth, whatever the model writes and the network cuts."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from fakes import answers as say
from hypothesis import given
from hypothesis import strategies as st
from support.streams import FORGERIES, all_cuts, codec_for, compact, cut, cuts, goldens, read, slow, unhurried

from edge.errors import UpstreamBroken, UpstreamCut
from edge.protocol.batch import Usage
from edge.protocol.chat.codec import DROP_NULL_EVENTS
from edge.protocol.chat.collect import ChatCollector
from edge.protocol.chat.format import ChatFormat
from edge.protocol.surface import Surface

CHAT, COMPLETIONS = Surface.CHAT, Surface.COMPLETIONS
ASKED = {"stream_options": {"include_usage": True}}
DONE = say.DONE

Dumps = Callable[[Any], bytes]
WRITERS: dict[str, Dumps] = {
    "compact": compact,
    "spaced": lambda payload: json.dumps(payload).encode(),
    "spaced UTF-8": lambda payload: json.dumps(payload, ensure_ascii=False).encode(),
}


def vllm(delta: Any, index: int = 0, finish: str | None = None) -> Any:
    choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish, "token_ids": None}
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}


def llama_cpp(delta: Any, index: int = 0, finish: str | None = None) -> Any:
    choice = {"finish_reason": finish, "index": index, "delta": delta}
    return {"choices": [choice], "created": 1, "id": "chatcmpl-1", "model": "m", "object": "chat.completion.chunk"}


def text_chunk(delta: Any, index: int = 0, finish: str | None = None) -> Any:
    choice = {"index": index, "text": delta.get("content") or "", "logprobs": None, "finish_reason": finish}
    return {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m", "choices": [choice]}


def write(payload: Any, dumps: Dumps = compact, end: bytes = b"\n") -> bytes:
    return b"data: " + dumps(payload) + end + end


texts = st.one_of(st.sampled_from(FORGERIES), st.text(min_size=1, max_size=6))
deltas = st.one_of(
    texts.map(lambda text: {"content": text}),
    texts.map(lambda text: {"content": text}),
    texts.map(lambda text: {"reasoning_content": text}),
    texts.map(lambda text: {"tool_calls": [{"index": 0, "function": {"arguments": text}}]}),
    st.sampled_from([{"content": ""}, {"content": None}, {}, {"role": "assistant", "content": "x"}]),
)


@st.composite
def streams(draw: st.DrawFn, choices: int = 1) -> list[bytes]:
    """The events of an answer as a server would write it: whole, or ended too early in some way."""
    chunk = draw(st.sampled_from([vllm, llama_cpp, text_chunk]))
    dumps = draw(st.sampled_from(list(WRITERS.values())))
    end = draw(st.sampled_from([b"\n", b"\n", b"\r\n"]))
    indexes = st.integers(min_value=0, max_value=choices - 1)
    tokens = [write(chunk(delta, draw(indexes)), dumps, end) for delta in draw(st.lists(deltas, max_size=12))]
    tokens.insert(0, write(chunk({"role": "assistant", "content": ""}), dumps, end))
    if draw(st.booleans()):
        tokens.insert(draw(st.integers(min_value=0, max_value=len(tokens))), b": ping" + end + end)
    finishes = [write(chunk({}, index, "stop"), dumps, end) for index in range(choices)]
    usage = write({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": len(tokens)}}, dumps, end)
    last = b"data: [DONE]" + end + end
    error = write({"error": {"message": "broke", "code": 500}}, dumps, end)
    endings = [[*finishes, usage, last], [*finishes, last], [*finishes, usage], finishes[1:], [last], [error, last]]
    return tokens + draw(st.sampled_from(endings))


@unhurried
@given(streams(), cuts)
def test_the_fast_path_tells_what_the_slow_one_does(events: list[bytes], positions: list[int]) -> None:
    expected = read(slow(codec_for(CHAT)), events)
    assert read(codec_for(CHAT), cut(b"".join(events), positions)) == expected


@unhurried
@given(st.integers(2, 3).flatmap(lambda n: st.tuples(st.just(n), streams(n))), cuts)
def test_several_choices_are_told_the_same_for_every_cut(case: tuple[int, list[bytes]], positions: list[int]) -> None:
    n, events = case
    expected = read(slow(codec_for(CHAT, n=n)), events)
    assert read(codec_for(CHAT, n=n), cut(b"".join(events), positions)) == expected


def is_usage(block: bytes) -> bool:
    return b'"choices":[]' in block and b'"usage":{' in block


def without_usage(blocks: list[bytes]) -> list[bytes]:
    """As the server would have sent them unasked: what is beside the usage is in the event before it."""
    kept: list[bytes] = []
    for block in blocks:
        if not is_usage(block):
            kept.append(block)
            continue
        before, usage = (orjson.loads(data.removeprefix(b"data: ")) for data in (kept[-1], block))
        more = {name: value for name, value in usage.items() if name not in (*before, "usage")}
        if more:
            kept[-1] = kept[-1].rstrip()[:-1] + b"," + orjson.dumps(more)[1:] + b"\n\n"
    return kept


def choices_of(path: Path) -> int:
    return len(orjson.loads(path.with_suffix(".json").read_bytes())["choices"])


@pytest.mark.parametrize("path", goldens("chat", "completions"), ids=lambda path: path.stem)
@pytest.mark.parametrize("step", [1, 7, 300, 2**20])
def test_real_streams_are_relayed_byte_for_byte(path: Path, step: int) -> None:
    surface = CHAT if path.stem.startswith("chat") else COMPLETIONS
    stream = path.read_bytes()
    positions = range(0, len(stream), step)
    n = choices_of(path)
    blocks = [block + b"\n\n" for block in stream.split(b"\n\n") if block and not block.startswith(b":")]
    wanted = read(codec_for(surface, n=n, **ASKED), cut(stream, positions))
    assert (wanted.data, wanted.ending) == (b"".join(blocks), "done")
    assert (wanted.tokens > 0) is ("empty" not in path.stem)
    unwanted = read(codec_for(surface, n=n), cut(stream, positions))
    assert unwanted.data == b"".join(without_usage(blocks))
    assert (unwanted.usage, unwanted.tokens, unwanted.ending) == (wanted.usage, wanted.tokens, "done")


@pytest.mark.parametrize("dumps", WRITERS.values(), ids=WRITERS)
@pytest.mark.parametrize("text", FORGERIES)
def test_model_text_forges_nothing(text: str, dumps: Dumps) -> None:
    """Not in text, tool calls, reasoning or completions; in one read or in two."""
    for chunk in (vllm, llama_cpp, text_chunk):
        tokens = [{"content": "a"}, {"content": text}, {"content": "b"}]
        if chunk is not text_chunk:
            call = {"index": 0, "id": text, "function": {"name": text, "arguments": text}}
            tokens += [{"reasoning_content": text}, {"tool_calls": [call]}]
        events = [write(chunk(delta), dumps) for delta in tokens]
        stream = b"".join(events)
        for pieces in ([stream], events, [events[0], stream[len(events[0]) :]], cut(stream, range(0, len(stream), 11))):
            seen = read(codec_for(CHAT), pieces)
            assert (seen.data, seen.events, seen.tokens) == (stream, len(tokens), len(tokens))
            assert (seen.ending, seen.usage, seen.error) == ("cut", None, None)


def looked_at(event: bytes) -> str:
    """How a codec takes an event in the middle of a stream."""
    codec = codec_for(CHAT)
    codec.feed(say.chat_token("a"))
    return read(codec, [event], eof=False).ending


@pytest.mark.parametrize(
    "event",
    [
        b'data: {"choices":[{"finish_reason":null,"del\n\n',
        b'data: {"choices":[{"finish_reason":null}]\n\n',
        b"data: \n\n",
        b"data\n\n",
        b"data: hello\n\n",
        b"data: DONE\n\n",
        b"data: {'a': 1}\n\n",
        b"data: NaN\n\n",
        b'data: {"a":"\xff"}\n\n',
        b'data: {"a":"\n\n',
        b'data: {"choices":[{"finish_reason":null}]}\ndata: {"choices":[]}\n\n',
    ],
)
def test_what_is_no_json_is_a_bad_stream(event: bytes) -> None:
    assert looked_at(event) == "bad"


@pytest.mark.parametrize("event", [b"null", b"7", b'"text"', b"[]", b"{}", b'{"choices":null}', b'{"choices":[1,{}]}'])
def test_json_of_another_shape_is_relayed_and_means_nothing(event: bytes) -> None:
    stream = b"data: " + event + b"\n\n"
    seen = read(codec_for(CHAT), [stream])
    assert (seen.data, seen.events, seen.tokens, seen.ending) == (stream, 1, 0, "cut")


def test_null_events_are_dropped_where_that_repair_is_on() -> None:
    """llama.cpp begins the answer to a list of prompts with one; the SDKs cannot take it."""
    codec = codec_for(CHAT, frozenset({DROP_NULL_EVENTS}))
    assert read(codec, [b"data: null\n\n" + say.chat_token("a")]).data == say.chat_token("a")


def test_what_came_before_a_malformed_event_is_not_lost() -> None:
    whole = say.chat_role() + say.chat_token("a") + say.chat_token("b")
    stream = whole + b'data: {"cho\n\n' + say.chat_finish() + DONE
    for pieces in all_cuts(stream, pairs=False):
        seen = read(codec_for(CHAT), pieces)
        assert (seen.data, seen.tokens, seen.ending) == (whole, 2, "bad")


def test_what_came_before_a_too_large_event_is_not_lost() -> None:
    whole = say.chat_role() + say.chat_token("a")
    stream = whole + say.chat_token("b" * 1000) + say.chat_finish() + DONE
    for step in (1, 100, 10_000):
        seen = read(codec_for(CHAT, max_event=1000), cut(stream, range(0, len(stream), step)))
        assert (seen.data, seen.ending) == (whole, "bad")
        assert seen.error == "it sent too large an event: an event is over 1000 bytes (stream.max_event_bytes)"


TOKEN, FINISH, USAGE = say.chat_token("a"), say.chat_finish(), say.chat_usage()
ERROR = say.sse_error()


@pytest.mark.parametrize(
    ("events", "data", "ending"),
    [
        ([TOKEN, FINISH, DONE], TOKEN + FINISH + DONE, "done"),
        ([TOKEN, FINISH], TOKEN + FINISH, "done"),
        ([TOKEN, FINISH, USAGE, DONE], TOKEN + FINISH + DONE, "done"),
        ([TOKEN, FINISH, DONE, TOKEN], TOKEN + FINISH + DONE, "done"),
        ([FINISH, DONE], FINISH + DONE, "done"),
        ([TOKEN, DONE], TOKEN, "cut"),
        ([TOKEN], TOKEN, "cut"),
        ([TOKEN, USAGE], TOKEN, "cut"),
        ([DONE], b"", "cut"),
        ([], b"", "cut"),
        ([TOKEN, ERROR, DONE], TOKEN + ERROR, "error told"),
        ([TOKEN, FINISH, ERROR, DONE], TOKEN + FINISH + ERROR, "error told"),
        ([ERROR], ERROR, "error told"),
    ],
)
def test_how_a_stream_ends(events: list[bytes], data: bytes, ending: str) -> None:
    """A terminator that is not true is not passed on, and none counts after an error."""
    stream = b"".join(events)
    for pieces in (events, [stream], cut(stream, range(len(stream)))):
        seen = read(codec_for(CHAT), pieces)
        assert (seen.data, seen.ending) == (data, ending)


@pytest.mark.parametrize(
    ("finished", "terminated", "ending"),
    [([0, 1], True, "done"), ([0, 1], False, "done"), ([1], True, "cut"), ([1], False, "cut"), ([], True, "cut")],
)
def test_every_choice_that_began_must_finish(finished: list[int], terminated: bool, ending: str) -> None:
    begun = [say.chat_token("a", 0), say.chat_token("b", 1)]
    events = [*begun, *(say.chat_finish("stop", index) for index in finished), *([DONE] if terminated else [])]
    for pieces in (events, [b"".join(events)]):
        assert read(codec_for(CHAT, n=2), pieces).ending == ending


def test_a_choice_that_never_began_is_missed_only_without_a_terminator() -> None:
    events = [say.chat_token("a"), say.chat_finish()]
    assert read(codec_for(CHAT, n=2), events).ending == "cut"
    assert read(codec_for(CHAT, n=2), [*events, DONE]).ending == "done"
    completion = [say.completion_token("a", 1), say.completion_finish("length", 1)]
    assert read(codec_for(COMPLETIONS, prompt=["a", "b"]), completion).ending == "cut"


def test_the_usage_chunk_is_stripped_only_if_edge_asked_for_it() -> None:
    events = [TOKEN, FINISH, say.chat_usage(7, 3, 2), DONE]
    usage = Usage(7, 3, 2)
    stripped = read(codec_for(CHAT), events)
    assert (stripped.data, stripped.events, stripped.usage) == (TOKEN + FINISH + DONE, 3, usage)
    asked = read(codec_for(CHAT, **ASKED), events)
    assert (asked.data, asked.events, asked.usage) == (b"".join(events), 4, usage)


def test_usage_beside_content_is_read_and_stays() -> None:
    """vLLM's ``continuous_usage_stats``; and an empty ``choices`` without usage (Azure's filters) is no usage chunk."""
    filters = say.chat_chunk([], prompt_filter_results=[])
    beside = say.chat_delta({"content": "a"}, usage=say.usage_body(7, 2))
    null = say.chat_delta({"content": "a"}, usage=None)
    for pieces in ([filters, null, beside, null], [filters + null + beside + null]):
        seen = read(codec_for(CHAT), pieces)
        assert (seen.data, seen.tokens, seen.usage) == (filters + null + beside + null, 3, Usage(7, 2))


def test_usage_in_every_detail() -> None:
    body = {**say.usage_body(7, 3, 5), "completion_tokens_details": {"reasoning_tokens": 2}}
    assert read(codec_for(CHAT), [say.chat_chunk([], usage=body)]).usage == Usage(7, 3, 5, 2)
    odd = {"prompt_tokens": "7", "prompt_tokens_details": [], "completion_tokens": None}
    assert read(codec_for(CHAT), [say.chat_chunk([], usage=odd)]).usage == Usage()


@pytest.mark.parametrize(
    ("event", "status", "message", "told"),
    [
        (b'data: {"error":{"message":"m","type":"t","param":null,"code":429}}\n\n', 429, "m", True),  # vLLM
        (b'data: {"error":{"code":400,"message":"m","type":"invalid_request_error"}}\n\n', 400, "m", True),  # llama.cpp
        (b'data: {"error": {"message": "m", "code": "c"}}\r\n\r\n', 502, "m", True),
        (b'event: error\ndata: {"error":{"message":"m"}}\n\n', 502, "m", True),
        (say.chat_delta({"content": ""}, 0, "error", error={"code": 503, "message": "m"}), 503, "m", True),
        (say.chat_delta({"content": "b"}, error={"code": 503, "message": "m"}), 503, "m", True),
        (b'data: {"error":"m"}\n\n', 502, "m", False),
        (b'event: error\ndata: {"message":"m"}\n\n', 502, "m", False),
        (b'data: {"error":{"code":500}}\n\n', 500, "the upstream failed: no reason given", False),
        (b"event: error\ndata: {}\n\n", 502, "the upstream failed: no reason given", False),
    ],
)  # fmt: skip
@pytest.mark.parametrize("started", [False, True])
def test_an_error_event_ends_the_stream(event: bytes, status: int, message: str, *, told: bool, started: bool) -> None:
    """It is passed on if an SDK finds the message in it, else Edge tells it; ``[DONE]`` after it is no success."""
    before = TOKEN if started else b""
    for pieces in ([before + event + DONE], [before, event, DONE], [before, event.rstrip(b"\r\n")]):
        seen = read(codec_for(CHAT), filter(None, pieces))
        assert (seen.ending, seen.status, seen.error) == ("error told" if told else "error", status, message)
        assert seen.data.rstrip(b"\r\n") == (before + event * told).rstrip(b"\r\n")


def test_an_error_field_that_is_null_is_none() -> None:
    assert read(codec_for(CHAT), [say.chat_delta({"content": "a"}, error=None), FINISH]).ending == "done"


def test_the_upstreams_ids_and_comments_never_reach_the_client() -> None:
    """Ids crash the official OpenAI client with the next heartbeat, and heartbeats are Edge's own business."""
    numbered = [b": up\n\n", b"id: 1\n" + TOKEN, TOKEN[:-1] + b"retry: 5\n\n", b"id: 3\n\n", TOKEN, FINISH, DONE]
    for pieces in (numbered, [b"".join(numbered)]):
        for before in ([], [TOKEN]):
            seen = read(codec_for(CHAT), before + pieces)
            assert (seen.data, seen.ending) == (b"".join([*before, TOKEN * 3, FINISH, DONE]), "done")
    joined = TOKEN.replace(b',"choices"', b'\rid: 7\rdata: ,"choices"')
    seen = read(codec_for(CHAT), [TOKEN, joined])
    assert seen.data == TOKEN + joined.replace(b"\rid: 7\r", b"\n")


@pytest.mark.parametrize("last", [FINISH, DONE, ERROR, TOKEN])
def test_a_last_event_without_its_blank_line_counts_only_when_whole(last: bytes) -> None:
    before = TOKEN + (FINISH if last is DONE else b"")
    whole = read(codec_for(CHAT), [before + last])
    line = last.rstrip(b"\n")
    for size in range(len(line) + 2):
        seen = read(codec_for(CHAT), [before + last[:size]])
        if size >= len(line):
            assert (seen.data, seen.ending, seen.tokens) == (whole.data, whole.ending, whole.tokens)
        else:
            assert (seen.data, seen.ending) == (before, "done" if last is DONE else "cut")


def test_empty_deltas_are_no_tokens_on_either_path() -> None:
    """A server that goes on sending nothing has fallen silent."""
    for nothing in ({}, {"content": ""}, {"content": None}, {"role": "assistant", "content": ""}):
        assert read(codec_for(CHAT), [say.chat_delta(nothing)]).tokens == 0
        assert read(codec_for(CHAT), [TOKEN, say.chat_delta(nothing)]).tokens == 1
    assert read(codec_for(COMPLETIONS), [say.completion_token("a"), say.completion_token("")]).tokens == 1


def test_what_edge_says_on_this_surface() -> None:
    codec = codec_for(CHAT)
    own = ChatFormat("m", "req_1")
    assert ChatFormat.terminator == DONE
    assert own.heartbeat(lively=False) == own.heartbeat(lively=True) == b": ping\n\n"
    event = own.error_event(UpstreamCut("cut\noff"), codec.progress())
    assert event.startswith(b"data: {")
    assert (event.count(b"\n"), event[-2:]) == (2, b"\n\n")
    error = {"message": "cut\noff", "type": "server_error", "param": None, "code": "upstream_cut"}
    assert orjson.loads(event[6:]) == {"error": error}
    assert read(codec_for(CHAT), [own.error_event(UpstreamBroken("x"))]).ending == "error told"


def test_a_piece_of_a_calls_arguments_is_known_like_one_of_text_and_the_beginning_of_a_call_is_not() -> None:
    def call(**function: str) -> bytes:
        return say.chat_delta({"tool_calls": [{"index": 0, "function": function}]})

    codec = codec_for(CHAT)
    begun = say.chat_delta({"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": "x"}}]})
    for event in (say.chat_role(), begun, begun):
        assert codec.plain(event) == 0
        codec.feed(event)
    assert codec.plain(call(arguments='{"a":')) == 0
    codec.feed(call(arguments='{"a":'))
    assert codec.plain(call(arguments=' "b"}') * 2) == 2
    for odd in (call(arguments=""), call(arguments="x", name="f"), begun, say.chat_finish("tool_calls")):
        assert codec.plain(odd) == 0


@pytest.mark.parametrize("size", [1, 9])
def test_what_one_event_tells_beside_its_text_is_collected_where_it_belongs(size: int) -> None:
    """Events of the same shape are collected as one, but for one that tells more."""
    codec = codec_for(CHAT)
    codec.collect(ChatCollector())
    both = say.chat_delta({"content": "c", "reasoning_content": "hm"})
    stream = [say.chat_role(), *map(say.chat_token, "ab"), both, say.chat_token("d"), say.chat_finish(), DONE]
    for at in range(0, len(stream), size):
        codec.feed(b"".join(stream[at : at + size]))
    message = codec.answer()["choices"][0]["message"]
    assert (message["content"], message["reasoning_content"]) == ("abcd", "hm")
