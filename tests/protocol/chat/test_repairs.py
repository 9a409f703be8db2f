"""The repairs of chat streams: each mends its fault, however the network cut it, and leaves alone what has none."""

from pathlib import Path
from typing import Any, get_args

import orjson
import pytest
from fakes import answers as say
from hypothesis import given
from hypothesis import strategies as st
from support.streams import FORGERIES, all_cuts, codec_for, cut, cuts, goldens, read, slow, unhurried

from edge.protocol.chat.codec import DROP_NULL_EVENTS
from edge.protocol.chat.collect import ChatCollector
from edge.protocol.chat.repairs import BOTH_REASONING, FINISH_NULL, MENDED, ROLE_FIRST, STABLE_ID, TOOL_INDEX
from edge.protocol.messages.codec import MESSAGE_START
from edge.protocol.sse import events, one_line
from edge.protocol.surface import Surface
from edge.settings import REPAIR_NAMES
from edge.upstream.discovery.servers import TRAITS, Kind

CHAT = Surface.CHAT
ASKED = {"stream_options": {"include_usage": True}}
ALL = MENDED | {DROP_NULL_EVENTS}
ROLE, TOKEN, FINISH, DONE = say.chat_role(), say.chat_token("a"), say.chat_finish(), say.DONE


def call(index: int | None = None, arguments: str = "", choice: int = 0, **first: Any) -> bytes:
    """One delta of a tool call; with an id or a name it begins one."""
    name = {"name": first.pop("name")} if "name" in first else {}
    whole = {**first, "function": {**name, "arguments": arguments}}
    return say.chat_delta({"tool_calls": [whole if index is None else {**whole, "index": index}]}, choice)


def named(event: bytes, id_: str, created: int) -> bytes:
    return event.replace(b"chatcmpl-fake", id_.encode()).replace(b"1700000000", str(created).encode())


def thought(text: str, *names: str) -> bytes:
    return say.chat_delta(dict.fromkeys(names, text))


# What is wrong, the repair, the stream before and after it.
CASES: dict[str, tuple[str, list[bytes], list[bytes]]] = {
    "no role": (ROLE_FIRST, [TOKEN, TOKEN, FINISH], [ROLE, TOKEN, TOKEN, FINISH]),
    "no role until it answers": (
        ROLE_FIRST,
        [say.chat_delta({"role": None, "content": None}), say.chat_delta({"refusal": "hm"}), TOKEN, FINISH],
        [say.chat_delta({"role": None, "content": None}), ROLE, say.chat_delta({"refusal": "hm"}), TOKEN,
         FINISH],
    ),
    "no role and no text": (ROLE_FIRST, [FINISH], [ROLE, FINISH]),
    "no role before a tool call": (ROLE_FIRST, [call(0, id="c", name="f"), FINISH],
                                   [ROLE, call(0, id="c", name="f"), FINISH]),
    "a role that comes too late": (
        ROLE_FIRST,
        [TOKEN, say.chat_delta({"role": "assistant", "content": "b"}), TOKEN, FINISH],
        [ROLE, TOKEN, say.chat_token("b"), TOKEN, FINISH],
    ),
    "a role with the first text": (
        ROLE_FIRST, *[[say.chat_delta({"role": "assistant", "content": "x"}), TOKEN, FINISH]] * 2
    ),
    "no role in one of two choices": (
        ROLE_FIRST,
        [say.chat_role(1), TOKEN, say.chat_token("b", 1), FINISH, say.chat_finish(index=1)],
        [say.chat_role(1), ROLE, TOKEN, say.chat_token("b", 1), FINISH, say.chat_finish(index=1)],
    ),
    "another id each time": (
        STABLE_ID,
        [named(event, f"x{n}", 5 + n) for n, event in enumerate([ROLE, TOKEN, TOKEN, TOKEN, FINISH])],
        [named(event, "x0", 5) for event in [ROLE, TOKEN, TOKEN, TOKEN, FINISH]],
    ),
    "a clock that moves on": (
        STABLE_ID,
        [ROLE, TOKEN, TOKEN, *(named(event, "chatcmpl-fake", 1700000001) for event in (TOKEN, TOKEN)), TOKEN, FINISH],
        [ROLE, *[TOKEN] * 5, FINISH],
    ),
    "a chunk about the prompt with no id": (
        STABLE_ID, *[[named(say.chat_chunk([], prompt_filter_results=[]), "", 0), ROLE, TOKEN, FINISH]] * 2
    ),
    "other ids for other choices": (
        STABLE_ID,
        [TOKEN, named(say.chat_token("b", 1), "y", 6), FINISH, named(say.chat_finish(index=1), "y", 6)],
        [TOKEN, say.chat_token("b", 1), FINISH, say.chat_finish(index=1)],
    ),
    "an empty finish reason": (
        FINISH_NULL,
        [say.chat_delta({"content": text}, finish="") for text in ("", "a", "b")] + [FINISH],
        [say.chat_token(text) for text in ("", "a", "b")] + [FINISH],
    ),
    "calls without an index": (
        TOOL_INDEX,
        [call(id="c1", name="f"), call(None, "{"), call(None, "}"), call(id="c2", name="f"), call(None, "{}"), FINISH],
        [call(0, id="c1", name="f"), call(0, "{"), call(0, "}"), call(1, id="c2", name="f"), call(1, "{}"), FINISH],
    ),
    "calls told apart by id": (
        TOOL_INDEX,
        [call(id="c1", name="f"), call(id="c2", name="g"), call(None, "{", id="c1"), call(None, "1", id="c2")],
        [call(0, id="c1", name="f"), call(1, id="c2", name="g"), call(0, "{", id="c1"), call(1, "1", id="c2")],
    ),
    "calls in two choices": (
        TOOL_INDEX,
        [call(name="f"), call(name="g", choice=1), call(None, "1"), call(None, "2", 1)],
        [call(0, name="f"), call(0, name="g", choice=1), call(0, "1"), call(0, "2", 1)],
    ),
    "an index in the first delta only": (
        TOOL_INDEX,
        [call(2, id="c1", name="f"), call(None, "{}"), call(name="g"), call(None, "{}")],
        [call(2, id="c1", name="f"), call(2, "{}"), call(3, name="g"), call(3, "{}")],
    ),
    "reasoning under the old name": (
        BOTH_REASONING,
        [thought("a", "reasoning_content"), thought("b", "reasoning_content"), TOKEN, FINISH],
        [thought("a", "reasoning_content", "reasoning"), thought("b", "reasoning_content", "reasoning"), TOKEN, FINISH],
    ),
    "reasoning under the new name": (
        BOTH_REASONING,
        [thought("a", "reasoning"), say.chat_delta({"reasoning": "b", "content": ""}), TOKEN, FINISH],
        [thought("a", "reasoning", "reasoning_content"),
         say.chat_delta({"reasoning": "b", "content": "", "reasoning_content": "b"}), TOKEN, FINISH],
    ),
    "reasoning under both names": (
        BOTH_REASONING, *[[thought("a", "reasoning", "reasoning_content"), TOKEN, FINISH]] * 2
    ),
}  # fmt: skip
every_case = pytest.mark.parametrize("case", CASES)


def choices(stream: list[bytes]) -> int:
    return 2 if any(b'"index":1,"delta"' in event for event in stream) else 1


@every_case
@pytest.mark.parametrize("forged", ["", *FORGERIES], ids=range(len(FORGERIES) + 1))
def test_a_fault_is_mended_whatever_the_model_writes(case: str, forged: str) -> None:
    """By its own repair, and by it alone; the others leave the stream as it is."""
    repair, before, after = CASES[case]
    text = orjson.dumps(forged)[1:-1]
    before, after = ([event.replace(b'"a"', b'"a' + text + b'"') for event in stream] for stream in (before, after))
    # What is written anew is one line whatever the text; an event that stays keeps its bytes.
    if len(before) == len(after):
        after = [new if new == old else one_line(new) for old, new in zip(before, after, strict=True)]
    else:
        after = [event if event in before else one_line(event) for event in after]
    n = choices(before)
    for pieces in (before, [b"".join(before)]):
        for on in ({repair}, MENDED - {ROLE_FIRST} | {repair}):
            assert read(codec_for(CHAT, frozenset(on), n=n), pieces).data == b"".join(after)
        for off in ((), MENDED - {ROLE_FIRST, repair}):
            assert read(codec_for(CHAT, frozenset(off), n=n), pieces).data == b"".join(before)


@every_case
def test_a_fault_is_mended_however_the_network_cut_it(case: str) -> None:
    repair, before, after = CASES[case]
    stream = b"".join(before)
    expected = read(codec_for(CHAT, frozenset({repair}), n=choices(before)), [stream])
    assert (expected.data, expected.events) == (b"".join(after), len(after))
    for pieces in all_cuts(stream, pairs=False):
        assert read(codec_for(CHAT, frozenset({repair}), n=choices(before)), pieces) == expected


@every_case
def test_the_other_surfaces_are_none_of_their_business(case: str) -> None:
    before = b"".join(CASES[case][1])
    assert read(codec_for(Surface.COMPLETIONS, ALL, prompt="x"), [before]).data == before


def test_an_index_that_is_null_is_none() -> None:
    before = call(id="c", name="f").replace(b'[{"id"', b'[{"index":null,"id"')
    after = before.replace(b'"index":null', b'"index":0')
    assert read(codec_for(CHAT, frozenset({TOOL_INDEX})), [before]).data == after


OTHER = {
    "an error": say.sse_error(),
    "an error with an empty finish": say.chat_delta({"content": ""}, finish="", error={"message": "broke"}),
    "a named event": b'event: something.new\ndata: {"type":"something.new","x":1}\n\n',
    "a number": b"data: 7\n\n",
    "no choices": say.sse({"choices": None, "id": "z"}),
    "odd choices": say.chat_chunk([1, {}, {"index": "x", "delta": [], "finish_reason": 7}]),  # type: ignore[list-item]
    "odd deltas": say.chat_delta({"tool_calls": [1, {"index": 0}], "reasoning": ["x"], "reasoning_content": 0}),
    "several lines": TOKEN.replace(b',"choices"', b'\ndata: ,"choices"'),
    "CRLF": TOKEN.replace(b"\n", b"\r\n"),
    "deeper than can be written": say.chat_delta({"content": "a"}, finish="").replace(
        b'"a"', b'"a","x":' + b"[" * 600 + b"]" * 600
    ),
}


@pytest.mark.parametrize("other", OTHER.values(), ids=OTHER)
def test_what_is_no_faulty_chunk_keeps_its_bytes(other: bytes) -> None:
    for before in ([ROLE], [ROLE, TOKEN]):
        assert read(codec_for(CHAT, ALL), [*before, other]).data == b"".join([*before, other])


def test_a_mended_event_keeps_its_name() -> None:
    event = b"event: chunk\n" + say.chat_delta({"content": "a"}, finish="")
    seen = read(codec_for(CHAT, frozenset({FINISH_NULL, ROLE_FIRST})), [event])
    assert seen.data == b"event: chunk\n" + ROLE + b"event: chunk\n" + TOKEN


def test_usage_that_was_not_asked_for_is_still_stripped_and_that_which_was_is_mended() -> None:
    stream = [ROLE, TOKEN, FINISH, named(say.chat_usage(), "other", 7), DONE]
    repairs = frozenset({STABLE_ID})
    assert read(codec_for(CHAT, repairs), stream).data == b"".join([ROLE, TOKEN, FINISH, DONE])
    assert read(codec_for(CHAT, repairs, **ASKED), stream).data == b"".join(
        [ROLE, TOKEN, FINISH, say.chat_usage(), DONE]
    )


def test_tokens_that_need_nothing_are_still_not_looked_into() -> None:
    """With every repair on, events from the mould of one that needed none are taken as they are; others are not."""
    codec = codec_for(CHAT, ALL)
    codec.feed(ROLE + TOKEN)
    assert codec.plain(TOKEN * 3) == 3
    for faulty in (
        say.chat_delta({"content": "a"}, finish=""),
        named(TOKEN, "other", 7),
        thought("a", "reasoning"),
        call(name="f"),
    ):
        for _ in range(3):
            assert (codec.plain(faulty), codec.plain(faulty * 2)) == (0, 0)
            assert codec.feed(faulty).data != faulty
        assert codec.plain(TOKEN) == 1


@pytest.mark.parametrize("path", goldens("chat"), ids=lambda path: path.stem)
@pytest.mark.parametrize("step", [7, 300, 2**20])
def test_real_streams_keep_the_bytes_of_every_event_that_needs_nothing(path: Path, step: int) -> None:
    stream = path.read_bytes()
    n = len(orjson.loads(path.with_suffix(".json").read_bytes())["choices"])
    pieces = cut(stream, range(0, len(stream), step))
    before = read(codec_for(CHAT, n=n, **ASKED), pieces).data.split(b"\n\n")
    after = read(codec_for(CHAT, MENDED, n=n, **ASKED), pieces).data.split(b"\n\n")
    changed = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    for old, new in changed:
        old_chunk, new_chunk = (orjson.loads(block.removeprefix(b"data: ")) for block in (old, new))
        assert old_chunk != new_chunk
        assert b"reasoning" in new or old_chunk["created"] != new_chunk["created"]


@pytest.mark.parametrize("path", goldens("chat"), ids=lambda path: path.stem)
def test_real_streams_that_need_no_repair_of_their_server_are_relayed_byte_for_byte(path: Path) -> None:
    kind = Kind.LLAMA_CPP if path.parent.name == "llama_cpp" else Kind.GENERIC
    stream = path.read_bytes()
    n = len(orjson.loads(path.with_suffix(".json").read_bytes())["choices"])
    for pieces in ([stream], cut(stream, range(0, len(stream), 99))):
        relayed = read(codec_for(CHAT, TRAITS[kind].repairs, n=n, **ASKED), pieces).data
        needs = kind is Kind.LLAMA_CPP and b'"reasoning_content":"' in stream
        assert (relayed != read(codec_for(CHAT, n=n, **ASKED), pieces).data) is needs


deltas = st.one_of(
    st.builds(lambda text: {"content": text}, st.sampled_from(["a", "", None, *FORGERIES])),
    st.builds(
        lambda name, text: {name: text}, st.sampled_from(["reasoning", "reasoning_content"]), st.text(max_size=3)
    ),
    st.builds(
        lambda index, first, text: {"tool_calls": [{**index, **first, "function": {"arguments": text}}]},
        st.sampled_from([{}, {"index": None}, {"index": 0}, {"index": 1}]),
        st.sampled_from([{}, {"id": "c"}, {"id": "d"}]),
        st.text(max_size=3),
    ),
    st.sampled_from([{}, {"role": "assistant"}, {"role": None, "content": "b"}]),
)


@st.composite
def faulty(draw: st.DrawFn, choices: int) -> list[bytes]:
    """A stream with any number of faults."""
    stream = []
    for delta in draw(st.lists(deltas, max_size=12)):
        finish = draw(st.sampled_from([None, None, ""]))
        event = say.chat_delta(delta, draw(st.integers(0, choices - 1)), finish)
        stream.append(named(event, draw(st.sampled_from(["x", "x", "y", ""])), draw(st.sampled_from([5, 5, 6]))))
    endings = [[*(say.chat_finish(index=index) for index in range(choices)), DONE], [FINISH], [say.sse_error(), DONE]]
    return stream + draw(st.sampled_from(endings))


@unhurried
@given(
    st.integers(1, 2).flatmap(lambda n: st.tuples(st.just(n), faulty(n))), st.sets(st.sampled_from(sorted(ALL))), cuts
)
def test_any_repairs_of_any_stream_are_the_same_for_every_cut(
    case: tuple[int, list[bytes]], on: set[str], positions: list[int]
) -> None:
    n, stream = case
    expected = read(slow(codec_for(CHAT, frozenset(on), n=n)), stream)
    assert read(codec_for(CHAT, frozenset(on), n=n), cut(b"".join(stream), positions)) == expected


@unhurried
@given(st.integers(1, 2).flatmap(lambda n: st.tuples(st.just(n), faulty(n))), cuts)
def test_what_is_collected_is_what_would_have_been_relayed(case: tuple[int, list[bytes]], positions: list[int]) -> None:
    n, stream = case
    codec, relayed = codec_for(CHAT, ALL, n=n), ChatCollector()
    codec.collect(ChatCollector())
    for event in events(read(codec, cut(b"".join(stream), positions)).data):
        if event.data != b"[DONE]":
            relayed.add(orjson.loads(event.data))
    assert codec.answer() == relayed.answer()


def test_every_repair_has_its_name_in_the_settings_and_every_kind_of_server_only_such() -> None:
    named = ALL | {MESSAGE_START}
    assert set(get_args(REPAIR_NAMES)) == named
    assert all(traits.repairs <= named for traits in TRAITS.values())
