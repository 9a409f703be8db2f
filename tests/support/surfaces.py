"""The generating surfaces, each with a request and the pieces of a stream, for tests that run over all of them."""

from dataclasses import dataclass
from typing import Any

from fakes.model_server import (
    DONE,
    chat_finish,
    chat_role,
    chat_token,
    chat_usage,
    completion_finish,
    completion_token,
    completion_usage,
    messages_block_start,
    messages_block_stop,
    messages_delta,
    messages_start,
    messages_stop,
    messages_token,
    responses_events,
)

from support.raw import CHAT, COMPLETIONS, MESSAGES, RESPONSES

_RESPONSES = responses_events(["tok"])


@dataclass(frozen=True)
class Spoken:
    """A surface, as a client and a model server speak it. ``token`` holds the text ``tok``."""

    path: str
    request: dict[str, Any]
    prelude: bytes  # empty where the surface has none
    token: bytes
    ending: bytes

    def asked(self, *, stream: bool) -> dict[str, Any]:
        return {"model": "m", **self.request, "stream": stream}

    def __str__(self) -> str:
        return self.path.removeprefix("/v1/").replace("/", "-")


SPOKEN = (
    Spoken(
        CHAT,
        {"messages": [{"role": "user", "content": "hi"}]},
        chat_role(),
        chat_token("tok"),
        chat_finish() + chat_usage() + DONE,
    ),
    Spoken(
        COMPLETIONS, {"prompt": "hi"}, b"", completion_token("tok"), completion_finish() + completion_usage() + DONE
    ),
    Spoken(
        MESSAGES,
        {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 9},
        messages_start() + messages_block_start(),
        messages_token("tok"),
        messages_block_stop() + messages_delta() + messages_stop(),
    ),
    Spoken(RESPONSES, {"input": "hi"}, b"".join(_RESPONSES[:4]), _RESPONSES[4], b"".join(_RESPONSES[5:])),
)
