"""On every surface, native or translated: ids that harm no client, and the rest of a stream wherever it was left."""

import pytest
from fakes.model_server import FakeModel, chunk, end, gate
from support.raw import RawClient, ask
from support.resumed import CASES, NATIVE, RESUME, Case, bare, opened, pieces, resumed, sequences
from support.running import Serve
from support.shapes import assert_told, get

every_case = pytest.mark.parametrize("case", CASES, ids=str)
every_native = pytest.mark.parametrize("case", NATIVE, ids=str)


@every_case
async def test_readers_from_anywhere_get_the_same_stream(serve: Serve, fake: FakeModel, case: Case) -> None:
    """Attached while it runs: one at the beginning, one after the first event; and each of them once it is over."""
    fake.script(*case.held())
    edge = await serve(upstream=case.upstream)
    async with RawClient(edge.port) as first, RawClient(edge.port) as second, RawClient(edge.port) as third:
        stream = await opened(edge, case, first)
        await second.get(f"/v1/streams/{stream}")
        await third.get(f"/v1/streams/{stream}", {"Last-Event-ID": f"{stream}:1"})
        await second.until(b"tok")
        await edge.wait(lambda: edge.edge.registry.streams[stream].generation.readers == 3)
        fake.open("more")
        whole, again, rest = await first.answer(), await second.answer(), await third.answer()
    kind = "application/x-ndjson" if case.lines else "text/event-stream; charset=utf-8"
    for answer in (whole, again, rest):
        assert (answer.status, answer.clean, answer.headers["content-type"]) == (200, True, kind)
        assert answer.headers["x-stream-id"] == stream
    events = pieces(case, whole.body)
    assert b"".join(events) == whole.body == again.body
    assert rest.body == b"".join(events[1:])
    for after in range(len(events)):
        assert (await resumed(edge, stream, after)).body == b"".join(events[after:])
        last = {"Last-Event-ID": f"{stream}:{after}"}
        assert (await get(edge.port, f"/v1/streams/{stream}", last)).body == b"".join(events[after:])
    for over in (await resumed(edge, stream, len(events)), await ask(edge.port, case.path, case.body, last | {
        "Last-Event-ID": f"{stream}:{len(events)}"})):  # fmt: skip
        assert (over.status, over.body) == (204, b"")
    assert (await resumed(edge, stream, len(events) + 1)).status == 400
    assert len(fake.requests) == 1


@every_case
async def test_an_id_is_only_where_data_is(serve: Serve, fake: FakeModel, case: Case) -> None:
    """Lines have none: whoever reads them counts them."""
    fake.script(*case.answer())
    edge = await serve(upstream=case.upstream)
    answer = await ask(edge.port, case.path, case.body, RESUME)
    if case.lines:
        assert sequences(answer.body) == []
        return
    for number, event in enumerate(pieces(case, answer.body), 1):
        first, *others = event.splitlines()
        assert first == f"id: {answer.headers['x-stream-id']}:{number}".encode()
        assert any(line.startswith(b"data: ") for line in others)
        assert not any(line.startswith(b"id:") for line in others)


@every_native
async def test_without_the_ids_it_is_what_the_model_server_said(serve: Serve, fake: FakeModel, case: Case) -> None:
    fake.script(*case.answer())
    fake.script(*case.answer())
    edge = await serve(upstream=case.upstream)
    plain = await ask(edge.port, case.path, case.body)
    marked = await ask(edge.port, case.path, case.body, RESUME)
    assert bare(marked.body) == plain.body == case.whole


@every_case
async def test_the_route_of_the_stream_resumes_it_and_never_generates(
    serve: Serve, fake: FakeModel, case: Case
) -> None:
    fake.script(*case.answer())
    edge = await serve(upstream=case.upstream)
    whole = await ask(edge.port, case.path, case.body, RESUME)
    last = {"Last-Event-ID": f"{whole.headers['x-stream-id']}:1"}
    rest = await ask(edge.port, case.path, case.body, last)
    assert rest.body == b"".join(pieces(case, whole.body)[1:])
    assert rest.headers["content-type"] == whole.headers["content-type"]
    assert len(fake.requests) == 1


@every_native
async def test_no_route_of_another_surface_resumes_it(serve: Serve, fake: FakeModel, case: Case) -> None:
    fake.script(*case.answer())
    edge = await serve(upstream=case.upstream)
    whole = await ask(edge.port, case.path, case.body, RESUME)
    last = {"Last-Event-ID": f"{whole.headers['x-stream-id']}:1"}
    for other in NATIVE:
        if other is not case:
            answer = await ask(edge.port, other.path, other.body, last)
            if not other.lines:
                assert_told(answer, 400, other.path, "wrong_surface", "invalid_request_error")
            assert (answer.status, answer.clean) == (400, True)
            assert "/v1/streams/" in str(answer.json["error"])
    assert len(fake.requests) == 1


@every_case
async def test_silence_harms_nobody_who_counts(serve: Serve, fake: FakeModel, case: Case) -> None:
    """Heartbeats have no number; a comment is not followed by a blank line, a line says what it is."""
    fake.script(*case.begins(gate("more"), chunk(case.says.ending), end()))
    edge = await serve(upstream=case.upstream, stream={"heartbeat_s": 0.02})
    async with RawClient(edge.port) as first, RawClient(edge.port) as second:
        stream = await opened(edge, case, first)
        await second.get(f"/v1/streams/{stream}?starting_after=1")
        own = edge.edge.registry.streams[stream].reader
        await edge.wait(lambda: own is not None and own.heartbeats >= 2)
        await edge.wait(
            lambda: all(one.heartbeats >= 2 for one in edge.edge.registry.streams[stream].generation._readers)
        )
        fake.open("more")
        whole, rest = await first.answer(), await second.answer()
    quiet = await resumed(edge, stream)
    counted = [piece for piece in pieces(case, quiet.body) if b'"heartbeat":true' not in piece]
    assert len(counted) == len(pieces(case, quiet.body))
    for answer, after in ((whole, 0), (rest, 1)):
        if case.lines:
            lines = pieces(case, answer.body)
            beats = [line for line in lines if b'"heartbeat":true' in line]
            assert len(beats) >= 2
            assert [line for line in lines if line not in beats] == counted[after:]
            continue
        blocks = pieces(case, answer.body)
        assert all(b"data: " in block for block in blocks)
        numbered = [block for block in blocks if sequences(block)]
        assert [n for block in numbered for n in sequences(block)] == list(range(after + 1, len(counted) + 1))
        assert [bare(block) for block in numbered] == [bare(block) for block in counted[after:]]
