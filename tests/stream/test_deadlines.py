"""The clocks of an answer: what starts each anew, on every surface, with a clock that the test moves by hand."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import orjson
import pytest
from fakes.answers import chat_delta, chat_finish, chat_role, messages_event, messages_ping, responses_event, sse
from support.surfaces import SPOKEN, Spoken

from edge.bounds import PRELUDE_BYTES
from edge.errors import EdgeError
from edge.policy.lifecycle import AttemptState, LifecycleEvent, Outcome, State
from edge.protocol.dialects import DIALECTS
from edge.protocol.request import prepare
from edge.protocol.sse import DONE
from edge.protocol.surface import Surface
from edge.settings import Settings, Stream
from edge.stream.attempt import MOST_EVENTS, Attempt
from edge.stream.deadlines import AnswerMode, Waited, overdue
from edge.stream.generation import Generation
from edge.upstream.ports import Call
from edge.upstream.relay.bodies import Events

CONNECT_S, FIRST_S, INTER_S = 5, 900, 60
SETTINGS = msgspec.convert(
    {
        "stream": {
            "connect_s": CONNECT_S,
            "first_token_s": FIRST_S,
            "inter_token_s": INTER_S,
            "max_event_bytes": 1 << 20,
        }
    },
    Settings,
)
NEVER = None
BUFFERS = AnswerMode(buffers_calls=True)
BY_PATH = {str(spoken): spoken for spoken in SPOKEN}
SURFACES = {
    "chat-completions": Surface.CHAT,
    "completions": Surface.COMPLETIONS,
    "messages": Surface.MESSAGES,
    "responses": Surface.RESPONSES,
}


@pytest.mark.parametrize(
    ("state", "content", "life", "flags", "expected"),
    [
        (AttemptState.CONNECTING, CONNECT_S, 0, {}, NEVER),
        (AttemptState.CONNECTING, CONNECT_S + 1, 0, {}, LifecycleEvent.CONNECT_TIMEOUT),
        # (a) before the first content nothing but content counts, whatever else there is
        (AttemptState.WAITING, FIRST_S, FIRST_S, {}, NEVER),
        (AttemptState.WAITING, FIRST_S + 1, 0, {}, LifecycleEvent.FIRST_TOKEN_TIMEOUT),
        (AttemptState.WAITING, FIRST_S + 1, 0, {"paused": True}, LifecycleEvent.FIRST_TOKEN_TIMEOUT),
        (
            AttemptState.WAITING,
            FIRST_S + 1,
            0,
            {"mode": BUFFERS},
            LifecycleEvent.FIRST_TOKEN_TIMEOUT,
        ),
        # (b) after it, life counts
        (AttemptState.STREAMING, INTER_S, INTER_S, {}, NEVER),
        (AttemptState.STREAMING, INTER_S + 1, INTER_S + 1, {}, LifecycleEvent.STALL),
        (AttemptState.STREAMING, INTER_S + 1, 0, {}, NEVER),
        (AttemptState.STREAMING, INTER_S + 1, INTER_S + 1, {"mode": BUFFERS}, NEVER),
        # (c) but not for ever
        (AttemptState.STREAMING, FIRST_S, 0, {}, NEVER),
        (AttemptState.STREAMING, FIRST_S + 1, 0, {}, LifecycleEvent.STALL),
        (
            AttemptState.STREAMING,
            FIRST_S + 1,
            FIRST_S + 1,
            {"mode": BUFFERS},
            LifecycleEvent.STALL,
        ),
        # nobody reads the upstream: its silence is ours
        (AttemptState.STREAMING, FIRST_S + 1, FIRST_S + 1, {"paused": True}, NEVER),
        (AttemptState.ENDED, FIRST_S + 1, FIRST_S + 1, {}, NEVER),
    ],
)
def test_the_clocks(
    state: AttemptState, content: float, life: float, flags: dict[str, bool], expected: LifecycleEvent | None
) -> None:
    late = overdue(state, SETTINGS.stream, Waited(content, life), **flags)
    assert (late.happened if late else None) == expected


def test_prompts_of_agents_may_take_minutes() -> None:
    assert Stream().first_token_s == 900


@dataclass
class Running:
    """A generation whose upstream is fed by hand, on a clock moved by hand."""

    surface: Surface = Surface.CHAT
    buffers_calls: bool = False
    now: float = 100.0
    errors: list[EdgeError] = field(default_factory=list)
    paused: bool = False

    def __post_init__(self) -> None:
        body = {"model": "m", "stream": True, "messages": [], "prompt": "", "input": "", "max_tokens": 9}
        dialect = DIALECTS[self.surface]
        prepared = prepare(self.surface, orjson.dumps(body))
        codec = dialect.codec(prepared, 1 << 20, frozenset())
        own = dialect.format("m", "req_1")
        self.generation = Generation("st_1", SETTINGS, lambda: self.now, self, surface_format=own)
        self.attempt = Attempt(self.generation, self, SETTINGS.stream, lambda: self.now)
        self.events = Events("up", codec, self.attempt, self.attempt.end)
        call = Call(self.surface, b"", codec, {}, 1 << 20, takes_body=False, buffers_calls=self.buffers_calls)
        self.attempt.open(self, call)
        self.attempt.connected()

    # what a generation's upstream, call and owner are to it
    name = "up"

    def open(self, _call: Call, _sink: Any) -> "Running":
        return self

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False

    def abort(self) -> None:
        pass

    def attempt_ended(self, happened: LifecycleEvent, error: EdgeError | None) -> None:
        self.errors += [error] if error is not None else []
        self.generation.finish(happened, error)

    def wanted(self) -> bool:
        return False

    keeps_answer = False
    place = None

    def settle(self, _outcome: Outcome, announce: Callable[[], None]) -> None:
        announce()

    def changed(self) -> None:
        pass

    def detached(self) -> None:
        pass

    def gets(self, data: bytes, after_s: float = 0.0) -> None:
        self.now += after_s
        self.generation.tick(self.now)
        if self.generation.outcome is None:
            self.events.on_bytes(data)

    def waits(self, seconds: float) -> Outcome | None:
        self.now += seconds
        self.generation.tick(self.now)
        return self.generation.outcome


def call_part(arguments: str, **extra: Any) -> bytes:
    return chat_delta({"tool_calls": [{"index": 0, "function": {"arguments": arguments}, **extra}]})


# What shows that a server is alive, and adds nothing to the answer.
LIFE: list[tuple[str, str, Callable[[], bytes]]] = [
    *((surface, "a comment", lambda: b": ping\n\n") for surface in SURFACES),
    *((surface, "a part of an event", lambda: b"data") for surface in SURFACES),
    ("chat-completions", "an empty delta", lambda: chat_delta({"content": ""})),
    ("chat-completions", "a role", chat_role),
    ("chat-completions", "no delta", lambda: chat_delta({})),
    ("chat-completions", "arguments without a byte", lambda: call_part("")),
    ("chat-completions", "a call without anything", lambda: chat_delta({"tool_calls": [{"index": 0}]})),
    ("chat-completions", "the old form of a call", lambda: chat_delta({"function_call": {"arguments": ""}})),
    ("completions", "an empty text", lambda: sse({"choices": [{"index": 0, "text": ""}]})),
    ("messages", "a ping", messages_ping),
    ("messages", "an empty text", lambda: _messages_delta("text_delta", text="")),
    ("messages", "arguments without a byte", lambda: _messages_delta("input_json_delta", partial_json="")),
    ("responses", "an empty text", lambda: responses_event("response.output_text.delta", 5, delta="")),
    ("responses", "empty arguments", lambda: responses_event("response.function_call_arguments.delta", 5, delta="")),
    ("responses", "a keepalive", lambda: responses_event("keepalive", 5)),
]


def _messages_delta(kind: str, **said: Any) -> bytes:
    return messages_event("content_block_delta", index=0, delta={"type": kind, **said})


alive = pytest.mark.parametrize(
    ("surface", "sign"), [(s, make) for s, _, make in LIFE], ids=[f"{s}-{w}" for s, w, _ in LIFE]
)


def begun(surface: str) -> tuple[Running, Spoken]:
    running, spoken = Running(SURFACES[surface]), BY_PATH[surface]
    running.gets(spoken.prelude + spoken.token)
    assert running.generation.state is State.STREAMING
    return running, spoken


@alive
def test_before_the_first_content_life_does_not_put_off_the_end(surface: str, sign: Callable[[], bytes]) -> None:
    running = Running(SURFACES[surface])
    for _ in range(10):
        running.gets(sign(), FIRST_S / 10)
    assert running.attempt.state is AttemptState.WAITING
    assert running.waits(1) is Outcome.FIRST_TOKEN_TIMEOUT


@alive
def test_after_it_life_puts_off_the_end(surface: str, sign: Callable[[], bytes]) -> None:
    running, _ = begun(surface)
    for _ in range(10):
        running.gets(sign(), INTER_S)
    assert running.generation.token_count == 1
    assert running.waits(INTER_S) is None
    assert running.waits(1) is Outcome.UPSTREAM_STALL


@alive
def test_but_not_for_longer_than_the_first_content_may_take(surface: str, sign: Callable[[], bytes]) -> None:
    running, _ = begun(surface)
    for _ in range(FIRST_S // INTER_S):
        running.gets(sign(), INTER_S)
    assert running.generation.outcome is None
    assert running.waits(1) is Outcome.UPSTREAM_STALL
    assert "added nothing" in str(running.generation.error)


@pytest.mark.parametrize("surface", SURFACES)
def test_content_winds_all_clocks_up(surface: str) -> None:
    running, spoken = begun(surface)
    for _ in range(3 * FIRST_S // INTER_S):
        running.gets(spoken.token, INTER_S)
    assert running.generation.outcome is None


def test_bytes_of_arguments_are_content() -> None:
    running = Running()
    running.gets(chat_delta({"tool_calls": [{"index": 0, "id": "c1", "function": {"name": "f", "arguments": ""}}]}))
    assert running.generation.state is State.STREAMING
    for _ in range(3 * FIRST_S // INTER_S):
        running.gets(call_part("1"), INTER_S)
    assert running.generation.outcome is None


def test_a_server_that_buffers_calls_may_be_silent_while_it_writes_one() -> None:
    running = Running(buffers_calls=True)
    running.gets(BY_PATH["chat-completions"].token)
    assert running.waits(FIRST_S) is None
    assert running.waits(1) is Outcome.UPSTREAM_STALL


def test_a_pause_for_slow_readers_is_not_the_upstreams_silence() -> None:
    running, _ = begun("chat-completions")
    running.generation.pause_source()
    running.generation._paused = True
    assert running.waits(2 * FIRST_S) is None
    running.generation.unpause()
    assert running.waits(INTER_S) is None
    assert running.waits(1) is Outcome.UPSTREAM_STALL


# Preludes


def test_a_prelude_is_bounded_in_number() -> None:
    running = Running()
    running.gets(chat_role() * (MOST_EVENTS - 1))
    running.gets(chat_role())
    assert running.generation.outcome is None
    assert not running.generation.handed_over
    running.gets(chat_role())
    assert running.generation.outcome is Outcome.UPSTREAM_ERROR
    (error,) = running.errors
    assert (error.status, error.retryable) == (502, True)
    assert str(MOST_EVENTS + 1) in error.message


def test_a_prelude_is_bounded_in_bytes() -> None:
    running = Running()
    largest = chat_delta({"role": "assistant", "content": ""}, padding="x" * (SETTINGS.stream.max_event_bytes - 1000))
    others = [largest] * (PRELUDE_BYTES // len(largest))
    for event in [largest, *others]:
        running.gets(event)
    assert running.generation.outcome is None
    running.gets(largest)
    assert running.generation.outcome is Outcome.UPSTREAM_ERROR
    (error,) = running.errors
    assert (error.status, error.retryable) == (502, False)
    assert str(SETTINGS.stream.max_event_bytes + PRELUDE_BYTES) in error.message
    assert "stream.max_event_bytes" in error.message
    assert running.generation.journal.end == 0


def test_a_large_prelude_is_held_and_then_told_whole() -> None:
    running = Running()
    running.gets(chat_role() * 1000)
    running.gets(BY_PATH["chat-completions"].token)
    running.gets(chat_finish())
    running.gets(DONE)  # an event that may be followed by usage waits for the next one
    assert running.generation.events == 1003
