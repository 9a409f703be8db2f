"""The simulator in front of a client: how it is served, and what its chat streams hold.

In: an Edge, or an answer. Out: an Edge, or parts of the answer. Must not: wait for a pace.
"""

from typing import Any

import orjson

from support.raw import CHAT, Answer, ask, chat_body
from support.running import Running, Serve


async def serve_simulator(serve: Serve, *, script: str = "", **sections: Any) -> Running:
    """An Edge whose one upstream is a simulator that does not pause between words."""
    return await serve("", upstream={"kind": "simulator", "pace_s": 0.0, "script": script}, **sections)


async def chat(edge: Running, model: str, said: Any = "hello there", **extra: Any) -> Answer:
    """One chat request to a simulated model."""
    return await ask(edge.port, CHAT, chat_body(model=model, messages=[{"role": "user", "content": said}], **extra))


def chunks(answer: Answer) -> list[Any]:
    """The chunks of a stream that ended as it should."""
    assert (answer.status, answer.clean, answer.events[-1]) == (200, True, b"data: [DONE]\n\n"), answer.body
    return [orjson.loads(event[6:]) for event in answer.events[:-1]]


def deltas(answer: Answer, choice: int = 0) -> list[dict[str, Any]]:
    """The deltas of one choice, in order."""
    mine = [told for chunk in chunks(answer) for told in chunk["choices"] if told["index"] == choice]
    return [told["delta"] for told in mine]


def text(answer: Answer, choice: int = 0, name: str = "content") -> str:
    """A choice's text, joined."""
    return "".join(delta.get(name) or "" for delta in deltas(answer, choice))


def finish(answer: Answer, choice: int = 0) -> Any:
    """Why a choice has ended: the last of its chunks says so, and none before it."""
    mine = [told for chunk in chunks(answer) for told in chunk["choices"] if told["index"] == choice]
    assert [told["finish_reason"] for told in mine[:-1]] == [None] * (len(mine) - 1)
    return mine[-1]["finish_reason"]
