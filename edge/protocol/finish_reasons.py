"""Finish reasons of chat completions and completions, as servers spell them.

In: what stands in ``finish_reason``. Out: what it means. Must not: take an answer that broke for a whole one.

Sources: the API references of OpenAI and Mistral; vLLM and SGLang (``abort``), DeepSeek
(``insufficient_system_resource``), OpenRouter (``error``), Zhipu (``sensitive``, ``network_error``), Gemini's OpenAI
route (upper case).
"""

from edge.protocol.events import Reason

_MEANS: dict[str, Reason] = {
    "stop": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "stop_sequence": "stop",
    "end_turn": "stop",
    "length": "length",
    "max_tokens": "length",
    "max_output_tokens": "length",
    "model_length": "length",
    "model_context_window_exceeded": "length",
    "tool_calls": "tool_calls",
    "tool_use": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
    "safety": "content_filter",
    "sensitive": "content_filter",
}
# The server gave up: the answer is not whole.
_BROKE = frozenset(
    {
        "abort", "aborted", "cancel", "canceled", "cancelled", "engine_error", "error", "failed", "failure",
        "insufficient_system_resource", "internal_error", "model_error", "network_error", "server_error", "timeout",
    }
)  # fmt: skip


def broke(finish: object) -> bool:
    """Whether it says that the answer is not whole."""
    return isinstance(finish, str) and finish.lower() in _BROKE


def known(finish: object) -> bool:
    """Whether it is known here what it means."""
    return isinstance(finish, str) and finish.lower() in _MEANS


def reason(finish: object) -> Reason:
    """What it means; ``stop`` for one that is not known."""
    return _MEANS.get(finish.lower(), "stop") if isinstance(finish, str) else "stop"


def broke_message(finish: object) -> str:
    """What to say of an answer that ended so."""
    return f"the model server gave up in the middle of the answer (finish_reason {str(finish)[:40]!r})"
