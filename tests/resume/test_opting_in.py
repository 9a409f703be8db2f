"""Who asks for a stream that can be resumed gets one, by any of the ways to ask; nobody else pays for it."""

import pytest
from fakes.model_server import FakeModel, chat_answer, chunk, end
from support.eventsource import parsed
from support.raw import CHAT, EMBEDDINGS, RawClient, ask, chat_body
from support.resumed import CHAT_CASE, NATIVE, RESUME, Case, opened, resumed, sequences
from support.running import Serve
from support.sessions import STREAM
from support.shapes import assert_told, get, valid_body

every_native = pytest.mark.parametrize("case", NATIVE, ids=str)


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        (CHAT, {"x-edge-resume": "1"}),
        (CHAT, {"X-Edge-Resume": " True "}),
        (f"{CHAT}?resume=1", {}),
        (f"{CHAT}?resume=true", {}),
        (f"{CHAT}?resume=0", {"x-edge-resume": "1"}),
    ],
)
async def test_a_header_or_the_query_asks_for_it(serve: Serve, path: str, headers: dict[str, str]) -> None:
    edge = await serve()
    answer = await ask(edge.port, path, chat_body(), headers)
    assert sequences(answer.body) == [1, 2, 3, 4, 5, 6]
    assert (await resumed(edge, answer.headers["x-stream-id"], 5)).body.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        (CHAT, {}),
        (CHAT, {"x-edge-resume": "0"}),
        (f"{CHAT}?resume=false", {}),
        (f"{CHAT}?resume=1", {"x-edge-resume": "0"}),
    ],
)
async def test_who_does_not_ask_gets_none(serve: Serve, path: str, headers: dict[str, str]) -> None:
    edge = await serve()
    answer = await ask(edge.port, path, chat_body(), headers)
    assert b"id: st_" not in answer.body
    assert_told(await resumed(edge, answer.headers["x-stream-id"]), 404, CHAT, "stream_not_found")


@every_native
async def test_the_settings_ask_for_whole_surfaces(serve: Serve, fake: FakeModel, case: Case) -> None:
    """But one who says no is heard."""
    edge = await serve(upstream=case.upstream, stream={"resume": [case.surface]})
    answer = await ask(edge.port, case.path, case.body)
    again = await resumed(edge, answer.headers["x-stream-id"])
    assert (again.status, again.body) == (200, answer.body)
    assert case.lines or sequences(answer.body)[0] == 1
    others = [other.surface for other in NATIVE if other is not case]
    edge = await serve(upstream=case.upstream, stream={"resume": others})
    plain = await ask(edge.port, case.path, case.body)
    assert sequences(plain.body) == []
    assert (await resumed(edge, plain.headers["x-stream-id"])).status == 404


@pytest.mark.parametrize("bad", ["yes", "2", "", "on", "\u0661"])
async def test_what_is_neither_yes_nor_no_is_refused_by_name(serve: Serve, fake: FakeModel, bad: str) -> None:
    edge = await serve()
    answers = [(f"{CHAT}?resume={bad}".encode("ascii", "ignore").decode(), {})] if bad.isascii() else []
    if bad:
        answers.append((CHAT, {"x-edge-resume": bad.encode().decode("latin-1") if not bad.isascii() else bad}))
    for path, headers in answers:
        answer = await ask(edge.port, path, chat_body(), headers)
        assert_told(answer, 400, CHAT, "invalid_request", "invalid_request_error")
        assert answer.json["error"]["param"] == ("x-edge-resume" if headers else "resume")
        assert "must be 1 or 0" in answer.json["error"]["message"]
    assert fake.requests == []


async def test_an_answer_in_one_piece_or_of_vectors_is_none_to_be_resumed(serve: Serve) -> None:
    edge = await serve(stream={"resume": ["chat"]})
    for path, body in ((CHAT, chat_body(stream=False)), (EMBEDDINGS, valid_body(EMBEDDINGS))):
        answer = await ask(edge.port, path, body, RESUME)
        assert answer.status == 200
        assert answer.json
        assert (await resumed(edge, answer.headers["x-stream-id"])).status == 404


async def test_a_session_can_always_be_resumed(serve: Serve, fake: FakeModel) -> None:
    """By its own route, and by that of all streams."""
    fake.script(*chat_answer(["a", "b"]))
    edge = await serve()
    whole = await ask(edge.port, STREAM, {"message": "hi"})
    stream = whole.headers["x-stream-id"]
    assert sequences(whole.body) == [1, 2, 3, 4]
    for path in (f"/v1/streams/{stream}", f"{STREAM}?prompt=hi", "/stream?prompt=hi"):
        rest = await get(edge.port, path, {"Last-Event-ID": f"{stream}:2"})
        assert [event.id for event in parsed(rest.body).events] == [f"{stream}:3", f"{stream}:4"]
        assert whole.body.endswith(rest.body)
    assert len(fake.requests) == 1


async def test_a_stream_that_was_not_asked_for_says_so_while_it_runs(serve: Serve, fake: FakeModel) -> None:
    fake.script(*CHAT_CASE.held())
    edge = await serve()
    async with RawClient(edge.port) as client:
        stream = await opened(edge, CHAT_CASE, client, {})
        for answer in (
            await resumed(edge, stream),
            await get(edge.port, f"/v1/streams/{stream}", {"Last-Event-ID": f"{stream}:2"}),
            await ask(edge.port, CHAT, chat_body(), {"Last-Event-ID": f"{stream}:2"}),
        ):
            assert_told(answer, 410, CHAT, "stream_not_kept")
            assert "x-edge-resume" in answer.json["error"]["message"]
        fake.open("more")
        assert (await client.answer()).clean
    assert len(fake.requests) == 1


async def test_with_grace_for_all_a_stream_without_ids_is_resumed_by_its_count(serve: Serve, fake: FakeModel) -> None:
    fake.script(*CHAT_CASE.held())
    edge = await serve(stream={"on_disconnect": "grace"})
    async with RawClient(edge.port) as client:
        stream = await opened(edge, CHAT_CASE, client, {})
        assert sequences(client.buffer) == []
    async with RawClient(edge.port) as client:
        await client.get(f"/v1/streams/{stream}?starting_after=1")
        await client.until(b"tok")
        fake.open("more")
        answer = await client.answer()
    assert sequences(answer.body) == [2, 3, 4]
    assert (await edge.record())["outcome"] == "complete"


async def test_ids_of_the_model_server_are_not_mistaken_for_ours(serve: Serve, fake: FakeModel) -> None:
    """Nor are its comments, its wishes for reconnecting, or blocks without data, for events."""
    said = b": hello\n\nretry: 5\n\nevent: x\n\n" + b"".join(
        b"id: 7\n: note\nretry: 9\n" + event + b"\n\n" for event in CHAT_CASE.whole.split(b"\n\n")[:-1]
    )
    fake.script(CHAT_CASE.head(), chunk(said), end())
    edge = await serve()
    answer = await ask(edge.port, CHAT, chat_body(), RESUME)
    stream = answer.headers["x-stream-id"]
    assert sequences(answer.body) == [1, 2, 3, 4]
    assert {event.id.partition(":")[0] for event in parsed(answer.body).events} == {stream}
    assert parsed(answer.body).retry_ms is None
    assert (await resumed(edge, stream, 4)).status == 204


async def test_a_stream_of_crlf_is_numbered_too(serve: Serve, fake: FakeModel) -> None:
    said = CHAT_CASE.whole.replace(b"\n", b"\r\n")
    fake.script(CHAT_CASE.head(), chunk(said, every=17), end())
    edge = await serve()
    answer = await ask(edge.port, CHAT, chat_body(), RESUME)
    stream = answer.headers["x-stream-id"]
    events = parsed(answer.body).events
    assert [event.id for event in events] == [f"{stream}:{n}" for n in (1, 2, 3, 4)]
    for after in range(4):
        rest = parsed((await resumed(edge, stream, after)).body).events
        assert rest == events[after:]


async def test_an_event_that_is_cut_into_many_counts_as_many(serve: Serve, fake: FakeModel) -> None:
    """One over 48 KiB, which some clients could not read."""
    fake.script(*chat_answer(["x" * 200_000, "y"]))
    edge = await serve(stream={"journal_bytes": 2**20})
    answer = await ask(edge.port, CHAT, chat_body(), RESUME)
    stream = answer.headers["x-stream-id"]
    count = len(answer.events)
    assert sequences(answer.body) == list(range(1, count + 1))
    assert count > 6
    assert (await resumed(edge, stream, count)).status == 204
    assert (await resumed(edge, stream, 4)).body == b"".join(answer.events[4:])


async def test_a_session_refuses_what_is_neither_too(serve: Serve, fake: FakeModel) -> None:
    """Though its streams can be resumed whatever is said."""
    edge = await serve()
    assert_told(await ask(edge.port, STREAM, {"message": "hi"}, {"x-edge-resume": "perhaps"}), 400, STREAM)
    assert fake.requests == []
