"""A request body is bounded before it is parsed; what was checked is what is sent, and what is wrong is named."""

import pickle
import tracemalloc
from dataclasses import replace
from time import process_time
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.hanging import HANG_S
from support.streams import unhurried

from edge.errors import BadRequest
from edge.protocol.request import MAX_DEPTH, MAX_ELEMENTS, Prepared, parse_object, prepare, unstreamed
from edge.protocol.surface import GENERATING, STREAMS_BY_DEFAULT, Surface

CHAT, COMPLETIONS, MESSAGES, RESPONSES = Surface.CHAT, Surface.COMPLETIONS, Surface.MESSAGES, Surface.RESPONSES
every_surface = pytest.mark.parametrize("surface", list(Surface))


def raw(**fields: Any) -> bytes:
    return orjson.dumps({"model": "m", "messages": [], **fields})


def sent(prepared: Prepared) -> Any:
    return orjson.loads(prepared.body)


def refusal(body: bytes, surface: Surface = CHAT) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        prepare(surface, body)
    return caught.value


def test_a_stream_is_asked_for_as_it_is_with_usage() -> None:
    prepared = prepare(CHAT, raw(stream=True, x=1))
    asked = {"model": "m", "messages": [], "stream": True, "x": 1, "stream_options": {"include_usage": True}}
    assert sent(prepared) == asked
    assert prepared == Prepared(
        CHAT, "m", True, True, prepared.body, True, 1, len(raw(stream=True, x=1)), tokens=prepared.tokens
    )


@pytest.mark.parametrize("stream", [False, None])
@pytest.mark.parametrize("surface", sorted(GENERATING))
def test_an_answer_in_one_piece_is_streamed_upstream_all_the_same(surface: Surface, *, stream: bool | None) -> None:
    """Servers do not notice a client that leaves while it waits for one piece; some APIs stream unless told not to."""
    prepared = prepare(surface, raw(messages=[{"role": "user", "content": "hi"}], prompt="hi", stream=stream))
    streams = stream is None and surface in STREAMS_BY_DEFAULT
    assert (prepared.stream, prepared.streamed, prepared.strip_usage) == (streams, True, False)
    assert sent(prepared)["stream"] is True
    assert ("stream_options" in sent(prepared)) is (surface in (CHAT, COMPLETIONS))


@pytest.mark.parametrize("surface", [Surface.EMBEDDINGS, Surface.COUNT_TOKENS])
def test_what_is_not_generated_is_not_streamed(surface: Surface) -> None:
    body = {"model": "m", "input": "a", "stream": False}
    prepared = prepare(surface, orjson.dumps(body))
    assert (prepared.stream, prepared.streamed, sent(prepared)) == (False, False, body)
    assert refusal(raw(stream=True), surface).param == "stream"


@pytest.mark.parametrize(
    ("fields", "streamed"),
    [
        ({"prompt_logprobs": 1}, False),
        ({"best_of": 2}, False),
        ({"prompt_logprobs": 0}, False),
        ({"echo": True}, False),
        ({"kv_transfer_params": {"do_remote_decode": True}}, False),
        ({"ec_transfer_params": {"x": 1}}, False),
        ({"return_routed_experts": True}, False),
        ({"routed_experts_prompt_start": 0}, False),
        ({"prompt_logprobs": None, "best_of": 1, "echo": False, "kv_transfer_params": None}, True),
        ({"routed_experts_prompt_start": None, "return_routed_experts": False}, True),
        ({"best_of": 2, "stream": True}, True),  # the upstream's to refuse
    ],
)
def test_what_no_server_streams_goes_upstream_as_it_is(fields: dict[str, Any], *, streamed: bool) -> None:
    prepared = prepare(COMPLETIONS, raw(**fields))
    assert prepared.streamed is streamed
    if not streamed:
        assert sent(prepared) == {"model": "m", "messages": [], **fields}


def test_unknown_fields_pass_through_untouched() -> None:
    """Those of llama.cpp and vLLM, and those that nobody knows yet."""
    extra = {
        "cache_prompt": False, "n_probs": 3, "grammar": 'root ::= "a"', "slot_id": -1, "timings_per_token": True,
        "top_k": 40, "min_p": 0.05, "priority": -3, "guided_json": {"a": [1.5, None]}, "seed": 2**63,
        "logit_bias": {"7": -100}, "continue_final_message": True, "chat_template_kwargs": {"enable_thinking": False},
        "é\u2028": "\x00🎈",
    }  # fmt: skip
    asked = sent(prepare(CHAT, raw(stream=True, **extra)))
    assert {name: asked[name] for name in extra} == extra


@pytest.mark.parametrize(
    ("options", "merged", "strip"),
    [
        (None, {"include_usage": True}, True),
        ({}, {"include_usage": True}, True),
        ({"include_usage": None}, {"include_usage": True}, True),
        ({"include_usage": False, "x": 1}, {"include_usage": True, "x": 1}, True),
        ({"include_usage": True, "continuous_usage_stats": True},
         {"include_usage": True, "continuous_usage_stats": True}, False),
    ],
)  # fmt: skip
def test_stream_options_are_merged(options: Any, merged: Any, *, strip: bool) -> None:
    """The usage chunk is kept from a client that did not ask for it."""
    prepared = prepare(CHAT, raw(stream=True, stream_options=options))
    assert (sent(prepared)["stream_options"], prepared.strip_usage) == (merged, strip)
    assert prepare(CHAT, raw(stream_options=options)).strip_usage is False
    assert sent(prepare(RESPONSES, raw(stream=True, stream_options=options)))["stream_options"] == options


@pytest.mark.parametrize(
    ("surface", "fields", "choices"),
    [
        (CHAT, {}, 1),
        (CHAT, {"n": None}, 1),
        (CHAT, {"n": 3}, 3),
        (CHAT, {"n": 0}, 1),
        (CHAT, {"n": 2, "prompt": ["a", "b"]}, 2),
        (COMPLETIONS, {"prompt": "a", "n": 2}, 2),
        (COMPLETIONS, {"prompt": ["a"]}, 1),
        (COMPLETIONS, {"prompt": ["a", "b"], "n": 2}, 4),
        (COMPLETIONS, {"prompt": [1, 2, 3]}, 1),
        (COMPLETIONS, {"prompt": [[1, 2], [3]]}, 2),
        (COMPLETIONS, {"prompt": []}, 1),
        (MESSAGES, {"n": "x"}, 1),
    ],
)
def test_how_many_choices_must_finish(surface: Surface, fields: dict[str, Any], choices: int) -> None:
    assert prepare(surface, raw(**fields)).choices == choices


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": 7}, "model"),
        ({"model": ["m"]}, "model"),
        ({"stream": 1}, "stream"),
        ({"stream": "true"}, "stream"),
        ({"stream_options": True}, "stream_options"),
        ({"stream_options": {"include_usage": "yes"}}, "stream_options.include_usage"),
        ({"n": "2"}, "n"),
        ({"n": 2.0}, "n"),
        ({"n": True}, "n"),
        ({"n": 2**64}, "n"),
        ({"messages": None}, "messages"),
        ({"messages": {}}, "messages"),
    ],
)
def test_a_malformed_field_is_named(fields: dict[str, Any], param: str) -> None:
    fields = {
        key: value if value != 2**64 else orjson.Fragment(b"18446744073709551616") for key, value in fields.items()
    }
    error = refusal(raw(**fields))
    assert (error.param, error.status) == (param, 400)
    assert error.message.startswith(f"{param}: ")


@every_surface
@pytest.mark.parametrize(
    "body",
    [
        b"", b" \r\n", b"[]", b"null", b'"text"', b"7", b"{", b"{}x", b"{} {}", b'{"a":1,}', b"{'a':1}", b'{"a":NaN}',
        b'{"a":Infinity}', b'{"a":01}', b'{"a":"\xff"}', b'{"a":"\n"}',
        b'{"a":"\\x"}', b"\xef\xbb\xbf{}", b'{"a"', b"{a:1}", b"\x00", '{"a":1}'.encode("utf-16"),
    ],
)  # fmt: skip
def test_what_is_no_json_object_is_refused(surface: Surface, body: bytes) -> None:
    error = refusal(body, surface)
    assert (error.status, error.param) == (400, None)
    assert error.message.startswith("the request body ")


@pytest.mark.parametrize("surface", [CHAT, MESSAGES])
def test_messages_are_required(surface: Surface) -> None:
    assert refusal(b"{}", surface).param == "messages"


def test_of_duplicate_keys_the_last_one_is_checked_and_sent() -> None:
    prepared = prepare(CHAT, b'{"messages":1,"stream":"x","model":"a","messages":[],"stream":true,"model":"b"}')
    assert (prepared.model, prepared.stream) == ("b", True)
    assert (
        prepared.body.count(b'"model"') == prepared.body.count(b'"stream"') == prepared.body.count(b'"messages"') == 1
    )
    assert refusal(b'{"messages":[],"stream":true,"stream":"x"}').param == "stream"


@pytest.mark.parametrize(
    "key", ["Stream", "STREAM", "\u017ftream", "Model", "N", "Stream_Options", "Messages", "Best_Of"]
)
def test_a_checked_field_has_one_spelling(key: str) -> None:
    """Servers in Go take keys in any case: a second spelling would undo what was checked."""
    plain = prepare(CHAT, raw(stream=True, n=2))
    for body in (raw(stream=True, n=2, **{key: "x"}), orjson.dumps({key: "x"})[:-1] + b"," + raw(stream=True, n=2)[1:]):
        assert sent(prepare(CHAT, body)) == sent(plain)
    assert sent(prepare(CHAT, raw(Temperature=1, TOOLS=[])))["TOOLS"] == []


def test_an_option_has_one_spelling() -> None:
    prepared = prepare(CHAT, raw(stream=True, stream_options={"Include_Usage": False, "X": 1}))
    assert sent(prepared)["stream_options"] == {"include_usage": True, "X": 1}
    assert prepared.strip_usage


def nested(depth: int, opener: bytes, closer: bytes) -> bytes:
    return b'{"messages":[],"a":' + opener * (depth - 1) + b"1" + closer * (depth - 1) + b"}"


@pytest.mark.parametrize(("opener", "closer"), [(b"[", b"]"), (b'{"a":', b"}"), (b'[{"":', b"}]")])
@pytest.mark.parametrize("depth", [201, 300, 1025, 100_000])
def test_deep_nesting_is_refused(depth: int, opener: bytes, closer: bytes) -> None:
    assert "nested more than 200 levels" in refusal(nested(depth, opener, closer)).message


def test_nesting_up_to_the_bound_is_sent_on() -> None:
    body = nested(MAX_DEPTH, b"[", b"]")
    assert sent(prepare(CHAT, body))["a"] == orjson.loads(body)["a"]
    shallow = b'{"messages":[' + b",".join([b'{"content":[{"text":"a"}]}'] * 1000) + b"]}"
    assert len(sent(prepare(CHAT, shallow))["messages"]) == 1000, "many brackets are not deep ones"


@pytest.mark.parametrize("element", [b"{}", b"[]", b"1", b'""', b'"a":1'])
def test_too_many_elements_are_refused(element: bytes) -> None:
    """Each of them costs far more memory than its bytes."""
    opener, closer = (b"{", b"}") if b":" in element else (b"[", b"]")
    body = b'{"messages":[],"a":' + opener + b",".join([element] * (MAX_ELEMENTS + 1)) + closer + b"}"
    assert f"more than {MAX_ELEMENTS} elements" in refusal(body).message


@pytest.mark.parametrize(
    "text", ["[" * 1000, "{" * 1000, '\\"[' * 1000, "]}" * 1000, "," * (MAX_ELEMENTS + 1), "[," * MAX_ELEMENTS]
)
def test_brackets_and_commas_in_text_are_not_counted(text: str) -> None:
    message = {"role": "user", "content": text}
    assert sent(prepare(CHAT, raw(messages=[message])))["messages"] == [message]


@pytest.mark.parametrize(
    "tail",
    [b'"' + b'\\"' * 2_000_000, b'"' + b"\\" * 2_000_001, b"]" * 4_000_000, b"}" * 4_000_000, b'""' * 2_000_000],
    ids=["open string of quotes", "open string of backslashes", "closing brackets", "closing braces", "strings"],
)
def test_a_hostile_body_is_refused_in_no_time(tail: bytes) -> None:
    """Looking for structure takes time that grows with the size (0.1 s) and not with its square (minutes)."""
    started = process_time()
    refusal(b'{"a":' + b"[]," * 201 + tail)
    assert process_time() - started < HANG_S


def test_a_body_of_strings_takes_next_to_no_memory_to_refuse() -> None:
    """Its strings are never held all at once: 32 MiB of them took 1.8 GB."""
    body = b'{"a":' + b"[]," * 201 + b'"",' * MAX_ELEMENTS
    tracemalloc.start()
    error = refusal(body)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "elements" in error.message
    assert peak < len(body)


numbers = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


@unhurried
@given(json_values)
def test_any_json_is_sent_on_as_it_was(value: Any) -> None:
    assert sent(prepare(CHAT, raw(zz=value)))["zz"] == value


@unhurried
@given(st.binary(max_size=60) | st.text('{}[],:"\\ae1', max_size=60).map(str.encode))
def test_any_bytes_are_parsed_or_refused(data: bytes) -> None:
    """Never anything but the one error; and nothing is taken that JSON does not know."""
    try:
        body = parse_object(data)
    except BadRequest:
        return
    assert body == orjson.loads(data)


@pytest.mark.parametrize("surface", [CHAT, COMPLETIONS, RESPONSES, Surface.MESSAGES])
@pytest.mark.parametrize("more", [{}, {"stream": False}, {"stream": None, "stream_options": {"x": 1}}])
def test_unstreamed_is_the_request_as_the_client_sent_it(surface: Surface, more: dict[str, Any]) -> None:
    """Also without being parsed once more, which a body of megabytes would take long for."""
    prepared = prepare(surface, raw(stop="x", **more))
    options = {} if surface in (CHAT, COMPLETIONS) else {k: v for k, v in more.items() if k == "stream_options"}
    again = unstreamed(prepared)
    assert prepared.stream_wish
    assert prepared.body.startswith(again.body.removesuffix(b',"stream":false}'))
    assert sent(again) == {"model": "m", "messages": [], "stop": "x", **options, "stream": False}
    assert unstreamed(replace(prepared, stream_wish=b"")).streamed is False


@pytest.mark.parametrize("body", [b"{}", b'{"stream":false}', b'{"stream_options":{}}'])
def test_unstreamed_of_a_body_with_nothing_in_it(body: bytes) -> None:
    assert sent(unstreamed(prepare(COMPLETIONS, body))) == {"stream": False}


@pytest.mark.parametrize("stream", [True, False])
def test_a_response_in_the_background_is_refused(*, stream: bool) -> None:
    """It could never be fetched."""
    assert refusal(raw(input="a", background=True, stream=stream), RESPONSES).param == "background"
    assert prepare(RESPONSES, raw(input="a", background=False)).streamed
    assert prepare(CHAT, raw(background=True)).streamed, "no field of any other surface"


def test_unstreamed_asks_for_one_piece() -> None:
    prepared = prepare(CHAT, raw(x=1, n=2))
    again = unstreamed(prepared)
    assert sent(again) == {"model": "m", "messages": [], "x": 1, "n": 2, "stream": False}
    assert (again.streamed, again.stream, again.choices, again.model) == (False, False, 2, "m")


def test_the_outcome_survives_the_way_from_another_process() -> None:
    """Big bodies are prepared in one."""
    prepared = prepare(CHAT, raw(stream=True))
    assert pickle.loads(pickle.dumps(prepared)) == prepared  # noqa: S301 - our own
    error = refusal(raw(stream="x"))
    told = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert isinstance(told, BadRequest)
    assert (told.message, told.param, told.code, told.status) == (error.message, "stream", "invalid_request", 400)


@pytest.mark.parametrize(
    ("surface", "fields", "sequences"),
    [
        (CHAT, {"n": 4}, 4),
        (COMPLETIONS, {"prompt": ["a", "b"], "n": 2}, 4),
        (COMPLETIONS, {"prompt": [1, 2, 3]}, 1),
        (RESPONSES, {"input": [{"role": "user", "content": "a"}] * 3}, 1),
        (Surface.EMBEDDINGS, {"input": "a"}, 1),
        (Surface.EMBEDDINGS, {"input": ["a", "b", "c"]}, 3),
        (Surface.EMBEDDINGS, {"input": [[1, 2], [3]]}, 2),
        (Surface.EMBEDDINGS, {"input": [1, 2, 3]}, 1),
        (Surface.EMBEDDINGS, {"input": []}, 1),
        (Surface.RERANK, {"query": "q", "documents": ["a", {"text": "b"}]}, 2),
        (Surface.SCORE, {"text_1": "a", "text_2": ["b", "c"]}, 2),
    ],
)
def test_how_many_answers_the_server_works_on(surface: Surface, fields: dict[str, Any], sequences: int) -> None:
    assert prepare(surface, raw(**fields)).sequences == sequences
