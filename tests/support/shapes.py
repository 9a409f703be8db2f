"""The one error shape of each family of surfaces, and the requests that tests of the face send.

In: answers. Out: assertions. Must not: know which failure it is.
"""

from collections.abc import Mapping
from typing import Any

from support.raw import CHAT, COMPLETIONS, EMBEDDINGS, LIMIT_S, MESSAGES, RESPONSES, Answer, RawClient

COUNT_TOKENS = "/v1/messages/count_tokens"
ANTHROPIC = (MESSAGES, COUNT_TOKENS)
EVERY_SURFACE = {"surfaces": ["chat", "completions", "embeddings", "responses", "messages", "count_tokens"]}
BODIES: dict[str, dict[str, Any]] = {
    CHAT: {"messages": [{"role": "user", "content": "hi"}]},
    COMPLETIONS: {"prompt": "hi"},
    EMBEDDINGS: {"input": "hi"},
    RESPONSES: {"input": "hi"},
    MESSAGES: {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 9},
    COUNT_TOKENS: {"messages": [{"role": "user", "content": "hi"}]},
}


def valid_body(path: str, **extra: Any) -> dict[str, Any]:
    """A request that any model server takes."""
    return {"model": "m", **BODIES[path], **extra}


async def get(port: int, path: str, headers: Mapping[str, str] | None = None, method: str = "GET") -> Answer:
    """One request without a body, on a connection of its own."""
    async with RawClient(port) as client:
        await client.get(path, headers, method)
        return await client.answer()


async def say(port: int, data: bytes, timeout_s: float = LIMIT_S) -> Answer:
    """Exactly these bytes, on a connection of their own; the first answer to them."""
    async with RawClient(port) as client:
        await client.send(data)
        return await client.answer(timeout_s)


def assert_told(answer: Answer, status: int, path: str, code: str | None = None, kind: str | None = None) -> None:
    """The whole of an error answer, in the shape of the surface at ``path``.

    Args:
        code: OpenAI's ``error.code``, or
        kind: Anthropic's ``error.type``; whichever the family has.
    """
    assert (answer.status, answer.clean) == (status, True), answer.body
    assert answer.headers["content-type"].startswith("application/json")
    assert answer.headers["x-request-id"] == answer.headers["request-id"]
    if path in ANTHROPIC:
        assert set(answer.json) == {"type", "error", "request_id"}
        assert answer.json["type"] == "error"
        assert set(answer.json["error"]) == {"type", "message"}
        assert answer.json["request_id"] == answer.headers["request-id"]
        assert kind is None or answer.json["error"]["type"] == kind
    else:
        assert set(answer.json) == {"error"}
        assert set(answer.json["error"]) == {"message", "type", "param", "code"}
        assert isinstance(answer.json["error"]["type"], str)
        assert code is None or answer.json["error"]["code"] == code
    assert answer.json["error"]["message"]
