"""What the upstream streams is what the client gets, byte for byte, but for the few edits that are announced."""

import pytest
from fakes.model_server import (
    DONE,
    FakeModel,
    Step,
    chat_chunk,
    chat_delta,
    chat_finish,
    chat_role,
    chat_token,
    chat_usage,
    chunk,
    end,
    framed,
    head,
    messages_event,
    messages_ping,
    responses_event,
    send,
)
from support.faults import ERROR_EVENT, SURFACES, assert_cut, every_surface, without_usage
from support.raw import CHAT, COMPLETIONS, MESSAGES, RESPONSES, Answer, ask, chat_body
from support.running import Serve
from support.surfaces import SPOKEN, Spoken

UTF8 = 'žluťoučký kůň 🐎 \\ " \u2028'
UNKNOWN = b'event: something.new\ndata: {"type":"something.new","x":1}\n\n'
TOKENS = {
    CHAT: chat_token(UTF8) + chat_delta({"reasoning_content": "hm"}) + chat_token("x", timings={"n": 1}),
    COMPLETIONS: b'data: {"choices":[{"text":"a","index":0,"finish_reason":null}],"model":"other/name"}\n\n',
    MESSAGES: messages_event("content_block_delta", index=0, delta={"type": "text_delta", "text": UTF8}),
    RESPONSES: responses_event("response.output_text.delta", 5, delta=UTF8),
}


def stream(spoken: Spoken) -> bytes:
    return spoken.prelude + spoken.token + TOKENS[spoken.path] * 3 + UNKNOWN + spoken.token + spoken.ending


def pieces(data: bytes, cut: str) -> list[Step]:
    """The body in one chunk, or cut into chunks or (framing and all) into TCP segments of so many bytes."""
    kind, _, size = cut.partition(" ")
    if kind == "segments":
        return [head(), send(framed(data) + b"0\r\n\r\n", every=int(size))]
    return [head(), chunk(data, every=int(size) if size else None), end()]


async def relayed(serve: Serve, spoken: Spoken, **upstream: object) -> Answer:
    edge = await serve(upstream={**SURFACES, **upstream})
    return await ask(edge.port, spoken.path, spoken.asked(stream=True))


@every_surface
@pytest.mark.parametrize(
    "cut", ["whole", "chunks 1", "chunks 7", "chunks 100", "segments 1", "segments 5", "segments 64"]
)
async def test_events_arrive_as_they_were_sent_however_they_were_cut(
    serve: Serve, fake: FakeModel, spoken: Spoken, cut: str
) -> None:
    fake.script(*pieces(stream(spoken), cut))
    answer = await relayed(serve, spoken)
    assert answer.clean
    assert answer.body == without_usage(stream(spoken))


@pytest.mark.parametrize("spoken", SPOKEN[:2], ids=str)
async def test_usage_is_stripped_only_if_edge_asked_for_it(serve: Serve, fake: FakeModel, spoken: Spoken) -> None:
    edge = await serve()
    for asked in ({}, {"stream_options": {"include_usage": False}}, {"stream_options": {"include_usage": True}}):
        fake.script(*pieces(stream(spoken), "whole"))
        answer = await ask(edge.port, spoken.path, {**spoken.asked(stream=True), **asked})
        wants = asked == {"stream_options": {"include_usage": True}}
        assert answer.body == (stream(spoken) if wants else without_usage(stream(spoken)))
        assert fake.requests[-1].json["stream_options"] == {"include_usage": True}
        assert (await edge.record(len(edge.records) - 1))["tokens_from"] == "reported"
    assert [record["tokens_out"] for record in edge.records] == [3, 3, 3]


async def test_usage_that_comes_with_content_stays(serve: Serve, fake: FakeModel) -> None:
    """vLLM's continuous usage, and the ``usage: null`` that asking for usage brings to every chunk."""
    counted = chat_chunk(
        [{"index": 0, "delta": {"content": "a"}, "finish_reason": None}], usage={"prompt_tokens": 1}
    ) + chat_token("b", usage=None)
    fake.script(head(), chunk(chat_role() + counted + chat_finish() + chat_usage() + DONE), end())
    edge = await serve()
    answer = await ask(edge.port, CHAT, chat_body())
    assert answer.body == chat_role() + counted + chat_finish() + DONE


@every_surface
@pytest.mark.parametrize("every", [None, 1, 9])
async def test_foreign_comments_ids_and_heartbeats_are_dropped(
    serve: Serve, fake: FakeModel, spoken: Spoken, every: int | None
) -> None:
    """An ``id:`` followed by a comment would crash the OpenAI client; heartbeats are Edge's to make."""
    comment = b": OPENROUTER PROCESSING\n\n"
    own = {MESSAGES: messages_ping(), RESPONSES: responses_event("keepalive", 1)}.get(spoken.path, b"")
    marked = b"id: 7\nretry: 10\n" + spoken.token
    sent = comment + spoken.prelude + comment + marked + own + spoken.token + comment + own + spoken.ending
    fake.script(head(), chunk(sent, every=every), end())
    answer = await relayed(serve, spoken)
    assert answer.body == without_usage(spoken.prelude + spoken.token + spoken.token + spoken.ending)


@every_surface
@pytest.mark.parametrize("every", [None, 1])
async def test_crlf_and_events_of_several_lines_are_kept(
    serve: Serve, fake: FakeModel, spoken: Spoken, every: int | None
) -> None:
    folded = spoken.token.replace(b'data: {"', b'data: {\ndata: "')
    sent = spoken.prelude + spoken.token.replace(b"\n", b"\r\n") + folded + spoken.token + spoken.ending
    fake.script(head(), chunk(sent, every=every), end())
    answer = await relayed(serve, spoken)
    assert answer.clean
    assert answer.body == without_usage(sent)


@every_surface
async def test_a_terminator_after_an_error_is_dropped(serve: Serve, fake: FakeModel, spoken: Spoken) -> None:
    """vLLM and SGLang send one: it would make a failed answer look whole."""
    begun = spoken.prelude + spoken.token
    fake.script(head(), chunk(begun + ERROR_EVENT[spoken.path] + spoken.ending), end())
    answer = await relayed(serve, spoken)
    assert answer.body.startswith(begun + ERROR_EVENT[spoken.path])
    assert_cut(spoken, answer)


@every_surface
async def test_nothing_follows_the_terminator(serve: Serve, fake: FakeModel, spoken: Spoken) -> None:
    sent = spoken.prelude + spoken.token + spoken.ending
    fake.script(head(), chunk(sent + spoken.token), chunk(spoken.token), end())
    answer = await relayed(serve, spoken)
    assert answer.clean
    assert answer.body == without_usage(sent)


async def test_a_missing_terminator_is_supplied_once(serve: Serve, fake: FakeModel) -> None:
    sent = chat_role() + chat_token("a") + chat_finish()
    fake.script(head(), chunk(sent), end())
    edge = await serve()
    answer = await ask(edge.port, CHAT, chat_body())
    assert answer.clean
    assert answer.body == sent + DONE


@pytest.mark.parametrize("repaired", [True, False])
async def test_null_events_are_dropped_if_that_repair_is_on(serve: Serve, fake: FakeModel, *, repaired: bool) -> None:
    """llama.cpp sends them; the SDKs fail on them."""
    null = b"data: null\n\n"
    sent = [chat_role(), null, chat_token("a"), null, chat_finish(), null, DONE]
    fake.script(head(), chunk(b"".join(sent)), end())
    edge = await serve(upstream={"repairs": ["drop-null-events"] if repaired else []})
    answer = await ask(edge.port, CHAT, chat_body())
    assert answer.body == b"".join(event for event in sent if not repaired or event != null)


@every_surface
@pytest.mark.parametrize("every", [1, 50])
async def test_a_whole_answer_does_not_depend_on_the_cuts(
    serve: Serve, fake: FakeModel, spoken: Spoken, every: int
) -> None:
    edge = await serve(upstream=SURFACES)
    for cut in (None, every):
        fake.script(head(), chunk(stream(spoken), every=cut), end())
    answers = [await ask(edge.port, spoken.path, spoken.asked(stream=False)) for _ in range(2)]
    assert [answer.status for answer in answers] == [200, 200]
    assert answers[0].json == answers[1].json
    assert fake.requests[0].json["stream"] is True
