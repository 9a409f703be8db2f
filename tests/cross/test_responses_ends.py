"""A Responses stream that fails ends in one way, whenever and wherever it does: ``error``, ``response.failed``, a clean
end; with one id, numbers without a gap, and a ``response.created`` before them.
"""

from collections.abc import Callable
from typing import Any

import orjson
import pytest
from cross.test_prompt_too_long import OLLAMAS
from cross.test_responses_faults import ERROR, SERVERS, WORD
from fakes import ollama
from fakes.answers import responses_event, responses_events
from fakes.model_server import FakeModel, Step, chunk, end, fin, gate, head, json_answer, rst, stall
from support.raw import RESPONSES, Answer, RawClient, ask
from support.responses import events_of
from support.running import Running, Serve, time_passes

WIRES: dict[str, dict[str, Any]] = {**SERVERS, "responses": {"surfaces": ["responses"]}}
TOO_LONG = {
    "message": "This model's maximum context length is 2048 tokens. However, you requested 5000 tokens",
    "type": "invalid_request_error", "param": "messages", "code": "context_length_exceeded",
}  # fmt: skip
WORDS = {**WORD, "responses": b"".join(responses_events(["Hel"])[:5])}
ERRORS = {
    **ERROR,
    "responses": responses_event("error", 5, code="server_error", message="the model broke", param=None),
}
every_wire = pytest.mark.parametrize("wire", WIRES)
ASKED = {"model": "m", "input": "hi", "stream": True}


def head_of(wire: str) -> Step:
    return head(200, ollama.HEADERS if wire == "ollama" else None)


def well_ended(answer: Answer, code: str | None, message: str) -> list[dict[str, Any]]:
    """The events of a stream that failed; ``code`` None: the server's, or one for whatever it said."""
    assert (answer.status, answer.clean) == (200, True)
    events = events_of(answer)
    kinds = [event["type"] for event in events]
    assert kinds[0] == "response.created"
    assert kinds[-2:] == ["error", "response.failed"]
    assert (kinds.count("response.created"), kinds.count("error"), kinds.count("response.failed")) == (1, 1, 1)
    assert "response.completed" not in kinds
    numbered = [event["sequence_number"] for event in events if event["type"] != "keepalive"]
    assert numbered == list(range(len(numbered)))
    error, failed = events[-2], events[-1]["response"]
    assert set(error) == {"type", "code", "message", "param", "sequence_number"}
    assert code in (None, error["code"])
    assert message in error["message"]
    assert (failed["id"], failed["status"]) == (events[0]["response"]["id"], "failed")
    assert failed["error"]["message"] == error["message"]
    return events


@every_wire
async def test_at_once(serve: Serve, fake: FakeModel, wire: str) -> None:
    """Codex shortens its conversation on a failed response, and takes a 400 for a mistake of its own."""
    edge = await serve(upstream=WIRES[wire])
    fake.script(*json_answer(OLLAMAS if wire == "ollama" else {"error": TOO_LONG}, 400))
    answer = await ask(edge.port, RESPONSES, ASKED)
    events = well_ended(answer, "context_length_exceeded", "")
    assert len(events) == 3
    record = await edge.record()
    assert (record["outcome"], record["error"]) == ("upstream_error", "context_length_exceeded")


@every_wire
async def test_before_the_first_token(serve: Serve, fake: FakeModel, wire: str) -> None:
    edge = await serve(upstream=WIRES[wire], stream={"commit_after_s": 100, "first_token_s": 1000})
    fake.script(head_of(wire), gate("fail"), chunk(ERRORS[wire]), end())
    answer = await _committed(edge, fake)
    well_ended(answer, None, "the model broke")
    assert (await edge.record())["outcome"] == "upstream_error"


async def _committed(edge: Running, fake: FakeModel) -> Answer:
    async with RawClient(edge.port) as client:
        await client.post(RESPONSES, ASKED)
        await fake.reached("fail")
        await edge.later(lambda: _begun(edge), 101)
        await client.until(b"response.created")
        fake.open("fail")
        return await client.answer()


def _begun(edge: Running) -> bool:
    return any(exchange.generation.begun for exchange in edge.edge.registry)


@every_wire
@pytest.mark.parametrize(
    ("steps", "code", "message", "outcome"),
    [
        (lambda wire: [chunk(ERRORS[wire]), end()], None, "the model broke", "upstream_error"),
        (lambda _: [fin()], "upstream_cut", "broke off", "upstream_cut"),
        (lambda _: [rst()], "upstream_cut", "broke off", "upstream_cut"),
        (lambda _: [end()], "upstream_cut", "before the answer was finished", "upstream_cut"),
    ],
    ids=["an error", "a cut", "a reset", "an end"],
)
async def test_in_the_middle(
    serve: Serve,
    fake: FakeModel,
    wire: str,
    steps: Callable[[str], list[Step]],
    code: str | None,
    message: str,
    outcome: str,
) -> None:
    edge = await serve(upstream=WIRES[wire])
    fake.script(head_of(wire), chunk(WORDS[wire]), *steps(wire))
    answer = await ask(edge.port, RESPONSES, ASKED)
    events = well_ended(answer, code, message)
    assert [event["delta"] for event in events if event["type"] == "response.output_text.delta"] == ["Hel"]
    assert (await edge.record())["outcome"] == outcome


@every_wire
async def test_in_a_silence(serve: Serve, fake: FakeModel, wire: str) -> None:
    edge = await serve(upstream=WIRES[wire], stream={"inter_token_s": 100, "heartbeat_s": 1000})
    fake.script(head_of(wire), chunk(WORDS[wire]), stall())
    async with RawClient(edge.port) as client:
        await client.post(RESPONSES, ASKED)
        await client.until(b'"Hel"')
        time_passes(101)
        answer = await client.answer()
    well_ended(answer, "upstream_stall", "")
    assert (await edge.record())["outcome"] == "upstream_stall"


async def test_the_servers_own_failed_response_is_the_end(serve: Serve, fake: FakeModel) -> None:
    """As OpenAI ends a stream: it is relayed as it came, and nothing is said of it twice."""
    edge = await serve(upstream=WIRES["responses"])
    begun = responses_events(["Hel"])[:5]
    created = orjson.loads(begun[0].split(b"data: ")[1])["response"]
    response = {**created, "status": "failed", "error": {"code": "server_error", "message": "the model broke"}}
    fake.script(head(), chunk(b"".join(begun)), chunk(responses_event("response.failed", 5, response=response)), end())
    answer = await ask(edge.port, RESPONSES, ASKED)
    assert answer.clean
    kinds = [event["type"] for event in events_of(answer)]
    assert (kinds[-1], kinds.count("response.failed"), "error" in kinds) == ("response.failed", 1, False)
    assert (await edge.record())["outcome"] == "upstream_error"


@pytest.mark.parametrize("early", [True, False], ids=["at once", "in the middle"])
async def test_the_servers_own_code_is_told_whenever_it_fails(serve: Serve, fake: FakeModel, *, early: bool) -> None:
    """The event of Responses is flat: its code was lost where it came first, and had to become a status."""
    edge = await serve(upstream=WIRES["responses"])
    told = responses_event("error", 0 if early else 5, code="weights_lost", message="oh no", param=None)
    fake.script(head(), *([] if early else [chunk(WORDS["responses"])]), chunk(told), end())
    answer = await ask(edge.port, RESPONSES, ASKED)
    if early:
        assert (answer.status, answer.json["error"]["code"]) == (502, "weights_lost")
    else:
        events = well_ended(answer, "weights_lost", "oh no")
        assert events[-1]["response"]["error"]["code"] == "server_error", "typed clients know few others"
