"""The session API as a client: messages sent, and what Edge then remembers of them."""

import asyncio
from typing import Any

from fakes.model_server import FakeModel, chat_role, chat_token, chunk, head

from support.eventsource import parsed
from support.raw import Answer, ask
from support.running import Running
from support.shapes import get

STREAM = "/v1/chat/stream"
BEGUN = [head(), chunk(chat_role() + chat_token("tok"))]


async def said(edge: Running, message: str = "hi", headers: dict[str, str] | None = None, **fields: Any) -> Answer:
    """One message, answered whole."""
    answer = await ask(edge.port, STREAM, {"message": message, **fields}, headers)
    assert (answer.status, answer.clean) == (200, True), answer.body
    return answer


def text_of(answer: Answer) -> str:
    return "".join(event.json["delta"] for event in parsed(answer.body).events if event.type == "message")


async def kept(edge: Running, session: str = "default", headers: dict[str, str] | None = None) -> list[dict[str, Any]]:
    """The turns of a session, without their times; none if it is unknown."""
    answer = await get(edge.port, f"/v1/sessions/{session}", headers)
    if answer.status == 404:
        return []
    return [{name: value for name, value in turn.items() if name != "at"} for turn in answer.json["turns"]]


async def settled(edge: Running) -> None:
    """Wait until every exchange is over and what came of it is kept."""
    await edge.lines.wait("exchange", len(edge.lines.of("start")))
    while edge.edge.sessions._running:
        await asyncio.sleep(0)


def asked(fake: FakeModel, index: int = -1) -> list[tuple[str, str]]:
    """The messages that the model was sent."""
    return [(message["role"], message["content"]) for message in fake.requests[index].json["messages"]]
