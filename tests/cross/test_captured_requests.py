"""Recorded requests for a real Ollama and a real vLLM, sent to Edge before other servers: these are asked the same."""

from collections.abc import Iterator
from typing import Any

import pytest
from cross.matrix.tongues import Chat, Messages, OllamaChat, Tongue
from fakes.model_server import FakeModel
from support.captures import SURFACES, Capture, captures
from support.raw import ask
from support.running import Serve

TARGETS: dict[str, tuple[tuple[str, Tongue], ...]] = {
    "chat": (("messages", Messages()), ("ollama_chat", OllamaChat())),
    "messages": (("chat", Chat()), ("ollama_chat", OllamaChat())),
    "responses": (("chat", Chat()), ("messages", Messages()), ("ollama_chat", OllamaChat())),
    "ollama_chat": (("chat", Chat()), ("messages", Messages())),
    "ollama_generate": (("chat", Chat()), ("messages", Messages())),
}
ALL = ("chat", "messages", "ollama_chat")
_BACKGROUND, _PREVIOUS = ("background", ALL), ("previous_response_id", ALL)
# What cannot be asked of others is a 400 that names the field, and nobody is asked.
REFUSED: dict[str, tuple[str, tuple[str, ...]]] = {
    "ollama-chat-format-unknown": ("format", ALL),
    "ollama-chat-logprobs-stream": ("logprobs", ("messages",)),
    "ollama-chat-logprobs-whole": ("logprobs", ("messages",)),
    "ollama-chat-option-of-wrong-type": ("options.temperature", ALL),
    "ollama-chat-role-unknown": ("messages.0.role", ALL),
    "ollama-generate-raw-with-context": ("context", ALL),
    "ollama-generate-repeat-guard-stream": ("raw", ALL),
    "ollama-generate-repeat-guard-whole": ("raw", ALL),
    "ollama-generate-suffix": ("suffix", ALL),
    "ollama-v1-chat-image-by-url": ("messages.0", ("ollama_chat",)),
    "ollama-v1-chat-n-2": ("n", ALL),
    "ollama-v1-messages-without-max-tokens": ("max_tokens", ALL),
    "ollama-v1-responses-previous": _PREVIOUS,
    "vllm-chat-logprobs-stream": ("logprobs", ("messages",)),
    "vllm-chat-max-tokens-0": ("max_tokens", ALL),
    "vllm-chat-n-2-stream": ("n", ALL),
    "vllm-chat-prompt-logprobs-0": ("prompt_logprobs", ALL),
    "vllm-chat-prompt-logprobs-stream": ("prompt_logprobs", ALL),
    "vllm-chat-role-unknown": ("messages.0.role", ALL),
    "vllm-chat-tool-named": ("tool_choice", ("ollama_chat",)),
    "vllm-chat-tool-named-stream": ("tool_choice", ("ollama_chat",)),
    "vllm-chat-tools-required": ("tool_choice", ("ollama_chat",)),
    "vllm-chat-tools-required-stream": ("tool_choice", ("ollama_chat",)),
    "vllm-messages-tool-not-an-object": ("tool_choice", ("ollama_chat",)),
    "vllm-messages-tool-stream": ("tool_choice", ("ollama_chat",)),
    "vllm-messages-without-max-tokens": ("max_tokens", ALL),
    "vllm-responses-background": _BACKGROUND,
    "vllm-responses-background-refused": _BACKGROUND,
    "vllm-responses-background-stream": _BACKGROUND,
    "vllm-responses-previous-unknown": _PREVIOUS,
    "vllm-responses-tool-cut": ("tool_choice", ("ollama_chat",)),
}
SHARED = ("temperature", "top_p", "top_k", "seed", "logprobs", "top_logprobs")


def _mine() -> Iterator[Capture]:
    for one in captures():
        generates = one.path in SURFACES and one.surface in TARGETS and one.name != "chat-load"
        if generates and isinstance(one.body, dict) and isinstance(one.body.get("stream", False), bool):
            yield one


CASES = [(capture, *target) for capture in _mine() for target in TARGETS[capture.surface]]


def _prompt(body: dict[str, Any]) -> str:
    """The text of the last message."""
    given = body.get("prompt") or body.get("input") or body["messages"][-1]["content"]
    return given if isinstance(given, str) else "".join(part.get("text", "") for part in given)


def _asked(body: dict[str, Any]) -> dict[str, Any]:
    """What a request asks for, whatever its surface."""
    options = body.get("options") or {}
    limits = (body.get(name) for name in ("max_tokens", "max_completion_tokens", "max_output_tokens"))
    limit = options.get("num_predict") or next((value for value in limits if value), None)
    tools = [tool.get("function", tool)["name"] for tool in body.get("tools") or ()]
    shared = {name: options.get(name, body.get(name)) for name in SHARED}
    return {"model": body.get("model"), "limit": limit, "tools": tools, **shared}


@pytest.mark.parametrize(
    ("capture", "native", "tongue"), CASES, ids=[f"{capture}-to-{native}" for capture, native, _ in CASES]
)
async def test_a_server_is_asked_what_the_client_asked(
    serve: Serve, fake: FakeModel, capture: Capture, native: str, tongue: Tongue
) -> None:
    edge = await serve(upstream={"surfaces": [native]})
    answer = await ask(edge.port, capture.path, capture.body)
    field, natives = REFUSED.get(str(capture), ("", ()))
    if native in natives:
        assert answer.status == 400
        error = answer.json["error"]
        assert (error if isinstance(error, str) else error["message"]).startswith(f"{field}: ")
        assert fake.requests == []
        return
    assert answer.status == 200
    (request,) = fake.requests
    assert request.path == tongue.path
    assert tongue.heard(request.json).text == _prompt(capture.body)
    wanted, got = _asked(capture.body), _asked(request.json)
    told = answer.headers.get("x-edge-dropped-params", "").replace("options.", "").split(", ")
    if wanted["limit"] is None and native == "messages":  # which has to name one
        wanted["limit"] = got["limit"]
    assert got == {name: None if name in told else value for name, value in wanted.items()}
    choice = capture.body.get("tool_choice")
    assert choice is None or request.json["tool_choice"] != "auto"
