"""Recorded answers, translated: which clients can have them, how each asks, and what it then reads.

In: captures. Out: the clients' requests and answers, through a running Edge. Must not: judge the answers.
"""

import re
from collections.abc import Awaitable, Callable
from typing import Any

from cross.matrix.said import Want
from cross.matrix.speakers import ChatClient, CompletionsClient, MessagesClient, SessionClient, Speaker
from cross.matrix.speakers_ollama import GenerateClient, OllamaClient, RawGenerateClient
from cross.matrix.speakers_responses import ResponsesClient
from fakes.model_server import FakeModel
from support.captures import SURFACES, Capture, be, captures
from support.raw import Answer, ask
from support.running import Running

# Who can be answered through a server that speaks only this.
CLIENTS: dict[str, tuple[Speaker, ...]] = {
    "chat": (MessagesClient(), ResponsesClient(), OllamaClient(), GenerateClient(), SessionClient()),
    "messages": (ChatClient(), ResponsesClient(), OllamaClient(), GenerateClient(), SessionClient()),
    "ollama_chat": (ChatClient(), MessagesClient(), ResponsesClient(), SessionClient()),
    "ollama_generate": (CompletionsClient(),),
    "completions": (RawGenerateClient(),),
}
# They load a model, score a prompt, or are of a request that no other surface has.
NO_ANSWER = ("chat-load", "completions-echo-0-tokens", "v1-completions-list", "generate-raw-with-context")
_HEX = re.compile(rb"[0-9a-f]{32}")
_MOMENTS = re.compile(rb'("(?:created|created_at|(?:total|prompt_eval|eval)_duration)": ?)(?:\d+|"[^"]*")')
_TTFT = re.compile(rb',"ttft_ms":[0-9.]+')  # which a stream in one piece may not have


def translatable() -> list[Capture]:
    """The captures that clients of other surfaces can have."""
    mine = [one for one in captures() if one.path in SURFACES and one.surface in CLIENTS]
    return [one for one in mine if one.name not in NO_ANSWER]


def tells_logprobs(capture: Capture, client: Speaker) -> bool:
    """Whether both have a place for log probabilities, and they were asked for."""
    return bool(isinstance(capture.body, dict) and capture.body.get("logprobs")) and client.name in (
        "chat", "ollama-chat", "ollama-generate", "ollama-generate-raw",
    )  # fmt: skip


async def translated(
    serve: Callable[..., Awaitable[Running]],
    fake: FakeModel,
    capture: Capture,
    client: Speaker,
    *,
    stream: bool,
    at_once: bool = False,
) -> tuple[Running, Answer]:
    """What a client gets of a recorded answer."""
    be(fake, capture.server)
    for _ in range(1 if capture.status == 200 else 2):  # some refusals are met by asking once more, for less
        fake.script(*capture.steps(at_once=at_once))
    surfaces = ["chat", "completions"] if capture.surface == "completions" else [capture.surface]
    edge = await serve(fake.url, upstream={"surfaces": surfaces}, stream={"grace_s": 0.05})
    extra: dict[str, Any] = {"model": "smollm2"}
    if tells_logprobs(capture, client):
        extra |= {"logprobs": True, "top_logprobs": 2}
    return edge, await ask(edge.port, client.path, client.body(Want(stream=stream, extra=extra)))


def settled(answer: Answer) -> bytes:
    """The answer, without ids and times of this very run."""
    found = dict.fromkeys(_HEX.findall(answer.body))
    body = answer.body
    for number, identity in enumerate(found):
        body = body.replace(identity, b"ID%d" % number)
    body = _TTFT.sub(b"", _MOMENTS.sub(rb"\g<1>0", body))
    kind, how = answer.headers["content-type"].split(";")[0], "clean" if answer.clean else "reset"
    return f"=== {answer.status} {kind} {how}\n".encode() + body.rstrip() + b"\n"


# Those whose translations are checked in: one of each kind of answer, the shortest.
GOLDEN = (
    "ollama-chat-logprobs-stream", "ollama-chat-logprobs-whole", "ollama-chat-thinking-stream",
    "ollama-chat-tool-call-stream", "ollama-chat-tool-call-whole", "ollama-chat-tools-on-model-that-cannot",
    "ollama-generate-stream", "ollama-v1-chat-tool-call-stream", "ollama-v1-chat-stream-usage",
    "ollama-v1-messages-stream", "vllm-chat-bad-schema-stream", "vllm-chat-logprobs-stream", "vllm-chat-n-2-stream",
    "vllm-chat-on-embedding-model", "vllm-chat-cached-tokens", "vllm-chat-stream-engine-killed",
    "vllm-chat-thinking-stream", "vllm-chat-too-long", "vllm-chat-tools-required-stream", "vllm-completions-stream",
    "vllm-messages-cached-tokens", "vllm-messages-stream-engine-killed", "vllm-messages-thinking-stream",
    "vllm-messages-tool-stream", "vllm-messages-whole-engine-killed",
)  # fmt: skip
